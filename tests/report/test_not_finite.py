"""Figures that are NaN or infinite: they are left out, and the page stays one that a browser reads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from support.fake_runs import A, B, curves, fake_run, finding, measured, row

from lotteryfw.report import markdown, report, write_page
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.html.analysis_charts import analysis_charts
from lotteryfw.report.html.plotly_chart import Chart, View
from lotteryfw.report.html.rendering import render
from lotteryfw.report.plots.analysis_views import pair_matrices, scatters
from lotteryfw.store import LevelRow


def strict_charts(path: Path) -> dict[str, Any]:
    """Return the charts of a page as a browser's strict JSON reads them."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = path.read_text("utf-8")
    packed = re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.S)
    assert packed is not None
    charts: dict[str, Any] = json.loads(packed[1], parse_constant=refuse)
    return charts


def with_nan(rows: Sequence[LevelRow], **values: Any) -> list[LevelRow]:
    """Return the rows with these values in seed 0 of level 1."""
    changed = []
    for one in rows:
        is_meant = (one.seed, one.level) == (0, 1)
        changed.append(replace(one, **values) if is_meant else one)
    return changed


@pytest.mark.parametrize(
    "values",
    [
        {"test_accuracy": nan, "early_test_accuracy": inf},
        {"validation_accuracy": nan},
        {"validation_loss": inf, "metrics": {"ece": nan}},
    ],
)
def test_a_row_with_a_figure_that_is_not_finite_has_a_page(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    rows = [replace(one, metrics={"ece": 0.5}) for one in curves("criteria", [A, B], levels=3)]
    folder = fake_run(tmp_path / "run", with_nan(rows, **values))
    folder.write_curves(measured(rows))
    assert strict_charts(write_page(folder))["views"]["criteria/accuracy"]
    assert "nan" not in markdown(folder.path)


def test_a_point_is_the_mean_of_the_finite_figures() -> None:
    rows = [row({}, accuracy, seed=seed) for seed, accuracy in enumerate((0.8, 0.9, nan, inf))]
    [study] = group_studies(rows)
    spread = study.points[0].spread("test_accuracy")
    assert spread is not None
    assert (spread.mean, spread.n) == (pytest.approx(0.85), 2)
    [all_nan] = group_studies([row({}, nan)])
    assert all_nan.points[0].spread("test_accuracy") is None


def test_findings_that_are_not_finite_are_left_out_of_page_and_figures(tmp_path: Path) -> None:
    rows = curves("criteria", [A, B], levels=2, seeds=(0, 1))
    flat = [
        row({"search": name}, 0.9, study="flat", seed=seed, level=1, density=0.5)
        for name in "ab"
        for seed in (0, 1)
    ]
    lines = []
    for index, one in enumerate([*rows, *flat]):
        value = nan if index % 2 else 0.5
        lines += [
            finding(one, "line.barrier", value),
            finding(one, "line.t", [0.0, 0.5, 1.0], role="along"),
            finding(one, "line.error", [0.1, value, inf]),
            finding(one, "line.norm", value, layer="fc1"),
            finding(one, "scatter.before", [0.1, nan, 0.2], layer="fc1", role="before"),
            finding(one, "scatter.after", [0.2, 0.1, value], layer="fc1", role="after"),
            finding(one, "scatter.kept", [1.0, 1.0, 0.0], layer="fc1", role="kept"),
            finding(one, "overlap.overlap", value, against=rows[0].cell),
        ]
    folder = fake_run(tmp_path / "run", [*rows, *flat])
    folder.write_findings(lines)
    page, *_ = report(folder.path)
    assert strict_charts(page)["views"]


def test_means_over_findings_are_those_of_the_finite_ones() -> None:
    rows = [row(axes, 0.9, seed=seed, level=1, density=0.5) for axes in (A, B) for seed in (0, 1)]
    [study] = group_studies(rows)
    lines = []
    for one in rows:
        lines.append(finding(one, "x.y", nan if one.seed else 0.4))
        lines.append(finding(one, "pairs.overlap", nan if one.seed else 0.4, against=rows[2].cell))
    findings = Findings.of(lines)
    spread = findings.spread(study.points[0], "x.y")
    assert spread is not None
    assert (spread.mean, spread.n) == (0.4, 1)
    [scatter] = scatters(study, findings, "x.y")
    assert [len(points) for points in scatter.groups.values()] == [1, 1]
    [matrix] = pair_matrices(study, findings, "pairs")
    assert matrix.values["a", "b"] == {"overlap": [0.4]}
    assert analysis_charts(study, findings)


def test_a_page_with_a_number_that_is_not_finite_is_refused() -> None:
    view = View("x", ({"y": [nan]},), {"title": "x"}, {"title": "y"})
    with pytest.raises(ValueError, match="JSON"):
        render("comparison.html", [Chart("key", "title", "", (view,))])
