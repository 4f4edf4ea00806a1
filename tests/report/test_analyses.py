"""What analyses found, drawn without knowing any of them."""

import re

import pytest
from support.fake_runs import curves, fake_run, finding, measured, row

from lotteryfw.report import check_claims, write_figures, write_page
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.units import ACCURACY, unit_of
from lotteryfw.report.figures.figure_files import study_figures
from lotteryfw.report.figures.matplotlib_panels import draw_scatter
from lotteryfw.report.html.analysis_charts import analysis_charts
from lotteryfw.report.html.plotly_chart import Chart, View
from lotteryfw.report.html.rendering import packed
from lotteryfw.report.plots.analysis_views import (
    DENSITY,
    Scatter,
    ScatterPoint,
    network_metrics,
    pair_matrices,
    scatters,
    weight_samples,
)

A, B = {"criterion": "a"}, {"criterion": "b"}


def strange(rows):
    """An analysis that nobody knows: a share, a distance and a figure of layers."""
    lines = []
    for level_row in rows:
        lines += [finding(level_row, "strange.share", 1 - level_row.density)]
        lines += [finding(level_row, "strange.distance", 0.75, unit="number")]
        lines += [
            finding(level_row, "strange.norm", 0.5 * level_row.density, layer=layer)
            for layer in ("fc1", "fc2")
        ]
    return lines


def study_of(rows):
    [study] = group_studies(rows)
    return study


def test_any_analysis_is_drawn_against_density_whole_and_by_leaf():
    rows = curves("criteria", [A, B], levels=3)
    charts = {
        chart.key: chart for chart in analysis_charts(study_of(rows), Findings.of(strange(rows)))
    }
    assert list(charts) == ["criteria/analysis/strange", "criteria/analysis/strange/accuracy"]
    views = charts["criteria/analysis/strange"].views
    assert [view.label for view in views] == [
        "share (%)",
        "distance",
        "norm (%) · fc1",
        "norm (%) · fc2",
    ]
    curve = next(trace for trace in views[0].traces if trace.get("name") == "a (n = 3)")
    assert curve["x"] == pytest.approx([100, 80, 64, 51.2])
    assert curve["y"] == pytest.approx([0, 20, 36, 48.8])
    assert not any("dense" in trace.get("name", "") for trace in views[0].traces)


def test_a_figure_is_shown_in_the_unit_that_it_says_whatever_its_values():
    findings = Findings.of(strange(curves("criteria", [A], levels=1)))
    assert findings.unit("strange.distance").axis == "distance"
    assert findings.unit("strange.distance").number(0.75) == "0.7500"
    assert findings.unit("strange.share").number(0.25) == "25.00"
    assert findings.unit("test_accuracy").title == "test accuracy, %"


def test_findings_of_other_studies_stay_out():
    rows = [
        row({}, 0.9, study=name, level=level, density=0.5**level)
        for name in "xy"
        for level in (0, 1)
    ]
    [first, _] = group_studies(rows)
    findings = Findings.of(strange(rows[2:]))
    assert analysis_charts(first, findings.of_study("x")) == []


def test_accuracy_stands_against_a_figure_by_each_axis_that_varies():
    grid = [
        {"train.lr": lr, "train.batch": batch, "data": "d"}
        for lr in ("0.1", "1")
        for batch in ("30", "60")
    ]
    rows = [
        row(axes, 0.5 + 0.1 * seed, seed=seed, level=1, density=0.5)
        for axes in grid
        for seed in (0, 1)
    ]
    findings = Findings.of(
        finding(level_row, "edges.dying", 0.1 * index) for index, level_row in enumerate(rows)
    )
    by_lr, by_batch = scatters(study_of(rows), findings, "edges.dying")
    assert (by_lr.axis, list(by_lr.groups), by_batch.axis) == (
        "train.lr",
        ["0.1", "1"],
        "train.batch",
    )
    assert [mark.x for mark in by_lr.groups["0.1"]] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [mark.y for mark in by_lr.groups["0.1"]] == pytest.approx([0.5, 0.6, 0.5, 0.6])
    assert by_lr.groups["0.1"][1].name == "lr=0.1 · batch=30, seed 1, 50 % of the weights"


