"""report.html: a run on one page that needs no network, for a screen and for a phone.

The page is a template; what stands on it is gathered here. The same run folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.learning_curves import Curves
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import Study
from lotteryfw.report.html.analysis_charts import found_charts
from lotteryfw.report.html.plotly_chart import Chart, Trace
from lotteryfw.report.html.study_charts import density_charts, learning_chart
from lotteryfw.report.tables.best_level import best_levels, masks_alone
from lotteryfw.report.tables.summary import sheets
from lotteryfw.report.tables.text_table import Sheet
from lotteryfw.report.verdicts.claims import Verdict, check_claims
from lotteryfw.report.verdicts.winning_tickets import SeriesVerdict, winning_tickets
from lotteryfw.store import RunFolder, atomic_write

NAME = "report.html"


@dataclass(frozen=True)
class Section:
    """What the page shows of a study, in this order."""

    name: str
    charts: tuple[Chart, ...]
    tickets: tuple[SeriesVerdict, ...]
    sheets: tuple[Sheet, ...]
    note: str = ""
    """What is said where the study is shown in part."""


def write_page(run: RunFolder | RunData, claims: Sequence[Verdict] | None = None) -> Path:
    """Writes report.html into the run's folder, and returns its path. Raises StoreError.

    `claims` are those of `check_claims`, where they are known already.
    """
    from plotly.offline import get_plotlyjs

    data = RunData.of(run)
    if claims is None:
        claims = check_claims(data)
    sections = [
        _section(study, data.curves, data.findings.within(study.name)) for study in data.shown
    ]
    text = _render(data, claims, masks_alone(data.shown, data.curves), sections, get_plotlyjs())
    path = data.folder.path / NAME
    atomic_write(path, text.encode())
    return path


def _section(study: Study, curves: Curves, findings: Findings) -> Section:
    """Whatever more there is to show of a study joins its charts or its sheets here."""
    if not study.seeds:
        return Section(study.name, (), (), tuple(sheets(study)), study.partly_shown)
    learned, best = learning_chart(study, curves), best_levels(study)
    return Section(
        study.name,
        charts=(
            *density_charts(study),
            *([learned] if learned else []),
            *found_charts(study, findings),
        ),
        tickets=tuple(winning_tickets(study)),
        sheets=(*sheets(study), *([best] if best else [])),
        note=study.partly_shown,
    )


def _render(
    data: RunData,
    claims: Sequence[Verdict],
    masks: Sheet | None,
    sections: Sequence[Section],
    plotly: str,
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("lotteryfw.report.html"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    folder, manifest = data.folder, data.manifest
    cells = list(manifest.get("cells", {}).values())
    return pages.get_template("page.html").render(
        title=manifest.get("title") or manifest.get("name") or folder.path.name,
        run=manifest,
        cells={status: cells.count(status) for status in dict.fromkeys(cells)},
        claims=claims,
        masks=masks,
        sections=sections,
        charts=_packed([chart for each in sections for chart in each.charts]),
        facts=_facts(manifest),
        recipe=(folder.path / "resolved.toml").read_text("utf-8"),
        plotly=plotly,
    )


def _packed(charts: Sequence[Chart]) -> dict[str, Any]:
    """The charts' views as JSON, with each list of figures once: views of one study share most of theirs."""
    places: dict[tuple[Any, ...], int] = {}

    def packed(trace: Trace) -> dict[str, Any]:
        return {
            name: {"list": places.setdefault(tuple(value), len(places))}
            if isinstance(value, list)
            else value
            for name, value in trace.items()
        }

    views = {
        chart.key: [
            {
                "label": view.label,
                "traces": [packed(trace) for trace in view.traces],
                "xaxis": view.xaxis,
                "yaxis": view.yaxis,
            }
            for view in chart.views
        ]
        for chart in charts
    }
    return {"views": views, "lists": list(places)}


def _facts(manifest: dict[str, Any]) -> Sheet:
    """What the run was made with; paths of its machine are left out, as a page is passed on."""
    parts = ("versions", "plugins", "numerics", "machine")
    rows = [
        (part, name, str(value)) for part in parts for name, value in manifest.get(part, {}).items()
    ]
    return Sheet("", ("", "name", "value"), tuple(rows), ())
