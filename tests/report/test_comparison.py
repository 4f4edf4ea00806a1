"""Runs compared: pairs of seeds, matched series and levels, verdicts, tables and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from support.fake_runs import EVIL, A, B, curves, fake_run, row
from typer.testing import CliRunner

from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.cli.app import app
from lotteryfw.report import (
    compare,
    comparison_markdown,
    comparison_tables,
    summarise,
    write_comparison_page,
)
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.html.comparison_page import comparison_chart
from lotteryfw.store import LevelRow, RunFolder

Accuracies = Mapping[int, Sequence[float]]
"""By seed, the test accuracy of each level."""


def rows_of(accuracies: Accuracies, axes: Mapping[str, str] = A) -> list[LevelRow]:
    rows = []
    for seed, by_level in accuracies.items():
        for level, accuracy in enumerate(by_level):
            rows.append(row(axes, accuracy, seed=seed, level=level, density=0.5**level))
    return rows


def folder(path: Path, accuracies: Accuracies) -> Path:
    return made(path, rows_of(accuracies))


def made(path: Path, rows: Sequence[LevelRow]) -> Path:
    """Make a run whose pruned levels are trainings of its own; the dense ones are shared."""
    own = []
    for level_row in rows:
        key = f"{path.name}/{level_row.key}" if level_row.level else level_row.key
        own.append(replace(level_row, key=key))
    return fake_run(path, own).path


FIRST = {0: [0.9, 0.80], 1: [0.8, 0.70], 2: [0.85, 0.74], 9: [0.1, 0.1]}
OTHER = {2: [0.85, 0.78], 0: [0.9, 0.85], 1: [0.8, 0.73], 7: [1.0, 1.0]}


def test_from_a_level_on_at_which_a_seed_diverged_nothing_is_decided(tmp_path: Path) -> None:
    first = rows_of({seed: [0.9, 0.8, 0.7] for seed in range(4)})
    other = rows_of({seed: [0.9, 0.85 + seed / 1000, 0.75 + seed / 1000] for seed in range(3)})
    other += rows_of({3: [0.9]})
    decided = compare([made(tmp_path / "one", first), made(tmp_path / "two", other)])
    # the search of seed 3 broke off, which is no divergence
    assert [level.verdict for level in decided.series[0].levels[1:]] == ["higher", "higher"]
    other.append(row(A, None, seed=3, level=1, density=0.5))
    withheld = compare([tmp_path / "one", made(tmp_path / "three", other)])
    levels = withheld.series[0].levels
    assert [level.verdict for level in levels[1:]] == ["undecided", "undecided"]
    assert [level.diverged for level in levels] == [(), (3,), (3,)]
    [note] = [note for note in withheld.notes if "diverged" in note]
    assert "seed 3 diverged in one of the runs at 50.0% of the weights" in note


def test_a_control_that_diverged_counts_at_its_own_level_alone(tmp_path: Path) -> None:
    variant = {"variant": "reinit"}
    levels = range(3)
    paths = []
    for name, gain in (("one", 0.0), ("two", 0.05)):
        rows = []
        for seed in range(4):
            for level in levels:
                accuracy = (
                    None if (name, seed, level) == ("two", 3, 1) else 0.8 + gain + seed / 1000
                )
                rows.append(row(A, accuracy, seed=seed, level=level, density=0.5**level, **variant))
        paths.append(made(tmp_path / name, rows))
    comparison = compare(paths)
    [series] = comparison.series
    assert [level.diverged for level in series.levels] == [(), (3,), ()]
    assert len(comparison.notes) == 1


def test_differences_are_those_of_shared_seeds_with_students_interval(tmp_path: Path) -> None:
    comparison = compare([folder(tmp_path / "one", FIRST), folder(tmp_path / "two", OTHER)])
    assert comparison.runs == ("one", "two")
    [series] = comparison.series
    dense, pruned = series.levels
    # by hand: two - one of seeds 0, 1, 2; seeds 7 and 9 are in one run only
    differences = [0.05, 0.03, 0.04]
    assert pruned.seeds == (0, 1, 2)
    assert pruned.estimate.spread.mean == pytest.approx(fmean(differences))
    assert pruned.first.mean == pytest.approx(fmean([0.8, 0.7, 0.74]))
    half = 4.302653 * stdev(differences) / math.sqrt(3)  # t of 97.5 % with 2 degrees of freedom
    assert pruned.estimate.interval == pytest.approx((0.04 - half, 0.04 + half), abs=1e-6)
    assert pruned.verdict == "higher"
    assert (dense.estimate.spread.mean, dense.p, dense.verdict) == (0, None, "same training")


def test_the_other_way_round_it_is_lower(tmp_path: Path) -> None:
    comparison = compare([folder(tmp_path / "two", OTHER), folder(tmp_path / "one", FIRST)])
    assert [level.verdict for level in comparison.series[0].levels] == ["same training", "lower"]


def test_noise_and_two_seeds_decide_nothing(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", {seed: [0.9, 0.8] for seed in range(3)})
    noisy = folder(tmp_path / "noisy", {0: [0.9, 0.9], 1: [0.9, 0.7], 2: [0.9, 0.81]})
    few = folder(tmp_path / "few", {0: [0.9, 0.9], 1: [0.9, 0.91]})
    comparison = compare([one, noisy, few])
    assert [series.run for series in comparison.series] == ["noisy", "few"]
    assert {level.verdict for series in comparison.series for level in series.levels} == {
        "same training",
        "undecided",
    }
    assert comparison.series[1].levels[1].estimate.interval is None


def test_many_levels_are_corrected_by_holm(tmp_path: Path) -> None:
    # each level alone has p = 0.04 or so; of 8 such tests none is significant
    first = {seed: [0.9] + [0.8] * 8 for seed in range(3)}
    other = {seed: [0.9] + [0.8 + gain] * 8 for seed, gain in enumerate([0.01, 0.02, 0.014])}
    comparison = compare([folder(tmp_path / "one", first), folder(tmp_path / "two", other)])
    level = comparison.series[0].levels[1]
    assert level.estimate.p is not None
    assert 0.01 < level.estimate.p < 0.05
    assert level.estimate.interval is not None
    assert level.estimate.interval[0] > 0
    assert level.verdict == "undecided"
    alone = {seed: by_level[:2] for seed, by_level in other.items()}
    comparison = compare([tmp_path / "one", folder(tmp_path / "alone", alone)])
    assert comparison.series[0].levels[1].verdict == "higher"


def test_series_are_matched_by_name_and_the_others_are_noted(tmp_path: Path) -> None:
    both = fake_run(tmp_path / "both", rows_of(FIRST) + rows_of(OTHER, B)).path
    other = fake_run(
        tmp_path / "other", rows_of(OTHER, {"criterion": "c"}) + rows_of(FIRST, B)
    ).path
    comparison = compare([both, other])
    assert [series.label for series in comparison.series] == ["b"]
    assert comparison.notes == ("other has no series 'a' in criteria; known: b, c",)


def test_single_searches_are_compared_whatever_they_are_called(tmp_path: Path) -> None:
    one = fake_run(tmp_path / "one", rows_of(FIRST, {})).path
    renamed = [replace(level_row, study="another") for level_row in rows_of(OTHER, B)]
    comparison = compare([one, fake_run(tmp_path / "two", renamed).path])
    assert [series.name for series in comparison.series] == ["criteria · ticket"]


def test_runs_without_anything_in_common_are_refused(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", FIRST)
    renamed = [replace(level_row, study="another") for level_row in rows_of(OTHER, B)]
    more = renamed + [replace(level_row, study="more") for level_row in renamed]
    two = fake_run(tmp_path / "two", more).path
    with pytest.raises(UsageError, match="one and two have no study in common; two has another"):
        compare([one, two])
    unfinished = fake_run(tmp_path / "unfinished", []).path
    for pair in ([one, unfinished], [unfinished, one]):
        with pytest.raises(UsageError, match=r"\n  unfinished has no finished level$"):
            compare(pair)
    with pytest.raises(UsageError, match="two runs or more"):
        compare([one])
    with pytest.raises(UsageError, match="compared with itself"):
        compare([one, one])
    with pytest.raises(UsageError, match="not the folder of a run"):
        compare([one, tmp_path])
    with pytest.raises(UsageError, match="no metric 'test_acuracy'; did you mean 'test_accuracy'"):
        compare([one, two], "test_acuracy")
    (two / "levels.csv").write_text("study,cell\n")
    with pytest.raises(StoreError, match=r"levels\.csv"):
        compare([one, two])


def test_another_metric_has_its_own_unit(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", FIRST), folder(tmp_path / "two", OTHER)
    comparison = compare([one, two], "early_stop_step")
    assert comparison.units[0].title == "early-stopping step"
    assert comparison.series[0].levels[0].first.mean == 500


def test_tables_markdown_and_plain_data_say_the_same(tmp_path: Path) -> None:
    comparison = compare([folder(tmp_path / "one", FIRST), folder(tmp_path / "two", OTHER)])
    [table] = comparison_tables(comparison)
    assert table.title == "criteria · ticket: test accuracy, %, two - one"
    assert table.rows[1] == (
        "50", "74.67 ± 5.03", "78.67 ± 6.03", "+4.00 ± 1.00", "+1.52 to +6.48", "3", "higher",
    )  # fmt: skip
    assert "| 50 | 74.67 ± 5.03 | 78.67 ± 6.03 | +4.00 ± 1.00 |" in comparison_markdown(comparison)
    lines = list(comparison.plain())
    assert [line["density"] for line in lines] == [1, 0.5]
    assert lines[1]["difference"] == pytest.approx(0.04)
    assert lines[1]["seeds"] == [0, 1, 2]


def test_the_page_has_one_chart_of_differences(tmp_path: Path) -> None:
    rows = curves(EVIL, [A, B], seeds=range(4), levels=6)
    one = fake_run(tmp_path / "one", rows).path
    shifted = [
        replace(level_row, test_accuracy=(level_row.test_accuracy or 0) - 0.01)
        for level_row in rows
    ]
    two = made(tmp_path / "two", shifted)
    comparison = compare([one, two])
    [view] = comparison_chart(comparison).views
    names = [trace["name"] for trace in view.traces if "name" in trace]
    assert names[0] == "no difference"
    assert len(names) == 3
    assert view.traces[-1]["y"] == pytest.approx([-1] * 7)
    text = write_comparison_page(comparison, tmp_path / "page.html").read_text("utf-8")
    assert EVIL not in text
    assert "lower" in text


def summary(path: Path, **manifest: object) -> RunFolder:
    run = fake_run(path, rows_of(FIRST) + rows_of(OTHER, B))
    run.write_manifest(run.read_manifest() | manifest)
    return run


def test_a_summary_chooses_by_validation_and_tells_the_test_accuracy(tmp_path: Path) -> None:
    rows = rows_of({0: [0.9, 0.7, 0.6]}) + rows_of({0: [0.9, 0.65, 0.8]}, B)
    lucky = replace(rows[2], test_accuracy=0.99)
    run = fake_run(tmp_path / "run", [*rows[:2], lucky, *rows[3:]])
    made = summarise(RunData(run), [0.52, 0.25, 0.01])
    assert made.best is not None
    assert (made.best.series, made.best.density, made.best.spread.mean) == ("b", 0.25, 0.8)
    half = made.at[0.52]
    assert half is not None
    assert (half.series, half.density, half.spread.mean) == ("a", 0.5, 0.7)
    assert made.at[0.01] is None


def test_a_summary_has_the_date_of_the_last_call_that_computed(tmp_path: Path) -> None:
    calls = [
        {"date": "2026-01-01T00:00:00+00:00", "seconds": 10, "computed": 4, "overrides": ["a=1"]},
        {"date": "2026-02-01T00:00:00+00:00", "seconds": 5, "computed": 1, "overrides": ["a=1"]},
        {"date": "2026-03-01T00:00:00+00:00", "seconds": 1, "computed": 0, "overrides": ["a=1"]},
    ]
    made = summarise(RunData(summary(tmp_path / "run", invocations=calls, seeds=[0, 1])))
    assert (made.date, made.seconds) == ("2026-02-01T00:00:00+00:00", 16)
    assert (made.overrides, made.seeds) == (("a=1",), (0, 1))
    old = summarise(RunData(summary(tmp_path / "old")))
    assert (old.date, old.seconds, old.overrides) == (None, None, ())


@pytest.mark.parametrize(
    ("metric", "axis", "first"),
    [
        ("density", "density (%)", "65.30 ± 0.00"),
        ("requested_density", "requested density (%)", "65.30 ± 0.00"),
        ("weights_kept", "weights kept", "173,829 ± 0"),
        ("steps", "steps (updates)", "1,000 ± 0"),
        ("early_stop_step", "early-stopping step (updates)", "500 ± 0"),
    ],
)
def test_densities_and_counts_of_weights_have_units_of_their_own(
    tmp_path: Path, metric: str, axis: str, first: str
) -> None:
    paths = []
    for name in ("one", "two"):
        rows = [row(A, 0.9, seed=seed, level=1, density=0.653) for seed in range(3)]
        paths.append(made(tmp_path / name, rows))
    comparison = compare(paths, metric)
    [table] = comparison_tables(comparison)
    assert table.rows[0][1] == first
    [view] = comparison_chart(comparison).views
    assert view.yaxis["title"] == f"difference in {axis}"


def test_each_study_has_the_figure_of_its_own_objective(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        rows = rows_of(FIRST)
        rows += [replace(level_row, study="rec") for level_row in rows_of(FIRST)]
        run = fake_run(tmp_path / name, rows)
        figures = {"criteria": "accuracy", "rec": "explained variance"}
        run.write_manifest(run.read_manifest() | {"figures": figures})
        paths.append(run.path)
    comparison = compare(paths)
    assert [table.title for table in comparison_tables(comparison)] == [
        "criteria · ticket: test accuracy, %, two - one",
        "rec · ticket: test explained variance, %, two - one",
    ]
    first, second = comparison_chart(comparison).views
    assert first.yaxis["title"] == "difference in test accuracy (%)"
    assert second.yaxis["title"] == "difference in test explained variance (%)"
    assert {trace["legendgroup"] for trace in second.traces} == {
        "no difference",
        "two · rec · ticket",
    }
    page = write_comparison_page(comparison, tmp_path / "page.html").read_text("utf-8")
    assert "<title>test accuracy, % and test explained variance, %: 2 runs compared" in page


def test_a_comparison_of_figures_that_are_not_finite_is_json(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", FIRST)
    two = folder(tmp_path / "two", {**OTHER, 1: [0.8, math.nan]})
    done = CliRunner().invoke(app, ["compare", str(one), str(two), "--json"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in done.stdout.splitlines()]
    assert [line["other_mean"] is None for line in lines] == [False, True]
    assert lines[1]["verdict"] == "undecided"
    write_comparison_page(compare([one, two]), tmp_path / "page.html")
