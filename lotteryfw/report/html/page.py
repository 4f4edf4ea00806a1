"""The page report.html: a run on one page that needs no network, for a screen and for a phone.

The page is a template, and this module gathers its contents. The same run folder gives the same
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.html.analysis_charts import analysis_charts
from lotteryfw.report.html.axis_charts import along_charts, axis_charts
from lotteryfw.report.html.layer_charts import layer_chart
from lotteryfw.report.html.mask_pictures import TicketPictures, mask_pictures
from lotteryfw.report.html.plotly_chart import Chart
from lotteryfw.report.html.rendering import render
from lotteryfw.report.html.study_charts import density_charts, learning_chart
from lotteryfw.report.tables.best_level import best_levels, untrained_masks
from lotteryfw.report.tables.endings import unfinished_text
from lotteryfw.report.tables.provenance import provenance_table
from lotteryfw.report.tables.summary import study_tables
from lotteryfw.report.tables.text_table import TextTable
from lotteryfw.report.tables.winning_tickets import level_verdict_table
from lotteryfw.report.verdicts.claims import ClaimVerdict, check_claims
from lotteryfw.report.verdicts.winning_tickets import SeriesVerdict, winning_tickets
from lotteryfw.store import RunFolder, atomic_write, failed_cells

NAME = "report.html"
_COLUMNS = 9  # of figures, as many as printed paper has room for


@dataclass(frozen=True)
class Section:
    """The contents of the page for one study, in this order; `note`: it is shown in part.

    `figure` is the name of the figure that the objective reports.
    """

    name: str
    charts: Sequence[Chart]
    tickets: Sequence[tuple[SeriesVerdict, TextTable]]
    tables: Sequence[TextTable]
    note: str
    figure: str
    pictures: Sequence[TicketPictures] = ()
    pictures_note: str = ""


def write_page(run: RunFolder | RunData, claims: Sequence[ClaimVerdict] | None = None) -> Path:
    """Write report.html into the run's folder, and return its path. Raises StoreError.

    `claims` are the verdicts of `check_claims`, if they are computed already.
    """
    data = RunData.of(run)
    if claims is None:
        claims = check_claims(data)
    path = data.folder.path / NAME
    atomic_write(path, _render(data, claims).encode())
    return path


def _render(data: RunData, claims: Sequence[ClaimVerdict]) -> str:
    folder, manifest = data.folder, data.manifest
    sections: list[Section] = []
    charts: list[Chart] = []
    for study in data.shown:
        section = _section(study, data)
        sections.append(section)
        charts += section.charts
    # how many cells have each status, in the order in which statuses occur first
    counts: dict[str, int] = {}
    for status in manifest.get("cells", {}).values():
        counts[status] = counts.get(status, 0) + 1
    return render(
        "page.html",
        title=manifest.get("title") or manifest.get("name") or folder.path.name,
        run=manifest,
        cells=counts,
        failed=failed_cells(manifest),
        unfinished=unfinished_text(data),
        claims=claims,
        masks=untrained_masks(data.shown),
        sections=sections,
        charts=charts,
        provenance=provenance_table(manifest),
        versions=_version_table(manifest),
        recipe=(folder.path / "resolved.toml").read_text("utf-8"),
    )


def _section(study: StudySeries, data: RunData) -> Section:
    tables: list[TextTable] = []
    for table in study_tables(study):
        tables += table.fitted(_COLUMNS)
    if not study.seeds:  # every training diverged
        return Section(study.name, (), (), tables, study.partly_shown, study.figure)

    charts = density_charts(study)
    layers = layer_chart(study)
    if layers:
        charts.append(layers)
    learning = learning_chart(study, data.curves)
    if learning:
        charts.append(learning)
    findings = data.findings.of_study(study.name)
    charts += axis_charts(study, findings)
    charts += analysis_charts(study, findings)
    charts += along_charts(study, findings)

    tickets: list[tuple[SeriesVerdict, TextTable]] = []
    for verdict in winning_tickets(study, data.study_table(study.name)):
        tickets.append((verdict, level_verdict_table(verdict)))
    best = best_levels(study)
    if best:
        tables.append(best)
    pictures, pictures_note = mask_pictures(study, data)
    note, figure = study.partly_shown, study.figure
    return Section(study.name, charts, tickets, tables, note, figure, pictures, pictures_note)


def _version_table(manifest: dict[str, Any]) -> TextTable:
    """Return the versions and the machine of the run, without the machine's paths.

    A page is passed on to others.
    """
    rows = []
    for part in ("versions", "plugins", "numerics", "machine"):
        for name, value in manifest.get(part, {}).items():
            rows.append((part, name, str(value)))
    return TextTable("", ("", "name", "value"), tuple(rows), ())
