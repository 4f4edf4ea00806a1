"""Searches for one density each are one curve; a study without curves is a table of its variants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_runs import fake_run, row

from lotteryfw.api.labels import component_label
from lotteryfw.report import check_claims, compare, markdown, summary_markdown, write_page
from lotteryfw.report.data.density_sweeps import any_density, without_density
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.html.study_charts import density_charts
from lotteryfw.report.plots.single_level import EXPECTED, WHOLE, density_plot, metric_compared
from lotteryfw.report.tables.best_level import untrained_masks
from lotteryfw.report.tables.single_level import single_level_tables

WORD = st.text("abcdefghij_", min_size=1)
OPTION = st.tuples(
    WORD.filter(lambda name: name not in ("density", "use")),
    st.sampled_from([0.1, [1, 2], {"density": 2}, "f(a=1, density=2)"]),
)


def searches(labels, *, axis="search", cycles=1, seeds=(0, 1), accuracy=0.9, **more):
    """Rows of a search for each density, which passes sparser and sparser levels on its way there."""
    return [
        row(
            {axis: label},
            accuracy - 0.1 * index,
            seed=seed,
            level=level,
            density=density ** (level / cycles),
            **more,
        )
        for index, (label, density) in enumerate(labels.items())
        for seed in seeds
        for level in range(1, cycles + 1)
    ]


@given(WORD, st.lists(OPTION, max_size=3), st.integers(0, 3))
def test_a_density_is_taken_out_of_a_label_and_nothing_else_is(name, options, index):
    entry = {"use": name, **dict(options)}
    expected = component_label(entry)
    items = list(entry.items())
    items.insert(1 + index, ("density", 0.1))
    swept = dict(items)
    assert any_density(component_label(swept), swept) == expected
    assert any_density(expected, entry) == expected
    assert any_density("a(density=1)", "a(density=1)") == "a(density=1)"


def test_a_density_may_be_an_axis_of_its_own():
    axes = {"search": "a", "search.density": "0.1", "data.densities": "1"}
    values = {"search": {"use": "a"}, "search.density": 0.1, "data.densities": 1}
    assert without_density(axes, values) == {"search": "a", "data.densities": "1"}


def test_searches_that_differ_in_their_density_are_one_series():
    rows = searches({"iep(density=0.1)": 0.1, "iep(density=0.02)": 0.02, "iep": 0.5}, cycles=3)
    rows += searches(
        {"iep(density=0.1, pruning=hard)": 0.1, "iep(density=0.02, pruning=hard)": 0.02}, cycles=3
    )
    rows += searches({"imp": 0.3}, cycles=2)
    [study] = group_studies(rows)
    soft, hard, imp = study.series
    assert [series.label for series in study.series] == ["iep", "iep(pruning=hard)", "imp"]
    assert [point.density for point in soft.points] == [0.5, 0.1, 0.02]
    assert [point.level for point in soft.points] == [3, 3, 3]
    assert [point.spread("test_accuracy").mean for point in soft.points] == pytest.approx(
        [0.7, 0.9, 0.8]
    )
    assert len(hard.points) == 2
    assert len(imp.points) == 2
    assert not imp.parts
    assert [level.density for level in study.levels] == pytest.approx(
        [0.3**0.5, 0.5, 0.3, 0.1, 0.02], abs=0.05
    )


def test_a_search_that_is_not_at_its_end_yet_has_no_point_before_it():
    rows = searches({"iep(density=0.1)": 0.1, "iep": 0.5}, cycles=3)
    rows = [
        level_row
        for level_row in rows
        if not (level_row.seed == 1 and level_row.level == 3 and "0.1" in level_row.cell)
    ]
    [series] = group_studies(rows)[0].series
    assert [(point.density, len(point.rows)) for point in series.points] == [(0.5, 2), (0.1, 1)]


def test_options_of_that_name_that_are_no_density_of_the_mask_join_nothing():
    rows = searches({"imp(density=1)": 0.3, "imp(density=2)": 0.3})
    assert [len(series.points) for series in group_studies(rows)[0].series] == [1, 1]
    assert [series.label for series in group_studies(rows)[0].series] == [
        "imp(density=1)",
        "imp(density=2)",
    ]


def test_arms_are_joined_each_by_itself_and_only_controls_are_called_so():
    labels = {"ep(density=0.1)": 0.1, "ep": 0.5}
    rows = [
        level_row
        for variant in ("ticket", "trained", "reinit")
        for level_row in searches(labels, variant=variant)
    ]
    assert [series.label for series in group_studies(rows)[0].series] == [
        "ticket",
        "trained",
        "reinit",
    ]


def test_the_levels_on_the_way_have_a_chart_of_their_own():
    rows = searches({"iep(density=0.1)": 0.1, "iep": 0.5}, cycles=3)
    [study] = group_studies(rows)
    accuracy, apart, _ = density_charts(study)
    assert (accuracy.key, apart.key) == ("criteria/accuracy", "criteria/searches")
    assert [len(trace["x"]) for trace in accuracy.views[0].traces if "name" in trace] == [2]
    assert [len(trace["x"]) for trace in apart.views[0].traces if "name" in trace] == [3, 3]
    assert group_studies(searches({"ep(density=0.1)": 0.1, "ep": 0.5}))[0].by_search is None


@pytest.mark.parametrize(
    ("selector", "density", "mean", "n"),
    [
        (
            {"search": "iep(density=0.1)"},
            [0, 1],
            0.9,
            2,
        ),  # the end of one search, not the way there
        ({"search": "iep(pruning=hard)"}, [0, 1], 0.85, 2),  # a sweep
        ({"search": "iep(pruning=hard)"}, [0, 0.05], 0.8, 2),
        ({"search": "iep"}, [0.4, 0.6], 0.7, 2),  # the search for its default density
    ],
)
def test_claims_select_a_search_or_a_sweep(tmp_path, selector, density, mean, n):
    rows = searches({"iep(density=0.1)": 0.1, "iep(density=0.02)": 0.02, "iep": 0.5}, cycles=3)
    rows += searches(
        {"iep(density=0.1, pruning=hard)": 0.1, "iep(density=0.02, pruning=hard)": 0.02}, cycles=3
    )
    claim = {
        "text": "c",
        "source": "s",
        "study": "criteria",
        "of": selector,
        "at": "last level",
        "density": density,
        "at_least": 0.5,
    }
    [verdict] = check_claims(fake_run(tmp_path / "run", rows, [claim]))
    assert verdict.estimate.spread.mean == pytest.approx(mean)
    assert verdict.seeds == n


def test_a_search_of_a_sweep_that_is_not_finished_keeps_its_seed_out(tmp_path):
    rows = searches({"iep(density=0.1)": 0.1, "iep(density=0.02)": 0.02})
    claim = {
        "text": "c",
        "source": "s",
        "study": "criteria",
        "of": {"search": "iep"},
        "at_least": 0.5,
    }
    unfinished = ["criteria/search=iep(density=0.02)/seed=1"]
    [verdict] = check_claims(fake_run(tmp_path / "run", rows, [claim], unfinished=unfinished))
    assert verdict.seeds == 1


def learned(seeds=(0, 1)):
    """Rows of learned masks: what sampled masks do, the mask itself, and the ticket that it makes."""
    rows = []
    for mask1, density in (("rewind", 0.5), ("constant", 0.3)):
        for seed in seeds:
            for variant, accuracy, steps in (
                ("ticket", 0.95, 600),
                ("thresholded", 0.96, 0),
                ("trained", 0.98, 600),
            ):
                made = row(
                    {"mask1": mask1},
                    accuracy,
                    variant=variant,
                    seed=seed,
                    level=1,
                    density=density,
                    steps=steps,
                    learned=variant == "ticket",
                )
                layers = f"fc1.weight={density - 0.1};fc2.weight={density + 0.1}"
                rows.append(replace(made, requested_density=density + 0.05, layer_densities=layers))
    return rows


def test_learned_masks_are_told_by_arm_with_their_densities():
    [study] = group_studies(learned())
    accuracy, density = single_level_tables(study)
    assert accuracy.head == ("series", "ticket", "thresholded", "trained", "weights remaining, %")
    assert accuracy.rows == (
        ("rewind", "95.00 ± 0.00", "96.00 ± 0.00", "98.00 ± 0.00", "50"),
        ("constant", "95.00 ± 0.00", "96.00 ± 0.00", "98.00 ± 0.00", "30"),
    )
    assert density.head == ("series", EXPECTED, WHOLE, "fc1.weight", "fc2.weight")
    assert density.rows[1] == (
        "constant",
        "35.00 ± 0.00",
        "30.00 ± 0.00",
        "20.00 ± 0.00",
        "40.00 ± 0.00",
    )


def test_a_seed_that_is_missing_is_told():
    rows = learned()
    rows[-1] = replace(rows[-1], status="diverged", test_accuracy=None)
    accuracy, _ = single_level_tables(group_studies(rows)[0])
    assert accuracy.rows[1][3] == "98.00†"
    assert accuracy.notes[0].startswith("† fewer than 2 seeds")


def test_densities_that_are_the_same_everywhere_need_no_table():
    [study] = group_studies([row({"mask1": name}, 0.9, level=1, density=0.5) for name in "ab"])
    assert density_plot(study) is None
    assert len(single_level_tables(study)) == 1


def test_a_flat_study_has_dots_side_by_side(tmp_path):
    [study] = group_studies(learned())
    [chart] = density_charts(study)
    view = chart.views[0]
    assert view.xaxis["ticktext"] == ["ticket", "thresholded", "trained"]
    rewind, constant = view.traces
    assert rewind["name"] == "rewind (n = 2)"
    assert rewind["y"] == [95, 96, 98]
    assert all(
        a < middle < b for a, middle, b in zip(rewind["x"], range(3), constant["x"], strict=True)
    )
    assert chart.views[-1].label == "weights remaining (%)"


def test_a_flat_study_of_one_arm_is_drawn_by_its_longest_axis():
    grid = [
        {"train.lr": lr, "train.batch": batch}
        for batch in ("30", "60")
        for lr in ("0.1", "0.3", "1")
    ]
    [study] = group_studies(row(axes, 0.9, level=1, density=0.5) for axes in grid)
    dots = metric_compared(study, "test_accuracy")
    assert (dots.axis, dots.categories) == ("lr", ("0.1", "0.3", "1"))
    assert [series.label for series in dots.rows] == ["batch=30", "batch=60"]
    assert all(set(dot_row.spreads) == set(dots.categories) for dot_row in dots.rows)
    [single] = group_studies([row({}, 0.9, level=1, density=0.5)])
    assert metric_compared(single, "test_accuracy").categories == ("ticket",)


def test_masks_alone_are_gathered_over_studies(tmp_path):
    untrained = [
        row(
            {"mask1": "rewind"},
            accuracy,
            study="cut",
            seed=seed,
            level=level,
            density=0.5**level,
            steps=steps,
        )
        for seed in (0, 1)
        for level, accuracy, steps in ((0, 0.98, 1000), (1, 0.7, 0), (2, 0.8, 0), (3, 0.2, 0))
    ]
    trained = [row({}, 0.9, study="imp", level=1, density=0.5)]
    rows = [*untrained, *(replace(level_row, study="learn") for level_row in learned()), *trained]
    sheet = untrained_masks(group_studies(rows))
    assert [(name, density, accuracy) for name, density, accuracy, _ in sheet.rows] == [
        ("cut: ticket", "25", "80.00 ± 0.00"),
        ("learn: rewind", "50", "95.00 ± 0.00"),
        ("learn: rewind · thresholded", "50", "96.00 ± 0.00"),
        ("learn: constant", "30", "95.00 ± 0.00"),
        ("learn: constant · thresholded", "30", "96.00 ± 0.00"),
        ("cut: dense network, trained", "100", "98.00 ± 0.00"),
    ]
    assert untrained_masks(group_studies(trained)) is None
    assert "| learn: rewind |" not in summary_markdown(fake_run(tmp_path / "run", rows))


def mask_learned(rows):
    """The rows of searches that learned the mask of each ticket."""
    return [replace(level_row, learned=level_row.variant == "ticket") for level_row in rows]


def test_a_learned_mask_alone_stands_where_its_search_ended():
    rows = mask_learned(
        searches(
            {"iep(density=0.1)": 0.1, "ep(density=0.1)": 0.1, "ep(density=0.02)": 0.02}, cycles=3
        )
    )
    best = [
        replace(level_row, validation_accuracy=0.99, test_accuracy=0.99)
        if level_row.level == 1
        else level_row
        for level_row in rows
    ]
    sheet = untrained_masks(group_studies(best))
    assert [cells[:2] for cells in sheet.rows] == [
        ("criteria: iep(density=0.1)", "10"), ("criteria: ep(density=0.1)", "10"), ("criteria: ep(density=0.02)", "2"),
    ]  # fmt: skip
    lost = [
        replace(level_row, status="diverged")
        if (level_row.level, level_row.seed) == (3, 0)
        else level_row
        for level_row in best
    ]
    assert {cells[3] for cells in untrained_masks(group_studies(lost)).rows} == {"1"}, (
        "no earlier level"
    )


def test_a_mask_that_keeps_every_weight_is_no_trained_dense_network():
    rows = [
        row({}, 0.1, level=1, density=1.0),
        row({}, 0.9, variant="trained", level=1, density=1.0),
    ]
    rows.append(replace(row({}, 0.2, variant="thresholded", level=1, density=1.0), steps=0))
    rows = mask_learned(rows)
    [study] = group_studies(rows)
    assert study.dense is None
    assert [cells[0] for cells in untrained_masks([study]).rows] == [
        "criteria: ticket", "criteria: thresholded",
    ]  # fmt: skip
    at_start = [
        replace(level_row, level=0) for level_row in rows
    ]  # as a search of somebody's may record it
    assert not any("dense" in cells[0] for cells in untrained_masks(group_studies(at_start)).rows)


def test_a_search_of_a_sweep_that_diverged_leaves_the_other_densities_decided(tmp_path):
    labels = {"iep(density=0.5)": 0.5, "iep(density=0.1)": 0.1}
    first = searches(labels, cycles=2, seeds=range(4))
    other = []
    for level_row in first:
        # differences that vary a little, or their spread would be 0
        better = replace(
            level_row, test_accuracy=level_row.test_accuracy + 0.05 + level_row.seed / 1000
        )
        is_lost = level_row.seed == 3 and "0.5" in level_row.cell
        lost = replace(level_row, status="diverged", test_accuracy=None)
        other.append(replace(lost if is_lost else better, key=f"other/{level_row.key}"))
    comparison = compare(
        [fake_run(tmp_path / "a", first).path, fake_run(tmp_path / "b", other).path]
    )
    [series] = comparison.series
    verdicts = {level.density: (level.verdict, level.diverged) for level in series.levels}
    assert verdicts[0.5] == ("undecided", (3,))
    assert verdicts[0.1] == ("higher", ())


def half_finished():
    """Rows of a sweep of three densities, of which the search for 1 % is in cycle 2 of 3."""
    rows = searches(
        {"iep(density=0.5)": 0.5, "iep(density=0.1)": 0.1, "iep(density=0.01)": 0.01}, cycles=3
    )
    return [
        level_row
        for level_row in mask_learned(rows)
        if "0.01" not in level_row.cell or level_row.level < 3
    ]


def cells_of(rows, part):
    return sorted({level_row.cell for level_row in rows if part in level_row.cell})


@pytest.mark.parametrize("status", ["absent", "running", "failed"])
def test_a_search_that_is_under_way_has_no_end(tmp_path, status):
    rows = half_finished()
    folder = fake_run(tmp_path / "run", rows)
    manifest = folder.read_manifest()
    for cell in cells_of(rows, "0.01"):
        # during a run the manifest has only the cells that have ended
        manifest["cells"] |= {cell: status}
        if status == "absent":
            del manifest["cells"][cell]
    folder.write_manifest(manifest)
    data = RunData(folder)
    [study] = data.studies
    [sweep] = study.series
    assert [point.density for point in sweep.points] == [0.5, 0.1]
    # its levels so far are in the chart of each search
    assert len(study.by_search.points) == 8
    masks = untrained_masks(data.shown)
    assert [cells[:2] for cells in masks.rows] == [
        ("criteria: iep(density=0.5)", "50"), ("criteria: iep(density=0.1)", "10"),
    ]  # fmt: skip
    # but for the list of the cells that failed
    tables = [line for line in markdown(folder.path).splitlines() if line.startswith("|")]
    assert tables
    assert "density=0.01" not in "".join(tables)
    write_page(folder)


def test_of_a_search_that_some_seeds_have_ended_these_are_its_end(tmp_path):
    rows = half_finished()
    ended = searches({"iep(density=0.01)": 0.01}, cycles=3, seeds=(2,))
    rows += mask_learned(ended)
    folder = fake_run(tmp_path / "run", rows, unfinished=cells_of(half_finished(), "0.01"))
    data = RunData(folder)
    [sweep] = data.studies[0].series
    assert [(point.density, len(point.rows)) for point in sweep.points] == [
        (0.5, 2), (0.1, 2), (pytest.approx(0.01), 1),
    ]  # fmt: skip
    [row_of_1] = [cells for cells in untrained_masks(data.shown).rows if cells[1] == "1"]
    assert row_of_1[3] == "1"


def test_searches_of_which_none_has_ended_are_shown_one_by_one(tmp_path):
    rows = [level_row for level_row in half_finished() if level_row.level < 3]
    folder = fake_run(tmp_path / "run", rows, unfinished=cells_of(rows, ""))
    data = RunData(folder)
    assert [len(series.points) for series in data.studies[0].series] == [2, 2, 2]
    assert untrained_masks(data.shown) is None
    write_page(folder)


def test_a_search_that_diverged_has_ended(tmp_path):
    rows = searches({"iep(density=0.1)": 0.1, "iep(density=0.02)": 0.02})
    folder = fake_run(tmp_path / "run", rows)
    manifest = folder.read_manifest()
    manifest["cells"] = dict.fromkeys(manifest["cells"], "diverged")
    folder.write_manifest(manifest)
    assert len(RunData(folder).studies[0].points) == 2
