"""The static figures of a run, as PNG and SVG: of each study's levels, and of what its analyses found.

The same rows give the same bytes: fonts and salt are fixed, and no date is written into a file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import UsageError
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import Study
from lotteryfw.report.data.units import percent, unit_of
from lotteryfw.report.figures import matplotlib_panels as panel
from lotteryfw.report.plots.analysis_views import clouds, samples, whole_metrics
from lotteryfw.report.plots.style import caption, error_scale
from lotteryfw.report.tables import single_level as flat
from lotteryfw.report.tables.summary import METRICS
from lotteryfw.store import RunFolder, atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALL, _TINY = (3.7, 3.2), (2.1, 2.0)  # inches, where there are many panels
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 10,
    "text.color": panel.INK,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": panel.INK,
    "xtick.color": panel.INK,
    "ytick.color": panel.INK,
    "svg.hashsalt": "lotteryfw",
}


@dataclass(frozen=True)
class Plate:
    """One figure before it is drawn. `panels` stand in rows of `columns`, each `size` inches; `legend`: beside them."""

    name: str
    note: str
    panels: Sequence[Callable[[Axes], None]]
    columns: int
    size: tuple[float, float] = panel.PANEL
    legend: bool = True
    axes: tuple[str, str] = ("", "")
    """What is written along all panels together."""


def write_figures(run: RunFolder | RunData) -> list[Path]:
    """Draws figures/STUDY.png and .svg, and more for its analyses, for each study that has results; returns the paths.

    Raises UsageError without matplotlib, StoreError where the folder cannot be read or written.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UsageError('figures need matplotlib: pip install "lotteryfw[plots]"') from error
    data = RunData.of(run)
    title = str(data.manifest.get("title") or "")
    paths = []
    for study in data.shown:
        if not study.seeds:
            continue
        for plate in (_levels(study), *_found(study, data.findings.within(study.name))):
            with rc_context(_STYLE):
                paths += _saved(_drawn(plate, title), data.folder.path / "figures" / plate.name)
    return paths


def _levels(study: Study) -> Plate:
    """Accuracy and early-stopping step against density or, where there are no curves, by variant and by layer."""
    if study.flat:
        shown = [dots for dots in (flat.compared(study, METRICS[0]), flat.densities(study)) if dots]
        panels = [partial(panel.dotted, dots=dots) for dots in shown]
        return Plate(study.name, caption(study, "bars"), panels, len(panels))
    panels = [
        partial(
            panel.curves, study=study, unit=unit_of(metric), told=methodcaller("spread", metric),
            scale=error_scale(study, metric),
        )
        for metric in METRICS
    ]  # fmt: skip
    return Plate(study.name, caption(study), panels, len(panels))


def _found(study: Study, findings: Findings) -> Iterator[Plate]:
    undrawn = replace(
        study, dense=None
    )  # its own figures stand at 100 %, and are no goal that the others have
    for analysis in findings.analyses:
        metrics = whole_metrics(findings, analysis, distinct=True)
        name = f"{study.name}-{analysis}"
        if metrics and not study.flat:
            told = [
                (findings.unit(metric), partial(findings.spread, metric=metric))
                for metric in metrics
            ]
            panels = [
                partial(panel.curves, study=undrawn, unit=unit, told=spread)
                for unit, spread in told
            ]
            yield Plate(name, caption(study), panels, min(3, len(panels)), _SMALL)
        if study.flat or any(series.parts for series in study.series):
            found = [clouds(study, findings, metric) for metric in metrics]
            spots = [
                partial(panel.cloud, cloud=each, unit=findings.unit(each.metric))
                for row in found
                for each in row
            ]
            if spots:
                told_n = "A mark for each training."
                yield Plate(
                    f"{name}-accuracy", told_n, spots, max(map(len, found)), _SMALL, legend=False
                )
    if shown := samples(study, findings):
        note = f"A sample of each layer in seed {shown[0].seed}, at {percent(shown[0].density)} % of the weights."
        grid = [partial(panel.weights, sample=sample) for sample in shown]
        layers = len({sample.layer for sample in shown})
        along = ("w_i: weight before training", "w_f: weight after training")
        yield Plate(f"{study.name}-weights", note, grid, layers, _TINY, axes=along)


def _drawn(plate: Plate, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = ceil(len(plate.panels) / plate.columns)
    figure = Figure(facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12))
    FigureCanvasAgg(figure)
    places = list(figure.subplots(rows, plate.columns, squeeze=False).flat)
    for axes, draw in zip(places, plate.panels, strict=False):
        draw(axes)
    for axes in places[len(plate.panels) :]:
        axes.set_axis_off()
    beside = 0.0
    if plate.legend:
        handles, labels = places[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside right upper",
            frameon=False,
            fontsize=9,
            handlelength=3.2,
            markerscale=1,
        )
        beside = 0.8 + 0.07 * max(map(len, labels), default=0)  # inches, so panels keep their size
    width, height = plate.size
    name = plate.name.replace("-", " · ").replace("_", " ") if "-" in plate.name else plate.name
    heading = " · ".join(part for part in (title, name) if part)
    figure.set_size_inches(max(plate.columns * width, 0.11 * len(heading)) + beside, rows * height)
    figure.suptitle(heading, x=0.01, ha="left", weight="bold", fontsize=12)
    along, up = plate.axes
    figure.supxlabel(
        "\n".join(part for part in (along, plate.note) if part),
        x=0.01,
        ha="left",
        fontsize=8,
        color="#666666",
    )
    figure.supylabel(up, fontsize=8, color="#666666")
    return figure


def _saved(figure: Figure, stem: Path) -> list[Path]:
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        data = io.BytesIO()
        figure.savefig(
            data, format=kind, dpi=200, bbox_inches="tight", pad_inches=0.15, metadata=metadata
        )
        path = stem.with_name(f"{stem.name}.{kind}")
        atomic_write(path, data.getvalue())
        paths.append(path)
    return paths
