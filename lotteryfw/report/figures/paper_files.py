"""Figures and tables for papers: PDF at the width of a column or a page, LaTeX and CSV tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.api.errors import UsageError
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.figures.figure_files import STYLE, legend_entries, study_figures
from lotteryfw.report.figures.figure_spec import FigureSpec
from lotteryfw.report.tables.summary import study_tables
from lotteryfw.report.tables.text_table import TextTable
from lotteryfw.store import atomic_write, file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.25, "page": 6.75}
"""Widths in inches, those of two-column conference papers."""
FONT_SIZE = 8.0
_ASPECT = 0.72  # height of a panel / its width
_LEGEND_LINE = 1.5  # of the font size
_POINTS = 72  # in an inch
_LETTER = 0.55  # mean width / font size
_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        # letters of old fonts have other signs in the places of these
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        # an empty line would end a paragraph, and with it the row
        "\n": " ",
        "±": r"$\pm$", "†": r"$\dagger$", "–": "--", "·": r"$\cdot$",
    }
)  # fmt: skip


def write_paper(run: RunData, font_size: float = FONT_SIZE) -> list[Path]:
    """Write paper/NAME-column.pdf and -page.pdf for each figure, and each table as .tex and .csv.

    Figures have no title, since a paper has captions, and letters of `font_size` points at the
    width that they are made for. Returns the paths. Raises UsageError without matplotlib,
    StoreError where the folder cannot be read or written.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UsageError('figures need matplotlib: pip install "lotteryfw[plots]"') from error

    folder = run.folder.path / "paper"
    style = STYLE | {
        "font.size": font_size,
        "axes.titlesize": font_size,
        "axes.labelsize": font_size,
        "legend.fontsize": font_size - 1,
        "xtick.labelsize": font_size - 1,
        "ytick.labelsize": font_size - 1,
        # letters as outlines of TrueType, which every publisher takes
        "pdf.fonttype": 42,
    }
    paths = []
    for spec in study_figures(run):
        for name, width in WIDTHS.items():
            with rc_context(style):
                content = _pdf(_drawn(spec, width, name, font_size))
            path = folder / f"{file_name(spec.name)}-{name}.pdf"
            atomic_write(path, content)
            paths.append(path)
    for study in run.shown:
        for number, table in enumerate(study_tables(study), 1):
            stem = folder / f"{file_name(study.name)}-table{number}"
            for suffix, text in ((".tex", latex_table(table)), (".csv", csv_table(table))):
                path = stem.with_name(stem.name + suffix)
                atomic_write(path, text.encode())
                paths.append(path)
    return paths


def _drawn(spec: FigureSpec, width: float, name: str, font_size: float) -> Figure:
    """Return a figure of exactly this width: panels below each other in a column."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = 1 if name == "column" else min(spec.columns, 3)
    rows = ceil(len(spec.panels) / columns)
    figure = Figure(facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, draw_panel in zip(grid, spec.panels, strict=False):
        draw_panel(axes)
        _fit_ticks(axes, width / columns, font_size)
    for axes in grid[len(spec.panels) :]:
        axes.set_axis_off()
    legend_height = 0.0
    if spec.legend:
        legend_height = _legend_below(figure, grid, width, font_size)
    height = rows * _ASPECT * width / columns + legend_height
    figure.set_size_inches(width, height)
    return figure


def _legend_below(figure: Figure, panels: Sequence[Axes], width: float, font_size: float) -> float:
    """Add the legend below the panels, in as many columns as fit; return its height in inches."""
    handles, labels = legend_entries(panels)
    if not labels:
        return 0.0
    # a line and a gap take about six letters
    letters = max(map(len, labels)) + 6
    columns = max(1, int(width * _POINTS / (letters * _LETTER * font_size)))
    figure.legend(
        handles, labels, loc="outside lower center", frameon=False, ncols=min(columns, len(labels))
    )
    return ceil(len(labels) / columns) * _LEGEND_LINE * font_size / _POINTS + 0.1


def _fit_ticks(axes: Axes, width: float, font_size: float) -> None:
    """Name fewer densities where a panel is narrower than those on a screen; its ends stay."""
    from matplotlib.ticker import FixedLocator

    if axes.get_xscale() != "log":
        return
    ticks = list(axes.xaxis.get_majorticklocs())
    # "51.3" and a gap, in a panel whose axis takes three quarters of its width
    most = max(2, int(0.75 * width * _POINTS / (5 * _LETTER * font_size)))
    if len(ticks) > most:
        step = (len(ticks) - 1) / (most - 1)
        axes.xaxis.set_major_locator(
            FixedLocator([ticks[round(index * step)] for index in range(most)])
        )


def _pdf(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # None leaves an entry out: a date or a version would change the bytes
    metadata = {"CreationDate": None, "Producer": None, "Creator": None}
    figure.savefig(buffer, format="pdf", metadata=metadata)
    return buffer.getvalue()


def latex_table(table: TextTable) -> str:
    """Return a table for the package booktabs, turned where it has many levels."""
    parts = []
    for part in table.fitted(8):
        rows = [_latex_row(row) for row in (part.head, *part.rows)]
        lines = [
            _comment(part.title),
            f"\\begin{{tabular}}{{l{'r' * (len(part.head) - 1)}}}",
            r"  \toprule",
            rows[0],
            r"  \midrule",
            *rows[1:],
            r"  \bottomrule",
            r"\end{tabular}",
        ]
        lines += map(_comment, part.notes)
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _comment(text: str) -> str:
    return "% " + text.replace("\n", " ")


def _latex_row(cells: tuple[str, ...]) -> str:
    return f"  {' & '.join(cell.translate(_SPECIAL) for cell in cells)} \\\\"


def csv_table(table: TextTable) -> str:
    """Return a table as CSV, every column of it."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([table.head, *table.rows])
    return text.getvalue()