def test_marks_without_an_axis_are_called_by_their_variant():
    rows = [row({}, 0.9, variant="trained", seed=seed) for seed in (0, 1)]
    findings = Findings.of(finding(level_row, "edges.dying", 0.5) for level_row in rows)
    [scatter] = scatters(study_of(rows), findings, "edges.dying")
    assert list(scatter.groups) == ["trained"]


def test_a_hundred_groups_of_marks_are_drawn():
    groups = {f"g{index}": [ScatterPoint(0.1, 0.9, "one")] for index in range(100)}
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    draw_scatter(axes, Scatter("edges.dying", unit_of(ACCURACY), "g", groups), unit_of(ACCURACY))
    assert len(axes.lines) == 100


def test_of_a_sweep_over_densities_each_search_has_the_mark_of_its_end():
    rows = [
        row({"search": f"iep(density={density})"}, 0.9, level=level, density=density ** (level / 2))
        for density in (0.25, 0.04)
        for level in (1, 2)
    ]
    findings = Findings.of(
        finding(level_row, "edges.dying", level_row.density) for level_row in rows
    )
    [scatter] = scatters(study_of(rows), findings, "edges.dying")
    assert scatter.axis == DENSITY
    assert {value: [mark.x for mark in marks] for value, marks in scatter.groups.items()} == {
        "25 %": [0.25],
        "4 %": [0.04],
    }
    labels = [view.label for view in analysis_charts(study_of(rows), findings)[0].views]
    assert labels == ["dying (%)", "dying (%) · each search, level by level"]


def test_a_study_without_curves_shows_figures_by_axis_and_by_layer():
    rows = [row({"train.lr": lr}, 0.9, level=1, density=0.5) for lr in ("0.1", "1")]
    lines = [
        finding(level_row, "edges.dying", 0.3, layer=layer)
        for level_row in rows
        for layer in ("fc1", "")
    ]
    chart = analysis_charts(study_of(rows), Findings.of(lines))[0]
    by_axis, by_layer = chart.views
    assert (by_axis.xaxis["title"], by_axis.xaxis["ticktext"]) == ("lr", ["0.1", "1"])
    assert (by_layer.label, by_layer.xaxis["ticktext"]) == (
        "dying (%), by layer",
        ["fc1", "whole network"],
    )


def test_figures_that_say_the_same_are_drawn_once_in_static_figures():
    rows = curves("criteria", [A], levels=2)
    lines = [
        finding(level_row, f"edges.{name}", level_row.density)
        for name in ("first", "again")
        for level_row in rows
    ]
    lines += [finding(level_row, "edges.other", 0.1) for level_row in rows]
    assert network_metrics(Findings.of(lines), "edges") == [
        "edges.first",
        "edges.again",
        "edges.other",
    ]
    assert network_metrics(Findings.of(lines), "edges", distinct=True) == [
        "edges.first",
        "edges.other",
    ]


def overlaps(rows):
    """Of rows at one level: overlap of each pair that differs in its criterion or in its seed."""
    lines = []
    for index, first in enumerate(rows):
        for other in rows[index + 1 :]:
            if (first.axes == other.axes) != (first.seed == other.seed):
                value = 0.4 + 0.1 * first.seed if first.axes != other.axes else 0.8
                lines.append(finding(first, "mask_overlap.overlap", value, against=other.cell))
                lines.append(
                    finding(first, "mask_overlap.chance", first.density, against=other.cell)
                )
    return lines


