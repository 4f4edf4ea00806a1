"""Figures against ordered axes of the grid, and along positions: on the page and in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.fake_runs import fake_run, finding, row

from lotteryfw.report import report, write_figures
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.html.axis_charts import along_charts, axis_charts
from lotteryfw.report.html.plotly_chart import Chart, View
from lotteryfw.report.html.study_charts import density_charts
from lotteryfw.report.plots.line_plots import ordered_axes, pruned_levels
from lotteryfw.store import LevelRow

STEPS = ("0it", "500it", "100it")


def rewound(
    steps: Sequence[str] = STEPS, densities: Sequence[float] = (1.0, 0.5, 0.25)
) -> list[LevelRow]:
    """Return rows of a grid of rewind steps with a control; accuracy = 0.9 - level / 10 + index / 100."""
    rows = []
    for index, step in enumerate(steps):
        for seed in (0, 1):
            for level, density in enumerate(densities):
                place: dict[str, Any] = {"seed": seed, "level": level, "density": density}
                # all series share the dense network
                accuracy = 0.9 - level / 10 + (index / 100 if level else 0) + seed / 1000
                rows.append(row({"rewind.step": step}, accuracy, **place))
                if level:
                    control = accuracy - 0.2
                    rows.append(row({"rewind.step": step}, control, variant="reinit", **place))
    return rows


def barriers(rows: Sequence[LevelRow]) -> list[dict[str, object]]:
    lines = []
    for level_row in rows:
        accuracy = level_row.test_accuracy or 0.0
        lines += [
            finding(level_row, "line.barrier", 1 - accuracy),
            finding(level_row, "line.t", [0.0, 0.5, 1.0], unit="number", role="along"),
            finding(level_row, "line.error", [0.1, 0.1 + level_row.level / 10, 0.1]),
            # of another length, and of a layer: neither is drawn along the line
            finding(level_row, "line.other", [0.1, 0.2]),
            finding(level_row, "line.of_layer", [0.1, 0.2, 0.3], layer="fc1"),
        ]
    return lines


def study_of(rows: Sequence[LevelRow]) -> StudySeries:
    [study] = group_studies(rows)
    return study


def lines_of(view: View) -> dict[str, list[tuple[float, float]]]:
    """Return the named lines of the first panel of a view."""
    lines = {}
    for trace in view.traces:
        if "name" in trace and trace.get("yaxis") != "y2":
            lines[trace["name"]] = list(zip(trace["x"], trace["y"], strict=True))
    return lines


def chart_of(charts: Sequence[Chart], key: str) -> Chart:
    [chart] = [chart for chart in charts if chart.key == key]
    return chart


def test_axes_of_numbers_and_lengths_are_ordered_and_others_are_not() -> None:
    def axes(name: str, values: Sequence[str]) -> list[tuple[str, ...]]:
        rows = []
        for value in values:
            for level in (0, 1):
                rows.append(row({name: value}, 0.9, level=level, density=0.5**level))
        return [axis.values for axis in ordered_axes(study_of(rows))]

    assert axes("rewind.step", ("500it", "0it", "20it")) == [("0it", "20it", "500it")]
    assert axes("train.optimizer.lr", ("0.1", "1e-3")) == [("1e-3", "0.1")]
    # steps and per cent cannot be compared without the training's length: the recipe's order
    assert axes("rewind.step", ("0it", "2%", "100it")) == [("0it", "2%", "100it")]
    assert axes("criterion", ("movement", "random")) == []
    assert axes("randomness.init", ("0", "1")) == []


def test_an_analysis_stands_against_the_rewind_step_with_the_accuracy_below() -> None:
    rows = rewound()
    study = study_of(rows)
    charts = axis_charts(study, Findings.of(barriers(rows)))
    chart = chart_of(charts, "criteria/analysis/line/rewind.step")
    assert chart.title == "Line against rewind step"
    assert [view.label for view in chart.views] == [
        "50 % of the weights · barrier (%)",
        "25 % of the weights · barrier (%)",
    ]
    view = chart.views[1]
    assert view.xaxis["ticktext"] == ["0it", "100it", "500it"]
    # level 2: accuracy 0.7 + index / 100 in the recipe's order 0, 500, 100, mean over two seeds
    expected = [(0, 29.95), (1, 27.95), (2, 28.95)]
    lines = lines_of(view)
    assert lines["ticket (n = 2)"] == [pytest.approx(pair) for pair in expected]
    assert set(lines) == {"ticket (n = 2)", "reinit (n = 2)"}
    assert (view.yaxis["title"], view.yaxis2) == ("barrier (%)", {"title": "test accuracy (%)"})
    below = [trace for trace in view.traces if trace.get("yaxis") == "y2" and "name" in trace]
    assert below[0]["y"] == pytest.approx([70.05, 72.05, 71.05])
    assert not any(trace["showlegend"] for trace in below)
    accuracy = chart_of(charts, "criteria/rewind.step")
    assert accuracy.title == "Accuracy against rewind step"
    assert lines_of(accuracy.views[0])["ticket (n = 2)"][0] == pytest.approx((0, 80.05))


def test_lists_are_drawn_along_their_positions() -> None:
    rows = rewound()
    study = study_of(rows)
    [chart] = along_charts(study, Findings.of(barriers(rows)))
    assert (chart.key, chart.title) == ("criteria/analysis/line/along", "Line along t")
    labels = [view.label for view in chart.views]
    assert labels[:3] == [
        "50 % of the weights · error (%)",
        "25 % of the weights · error (%)",
        "step=0it · error (%)",
    ]
    line = lines_of(chart.views[1])["step=500it · reinit (n = 2)"]
    assert line == [(0, 10), (0.5, pytest.approx(30)), (1, 10)]
    by_level = lines_of(chart.views[2])
    assert list(by_level) == [
        "100 % of the weights (n = 2)",
        "50 % of the weights (n = 2)",
        "25 % of the weights (n = 2)",
    ]
    assert all("other" not in label and "layer" not in label for label in labels)


def test_levels_that_prune_nothing_are_drawn_against_the_axis_alone() -> None:
    rows = rewound(densities=(1.0, 1.0))
    study = study_of(rows)
    assert [level.label for level in pruned_levels(study)] == ["level 1: 100"]
    assert density_charts(study) == []
    [chart] = axis_charts(study, Findings.of([]))
    assert lines_of(chart.views[0])["ticket (n = 2)"] == [
        pytest.approx(pair) for pair in [(0, 80.05), (1, 82.05), (2, 81.05)]
    ]
    # without an axis to draw against, the chart against density stays
    assert density_charts(study_of(rewound(("0it",), (1.0, 1.0))))


def test_the_figures_are_files_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = rewound()
    folder = fake_run(tmp_path / "run", rows)
    folder.write_findings(barriers(rows))
    names = [path.name for path in write_figures(folder) if path.suffix == ".svg"]
    assert names == [
        "criteria.svg",
        "criteria-rewind_step.svg",
        "criteria-rewind_step-line.svg",
        "criteria-line.svg",
        "criteria-line-along-t.svg",
    ]


@pytest.mark.large
def test_figures_of_the_first_seeds_are_drawn_on_request(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = fake_run(tmp_path / "run", rewound())
    names = [path.name for path in report(folder.path, by_seed=True)]
    assert "criteria-first_1_of_2_seeds.png" in names
    assert "criteria-first_2_of_2_seeds.svg" in names
    assert not [path.name for path in report(folder.path) if "first" in path.name]
    study = study_of(rewound()).of_seeds([1])
    assert study.seeds == [1]
    assert {len(point.rows) for point in study.points} == {1}
    assert study.dense is not None
    assert [each.seed for each in study.dense.rows] == [1]
