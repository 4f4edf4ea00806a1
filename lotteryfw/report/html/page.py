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
from lotteryfw.report.html.plotly_chart import Chart, Trace
from lotteryfw.report.html.study_charts import density_charts, learning_chart
from lotteryfw.report.tables.best_level import best_levels, untrained_masks
from lotteryfw.report.tables.provenance import provenance_table
from lotteryfw.report.tables.summary import study_tables
from lotteryfw.report.tables.text_table import TextTable
from lotteryfw.report.tables.winning_tickets import level_verdict_table
from lotteryfw.report.verdicts.claims import ClaimVerdict, check_claims
from lotteryfw.report.verdicts.winning_tickets import SeriesVerdict, winning_tickets
from lotteryfw.store import RunFolder, atomic_write

NAME = "report.html"


@dataclass(frozen=True)
class Section:
    """The contents of the page for one study, in this order; `note`: it is shown in part."""

    name: str
    charts: Sequence[Chart]
    tickets: Sequence[tuple[SeriesVerdict, TextTable]]
    tables: Sequence[TextTable]
    note: str


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
    # here, because plotly takes long to import, and tables alone do not need it
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("lotteryfw.report.html"),
        # a recipe may come from a stranger, and its names and texts stand on the page
        autoescape=True,
        # a misspelt name in the template is an error and not an empty place
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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
    return environment.get_template("page.html").render(
        title=manifest.get("title") or manifest.get("name") or folder.path.name,
        run=manifest,
        cells=counts,
        claims=claims,
        masks=untrained_masks(data.shown),
        sections=sections,
        charts=_packed(charts),
        provenance=provenance_table(manifest),
        versions=_version_table(manifest),
        recipe=(folder.path / "resolved.toml").read_text("utf-8"),
        # the whole library, some 4 MB, as the page must not need a network
        plotly=get_plotlyjs(),
    )


def _section(study: StudySeries, data: RunData) -> Section:
    tables = study_tables(study)
    if not study.seeds:  # every training diverged
        return Section(study.name, (), (), tables, study.partly_shown)

    charts = density_charts(study)
    learning = learning_chart(study, data.curves)
    if learning:
        charts.append(learning)
    charts += analysis_charts(study, data.findings.of_study(study.name))

    tickets: list[tuple[SeriesVerdict, TextTable]] = []
    for verdict in winning_tickets(study, data.study_table(study.name)):
        tickets.append((verdict, level_verdict_table(verdict)))
    best = best_levels(study)
    if best:
        tables.append(best)
    return Section(study.name, charts, tickets, tables, study.partly_shown)


def _packed(charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the charts' views as JSON, with equal lists of figures stored once.

    The views of one study share most of their lists; a trace refers to a list by its index.
    """
    # each list's index, in order of first use: a dict keeps that order, so it is the lists, too
    indices: dict[tuple[Any, ...], int] = {}
    views: dict[str, list[dict[str, Any]]] = {}
    for chart in charts:
        packed_views = views.setdefault(chart.key, [])
        for view in chart.views:
            packed_views.append(
                {
                    "label": view.label,
                    "traces": [_packed_trace(trace, indices) for trace in view.traces],
                    "xaxis": view.xaxis,
                    "yaxis": view.yaxis,
                }
            )
    return {"views": views, "lists": list(indices)}


def _packed_trace(trace: Trace, indices: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    packed = {}
    for name, value in trace.items():
        if isinstance(value, list):
            # an equal list keeps its earlier index
            value = {"list": indices.setdefault(tuple(value), len(indices))}
        packed[name] = value
    return packed


def _version_table(manifest: dict[str, Any]) -> TextTable:
    """Return the versions and the machine of the run, without the machine's paths.

    A page is passed on to others.
    """
    rows = []
    for part in ("versions", "plugins", "numerics", "machine"):
        for name, value in manifest.get(part, {}).items():
            rows.append((part, name, str(value)))
    return TextTable("", ("", "name", "value"), tuple(rows), ())