def test_pairs_are_a_square_of_means_for_each_level():
    rows = [row(axes, 0.9, seed=seed, level=1, density=0.5) for axes in (A, B) for seed in (0, 1)]
    [matrix] = pair_matrices(study_of(rows), Findings.of(overlaps(rows)), "mask_overlap")
    assert matrix.labels == ("a", "b")
    assert matrix.values["a", "b"] == {"overlap": [0.4, 0.5], "chance": [0.5, 0.5]}
    assert matrix.values["a", "a"] == {"overlap": [0.8], "chance": [0.5]}
    [chart] = analysis_charts(study_of(rows), Findings.of(overlaps(rows)))
    [trace] = chart.views[0].traces
    assert trace["z"] == ((80, 45), (None, 80))
    assert trace["text"][0][1] == "45<br>50"
    assert trace["hovertext"][0][1] == (
        "<b>a</b> and <b>b</b><br>overlap 45.00 %, n = 2<br>chance 50.00 %, n = 2"
    )
    assert "In each box: overlap, chance" in chart.caption


def scattered(level_row, layer="fc1"):
    return [
        finding(level_row, f"mine.{role} weights", values, layer=layer, role=role)
        for role, values in (
            ("before", [0.1, -0.2, 0.3]),
            ("after", [0.2, -0.1, 0.0]),
            ("kept", [1.0, 1.0, 0.0]),
        )
    ]


def test_weights_are_scattered_with_what_the_mask_keeps():
    rows = [row(axes, 0.9, seed=seed, level=1, density=0.5) for axes in (A, B) for seed in (1, 0)]
    findings = Findings.of(
        line
        for level_row in rows
        for layer in ("fc1", "fc2")
        for line in scattered(level_row, layer)
    )
    shown = weight_samples(study_of(rows), findings)
    assert [(sample.label, sample.layer, sample.seed) for sample in shown] == [
        ("a", "fc1", 0), ("a", "fc2", 0), ("b", "fc1", 0), ("b", "fc2", 0),
    ]  # fmt: skip
    [chart] = analysis_charts(study_of(rows), findings)
    assert chart.views[2].label == "b · fc1 · 50 % of the weights"
    unchanged, masked, kept = chart.views[0].traces
    assert unchanged["x"] == unchanged["y"] == [-0.2, 0.3]
    assert (masked["x"], masked["y"]) == ([0.3], [0.0])
    assert (kept["x"], kept["y"]) == ([0.1, -0.2], [0.2, -0.1])


def test_an_analysis_with_the_name_of_another_chart_has_a_chart_of_its_own(tmp_path):
    rows = curves("criteria", [A, B], levels=2, seeds=(0, 1))
    names = ("steps", "learning", "metrics", "layers", "searches", "weights", "accuracy")
    lines = [finding(level_row, f"{name}.x", 0.5) for name in names for level_row in rows]
    lines += [line for level_row in rows if level_row.level == 1 for line in scattered(level_row)]
    folder = fake_run(tmp_path / "run", rows)
    folder.write_curves(measured(rows))
    folder.write_findings(lines)
    keys = re.findall(r'data-chart="([^"]*)"', write_page(folder).read_text("utf-8"))
    assert len(keys) == len(set(keys))
    assert {f"criteria/analysis/{name}" for name in names} < set(keys)
    assert {"criteria/steps", "criteria/learning", "criteria/weights"} < set(keys)


def test_two_charts_of_one_key_are_refused():
    chart = Chart("key", "title", "", (View("x", (), {}, {}),))
    with pytest.raises(ValueError, match="two charts have the key 'key'"):
        packed([chart, chart])


@pytest.mark.parametrize(
    ("densities", "text"),
    [
        ((0.5, 0.5), "50 % of the weights"),
        ((0.5, 0.49), "50–49 % of the weights"),
        ((0.5, 0.02), "level 1: 50–2 % of the weights"),
    ],
)
def test_pairs_stand_at_the_densities_of_both_networks(densities, text):
    first, other = (
        row(axes, 0.9, level=1, density=density)
        for axes, density in zip((A, B), densities, strict=True)
    )
    lines = [finding(first, "mask_overlap.overlap", 0.5, against=other.cell)]
    [matrix] = pair_matrices(study_of([first, other]), Findings.of(lines), "mask_overlap")
    assert matrix.text == text


