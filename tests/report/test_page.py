"""report.html as data and text: what stands on the page, and what must never get onto it.

tests/report/test_browser.py opens it.
"""

import json
import re
from dataclasses import replace
from typing import get_args

import pytest
from support.fake_runs import CLAIM, EVIL, A, B, curves, fake_run, measured, row
from support.paths import ROOT

from lotteryfw.api.errors import StoreError
from lotteryfw.report import write_page
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.learning_curves import LearningCurves
from lotteryfw.report.data.units import percent
from lotteryfw.report.html.plotly_chart import density_axis
from lotteryfw.report.html.study_charts import density_charts, learning_chart
from lotteryfw.report.tables.best_level import best_levels
from lotteryfw.report.tables.provenance import without_folders
from lotteryfw.report.verdicts.claims import ClaimOutcome
from lotteryfw.report.verdicts.winning_tickets import TicketOutcome


def page(tmp_path, rows, claims=(), **manifest):
    folder = fake_run(tmp_path / "run", rows, claims)
    folder.write_manifest(folder.read_manifest() | manifest)
    folder.write_curves(measured(rows))
    return write_page(folder).read_text("utf-8")


def without_plotly(text):
    """The page but for the library's own code."""
    return re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.S)


def charts_of(text):
    packed = json.loads(
        re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.S)[1]
    )
    lists = packed["lists"]
    return {
        key: [
            view | {"traces": [
                {name: lists[value["list"]] if isinstance(value, dict) and "list" in value else value
                 for name, value in trace.items()}
                for trace in view["traces"]
            ]}
            for view in views
        ]
        for key, views in packed["views"].items()
    }  # fmt: skip


def named(view, name):
    [trace] = [
        trace for trace in view["traces"] if trace["legendgroup"] == name and "name" in trace
    ]
    return trace


def test_the_page_tells_claims_verdicts_tables_recipe_and_versions(tmp_path):
    text = without_plotly(
        page(tmp_path, curves("criteria", [A, B]), [CLAIM], versions={"torch": "9.9.9"})
    )
    assert '<span class="badge supported">supported</span>' in text
    assert "a beats b" in text
    assert "3 seeds, 95 % interval" in text
    assert "test accuracy: criterion=a above criterion=b · study criteria · all levels" in text
    assert '<span class="badge undecided">undecided</span>' in text
    assert "Winning tickets at " in text
    assert "1 supported, 0 contradicted, 0 undecided, 0 not tested" in text
    assert "criteria: test accuracy, % (mean ± sd over 3 seeds)" in text
    assert "criteria: the best level, chosen by validation accuracy" in text
    assert "[[claim]]" in text
    assert "<td>9.9.9</td>" in text
    assert "6 cells done" in text


def test_every_verdict_has_a_colour():
    css = (ROOT / "lotteryfw/report/html/templates/page.css").read_text("utf-8")
    for outcome in (*get_args(ClaimOutcome), *get_args(TicketOutcome)):
        name = outcome.replace(",", "").replace(" ", "-")
        assert re.search(rf"\.{name}[,\s]", css), name


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    text = without_plotly(page(tmp_path, curves("criteria", [A, B]), [CLAIM]))
    assert not re.search(r'(?:src|href)="(?!#)', text)
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_the_same_run_gives_the_same_bytes(tmp_path):
    rows = curves("criteria", [A, B], levels=3)
    assert page(tmp_path, rows, [CLAIM]) == page(tmp_path, rows, [CLAIM])


def test_markup_in_a_recipe_is_text(tmp_path):
    rows = curves(EVIL, [{"criterion": EVIL}, B], levels=2)
    claim = {**CLAIM, "text": EVIL, "source": EVIL, "study": EVIL, "higher": {"criterion": EVIL}}
    text = without_plotly(
        page(tmp_path, rows, [claim], title=EVIL, profile=EVIL, versions={EVIL: EVIL})
    )
    assert EVIL not in text
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in text
    [view, *_] = charts_of(text)[f"{EVIL}/accuracy"]
    assert "<script" not in "".join(trace.get("name", "") for trace in view["traces"])


@pytest.mark.parametrize("rows", [[], [row({}, None)]])
def test_a_run_without_figures_has_a_page_all_the_same(tmp_path, rows):
    text = without_plotly(page(tmp_path, rows))
    assert "<h2>Recipe</h2>" in text
    assert charts_of(text) == {}


def test_damaged_curves_are_named(tmp_path):
    folder = fake_run(tmp_path / "run", curves("criteria", [A]))
    (folder.path / "curves.jsonl").write_text("{no", "utf-8")
    with pytest.raises(StoreError, match=r"curves\.jsonl"):
        write_page(folder)


