"""The levels at which the series of a study are compared: each figure stands at one level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.fake_runs import A, B, fake_run, row

from lotteryfw.report import compare, summary_markdown
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.tables.summary import study_tables
from lotteryfw.store import LevelRow


def pruned(rate: str, levels: int, first: int = 0, accuracy: float = 0.98) -> list[LevelRow]:
    """Return the levels of a search at one rate; accuracy = `accuracy` - level / 1000."""
    rows = []
    for level in range(first, levels + 1):
        density = (1 - float(rate)) ** level
        figure = accuracy - level / 1000
        rows.append(row({"search.rate": rate}, figure, level=level, density=density))
    return rows


def study_of(rows: Sequence[LevelRow]) -> StudySeries:
    [study] = group_studies(rows)
    return study


def assert_one_to_one(study: StudySeries) -> None:
    """Every point of a series stands at one level, and no level has two of them."""
    for series in study.series:
        shown = [series.at(level) for level in study.levels]
        levels = [point.level for point in shown if point]
        assert sorted(levels) == [point.level for point in series.points]


def test_a_series_that_ended_earlier_has_no_figures_at_the_levels_behind_its_end() -> None:
    longer = [row(A, 0.9, level=level, density=0.97**level) for level in range(7)]
    shorter = [row(B, 0.8 - level / 100, level=level, density=0.97**level) for level in range(4)]
    study = study_of([*longer, *shorter])
    [table, _] = study_tables(study)
    assert table.head[1:] == ("100", "97", "94.1", "91.3", "88.5", "85.9", "83.3")
    assert table.rows[1] == ("b", "80.00", "79.00", "78.00", "77.00", "–", "–", "–")


def test_a_point_stands_at_the_nearest_level_alone() -> None:
    study = study_of(pruned("0.2", 5) + pruned("0.03", 30, accuracy=0.9))
    assert_one_to_one(study)
    [table, _] = study_tables(study)
    fast = dict(zip(table.head, table.rows[0], strict=True))
    assert (fast["100"], fast["97"], fast["83.3"]) == ("98.00", "–", "–")
    assert (fast["80.8"], fast["78.4"]) == ("97.90", "–")


def test_every_level_of_a_slower_search_is_in_the_tables(tmp_path: Path) -> None:
    rows = pruned("0.2", 25) + pruned("0.02", 4, accuracy=0.9)
    assert_one_to_one(study_of(rows))
    text = summary_markdown(fake_run(tmp_path / "run", rows))
    for density, accuracy in (("100", "90.00"), ("98", "89.90"), ("96", "89.80"), ("94.1", "89.7")):
        assert f"\n| {density} | " in text
        assert accuracy in text


@pytest.mark.parametrize("rates", [("0.2", "0.5"), ("0.02", "0.03"), ("0.03", "0.031")])
def test_no_figure_stands_at_two_levels_or_at_none(rates: tuple[str, str]) -> None:
    assert_one_to_one(study_of(pruned(rates[0], 12) + pruned(rates[1], 9, first=1)))


def test_levels_that_differ_by_rounding_are_one() -> None:
    rows = []
    for axes, shift in ((A, 0.0), (B, 0.004)):
        for level in range(1, 9):
            density = 0.8**level * (1 - shift * level)
            rows.append(row(axes, 0.9, level=level, density=density))
    study = study_of(rows)
    assert len(study.levels) == 8
    assert_one_to_one(study)


def test_a_repeated_level_has_its_number_whatever_its_seeds() -> None:
    """fmean([0.8] * 3) is 0.8000000000000002, so levels of 3 and of 2 seeds differ in a digit."""
    rows = []
    for level, seeds in ((0, 3), (1, 3), (2, 2)):
        for seed in range(seeds):
            density = 0.8 if level else 1.0
            rows.append(row({}, 0.9, seed=seed, level=level, density=density))
    levels = study_of(rows).levels
    assert [level.label for level in levels] == ["100", "level 1: 80", "level 2: 80"]


def test_runs_are_compared_at_their_nearest_levels_alone(tmp_path: Path) -> None:
    one = fake_run(tmp_path / "one", pruned("0.03", 8)).path
    two = fake_run(tmp_path / "two", pruned("0.2", 3)).path
    [series] = compare([one, two]).series
    # 0.8 is like 0.833, 0.808 and 0.784, and 1 is like 0.97
    assert [round(level.density, 3) for level in series.levels] == [1.0, 0.808]