@pytest.mark.parametrize(
    ("seeds", "densities", "note", "titles"),
    [
        (
            (0, 0),
            (0.5, 0.5),
            "A sample of each layer in seed 0, at 50 % of the weights.",
            ["a · fc1", "b · fc1"],
        ),
        (
            (0, 0),
            (0.8, 0.2),
            "A sample of each layer in seed 0.",
            ["a · fc1\n80 % of the weights", "b · fc1\n20 % of the weights"],
        ),
        (
            (0, 1),
            (0.8, 0.2),
            "A sample of each layer.",
            ["a · fc1\n80 % of the weights, seed 0", "b · fc1\n20 % of the weights, seed 1"],
        ),
    ],
)
def test_samples_of_weights_say_where_they_are_of(tmp_path, seeds, densities, note, titles):
    figure = pytest.importorskip("matplotlib.figure")
    rows = [
        row(axes, 0.9, seed=seed, level=1, density=density)
        for axes, seed, density in zip((A, B), seeds, densities, strict=True)
    ]
    folder = fake_run(tmp_path / "run", rows)
    folder.write_findings([line for level_row in rows for line in scattered(level_row)])
    data = RunData(folder)
    [spec] = [spec for spec in study_figures(data) if spec.name.endswith("-weights")]
    assert spec.note == note
    shown = []
    for draw_panel in spec.panels:
        axes = figure.Figure().subplots()
        draw_panel(axes)
        shown.append(axes.get_title())
    assert shown == titles
    [*_, chart] = analysis_charts(data.studies[0], data.findings)
    assert ("in seed 0:" in chart.caption) == (seeds == (0, 0))
    assert ("seed 1" in chart.views[1].label) == (seeds == (0, 1))


def test_a_claim_about_a_distance_is_told_as_one(tmp_path):
    rows = [
        row(axes, 0.9, seed=seed, level=1, density=0.5) for axes in (A, B) for seed in (0, 1, 2)
    ]
    claim = {
        "text": "c",
        "source": "s",
        "study": "criteria",
        "metric": "strange.distance",
        "higher": A,
        "lower": B,
    }
    folder = fake_run(tmp_path / "run", rows, [claim])
    distances = {"a": 0.7, "b": 0.25}
    folder.write_findings(
        [
            finding(
                level_row, "strange.distance", distances[level_row.axes["criterion"]], unit="number"
            )
            for level_row in rows
        ]
    )
    [verdict] = check_claims(folder)
    assert verdict.numbers.startswith("0.7000 against 0.2500: +0.4500")
    assert (
        verdict.tested
        == "strange.distance: criterion=a above criterion=b · study criteria · all levels"
    )


def test_figures_that_would_have_one_name_are_numbered(tmp_path):
    rows = curves("many", [A], levels=2)
    others = curves("many-weights", [A], levels=2)
    folder = fake_run(tmp_path / "run", [*rows, *others])
    folder.write_findings([line for each in rows if each.level == 1 for line in scattered(each)])
    names = [spec.name for spec in study_figures(RunData(folder))]
    assert names == ["many", "many-weights", "many-weights-2"]


def test_static_figures_of_analyses_the_same_bytes_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    rows = curves("many", [A, B], levels=3, seeds=(0, 1))
    flat = [row({"train.lr": lr}, 0.9, study="flat", level=1, density=0.5) for lr in ("0.1", "1")]
    lines = strange([*rows, *flat]) + [
        line for level_row in rows if level_row.level == 1 for line in scattered(level_row)
    ]
    folders = [fake_run(tmp_path / name, [*rows, *flat]) for name in ("first", "second")]
    made = []
    for folder in folders:
        folder.write_findings(lines)
        made.append(write_figures(folder))
        write_page(folder)
    assert [path.name for path in made[0] if path.suffix == ".png"] == [
        "many.png", "many-strange.png", "many-weights.png", "flat.png", "flat-strange-accuracy.png",
    ]  # fmt: skip
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]