def test_plotly_knows_every_property_that_charts_set(tmp_path):
    objects = pytest.importorskip("plotly.graph_objects")
    text = page(tmp_path, curves("criteria", [A, B], variants=("ticket", "reinit"), levels=4))
    charts = charts_of(text)
    assert sorted(charts) == ["criteria/accuracy", "criteria/learning", "criteria/steps"]
    for view in (view for views in charts.values() for view in views):
        axes = {
            name: view[name] | {"title": {"text": view[name]["title"]}}
            for name in ("xaxis", "yaxis")
        }
        objects.Figure(data=view["traces"], layout=axes)  # raises at what it does not know


def test_points_are_means_with_bands_and_their_figures_on_hover():
    rows = [row({}, 0.97 + 0.01 * seed, seed=seed, level=1, density=0.211) for seed in (0, 1)]
    rows += [row({}, 0.9, seed=seed) for seed in (0, 1)]
    [study] = group_studies(rows)
    accuracy, steps = density_charts(study)
    view = {"traces": accuracy.views[0].traces}
    curve = named(view, "ticket")
    assert (curve["x"], curve["y"], curve["name"]) == ([100, 21.1], [90, 97.5], "ticket (n = 2)")
    assert curve["text"][1] == (
        "<b>ticket</b><br>21.1 % of the weights, level 1<br>97.50 ± 0.71 % (mean ± sd, n = 2)<br>"
        "95 % interval 91.15 to 103.85"
    )
    [band] = [
        trace for trace in view["traces"] if trace.get("fill") and trace["legendgroup"] == "ticket"
    ]
    assert band["x"] == [100, 21.1, 21.1, 100]
    assert band["y"] == pytest.approx([90, 98.2071, 96.7929, 90], abs=1e-4)
    assert band["showlegend"] is False
    assert steps.views[0].yaxis["title"] == "early-stopping step (updates)"


def test_a_wide_range_of_accuracies_is_spaced_by_the_error():
    rows = [
        row({}, accuracy, level=level, density=0.5**level)
        for level, accuracy in enumerate([0.99, 1.0, 0.2])
    ]
    [study] = group_studies(rows)
    log, plain, *_ = density_charts(study)[0].views
    assert (log.yaxis["type"], log.yaxis["autorange"]) == ("log", "reversed")
    assert named({"traces": log.traces}, "ticket")["y"] == [
        1,
        0.5,
        80,
    ]  # an error of 0 is drawn at half the smallest
    assert log.yaxis["ticktext"][log.yaxis["tickvals"].index(5)] == "95"
    assert named({"traces": plain.traces}, "ticket")["y"] == [99, 100, 20]


def test_a_network_of_which_nothing_is_left_has_no_place_on_a_log_axis():
    [study] = group_studies(
        [row({}, 0.5, density=0.3, level=1), row({}, 0.1, density=0.0, level=2)]
    )
    assert named({"traces": density_charts(study)[0].views[0].traces}, "ticket")["x"] == [30]
    [study] = group_studies([row({}, 0.1, density=0.0, level=2)])
    assert density_charts(study) == []


def test_learning_curves_are_means_over_seeds_with_the_dense_network_beside_them():
    rows = curves("a", [A, B], seeds=(0, 1), levels=2)
    [study] = group_studies(rows)
    chart = learning_chart(study, LearningCurves.of(measured(rows)))
    assert [view.label for view in chart.views[:4]] == [
        "80 % of the weights · validation accuracy", "64 % of the weights · validation accuracy",
        "a · validation accuracy", "b · validation accuracy",
    ]  # fmt: skip
    curve = named({"traces": chart.views[0].traces}, "a")
    last = [
        level_row.validation_accuracy
        for level_row in rows
        if level_row.level == 1 and level_row.axes == A
    ]
    assert curve["x"] == [0, 100, 200]
    assert curve["y"][-1] == pytest.approx(100 * sum(last) / 2, abs=1e-3)
    assert curve["text"][-1].endswith(" %, n = 2")
    assert named({"traces": chart.views[0].traces}, "dense network")["y"][-1] > 97


def test_long_curves_are_thinned_and_values_that_are_no_figures_left_out():
    rows = [row({}, 0.9, level=1, density=0.5)]
    [study] = group_studies(rows)
    lines = measured(rows, steps=range(0, 50_001, 100))
    lines[0]["validation_loss"][3] = float("nan")
    curve = named(
        {"traces": learning_chart(study, LearningCurves.of(lines)).views[0].traces}, "ticket"
    )
    assert len(curve["x"]) == 60
    assert (curve["x"][0], curve["x"][-1]) == (0, 50_000)
    point = study.series[0].points[0]
    assert 300 not in [
        step for step, _ in LearningCurves.of(measured(rows)).mean(point, "validation_loss")
    ]
    lines = measured(rows, steps=(0, 300, 600))
    lines[0]["validation_loss"][1] = float("nan")
    assert [step for step, _ in LearningCurves.of(lines).mean(point, "validation_loss")] == [0, 600]
    assert learning_chart(study, LearningCurves.of([])) is None


def test_the_best_level_is_chosen_on_the_validation_set():
    figures = {
        0: {0.8: 0.99, 0.95: 0.86, 0.7: 0.5},
        1: {0.9: 0.88, 0.8: 0.99, 0.7: 0.5},
    }  # validation: test accuracy
    rows = [row({}, 0.99, seed=seed) for seed in figures]  # the dense network is no mask
    for seed, levels in figures.items():
        for level, (validation, test) in enumerate(levels.items(), 1):
            made = row({}, validation, seed=seed, level=level, density=0.5**level)
            rows.append(replace(made, test_accuracy=test))
    [study] = group_studies(rows)
    assert best_levels(study).rows == (
        ("ticket", "25", "92.50 ± 9.19", "2"),  # one level for both seeds
        ("dense network", "100", "99.00 ± 0.00", "2"),
    )
    [study] = group_studies([row({}, 0.9)])
    assert best_levels(study) is None


def test_of_levels_that_are_equally_good_the_sparsest_is_best():
    accuracies = [(0.9, 0.5), (0.9, 0.25), (0.8, 0.1)]
    [study] = group_studies(
        [
            row({}, accuracy, level=level, density=density)
            for level, (accuracy, density) in enumerate(accuracies, 1)
        ]
    )
    assert best_levels(study).rows == (("ticket", "25", "90.00", "1"),)


def test_provenance_is_shown_without_folders_and_old_runs_have_none(tmp_path):
    invocation = {
        "date": "2026-01-02T03:04:05+00:00",
        "seconds": 125.0,
        "computed": 12,
        "command": "lotteryfw recipe /home/somebody/study.toml --store /scratch/store",
        "overrides": [],
        "git": {"commit": "0123456789abcdef", "clean": False},
    }
    rows = curves("criteria", [A], levels=1)
    text = without_plotly(page(tmp_path, rows, invocations=[invocation, "no invocation", {}]))
    for cell in (
        "2026-01-02 03:04:05 UTC",
        "2 min",
        "0123456789ab, with changes",
        "lotteryfw recipe study.toml --store store",
    ):
        assert cell in text
    assert "somebody" not in text
    assert "Provenance" not in without_plotly(page(tmp_path, rows))


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--set data.path=/home/me/secret/d", "--set data.path=d"),
        ("--set=data.path=/home/me/secret/d", "--set=data.path=d"),
        ("--set 'data.path=\"/home/me/secret/d\"'", "--set 'data.path=\"d\"'"),
        ("--out /x/y/", "--out y"),
        ("--out=C:\\\\x\\\\y\\\\", "--out=y"),
        ("--set lr=1/2 a/b /", "--set lr=1/2 a/b /"),
    ],
)
def test_paths_of_options_and_folders_are_cut(word, shown):
    assert without_folders(f"lotteryfw recipe {word}") == f"lotteryfw recipe {shown}"


NINE = [{"criterion": f"criterion_{number}"} for number in range(9)]


def with_layers(rows):
    return [
        replace(
            level_row,
            layer_densities=f"fc1={level_row.density:.6g};fc2={level_row.density**0.5:.6g}",
        )
        for level_row in rows
    ]


def test_the_page_of_nine_series_and_25_levels_is_below_two_megabytes(tmp_path):
    rows = with_layers(curves("criteria", NINE, levels=25))
    text = page(tmp_path, rows)
    assert len(text.encode()) < 2_000_000
    # a row of a turned table for each level, in the accuracies and in the steps
    for density in {level_row.density for level_row in rows}:
        assert text.count(f'<tr><th scope="row">{percent(density)}</th>') >= 2


def test_layers_have_a_chart_by_default(tmp_path):
    rows = with_layers(curves("criteria", [A, B], variants=("ticket", "reinit"), levels=4))
    views = charts_of(page(tmp_path, rows))["criteria/layers"]
    assert [view["label"] for view in views] == ["a", "b"]
    curve = named(views[0], "fc2")
    assert curve["y"] == pytest.approx([100 * 0.8 ** (level / 2) for level in range(5)], rel=1e-4)
    # networks of one layer have none
    assert "criteria/layers" not in charts_of(page(tmp_path, curves("criteria", [A], levels=4)))


def test_every_view_names_the_ends_of_its_densities(tmp_path):
    for levels in (8, 12, 25):
        charts = charts_of(page(tmp_path, curves("criteria", NINE, levels=levels)))
        ticks = charts["criteria/accuracy"][0]["xaxis"]["ticktext"]
        assert (ticks[0], ticks[-1]) == ("100", percent(0.8**levels))


def test_levels_that_are_a_little_uneven_are_named_alike():
    """The densities of the quickstart: 12.0 and 5.17 % were left out between their neighbours."""
    densities = [0.0348, 0.0517, 0.0789, 0.12, 0.183, 0.279, 0.427, 0.653, 1.0]
    assert len(density_axis(densities)["ticktext"]) == len(densities)
