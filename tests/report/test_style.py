"""The style that figures and the page share: which levels an axis names."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import log10
from operator import methodcaller
from typing import Any

import pytest
from support.fake_runs import A, B, row

from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.figures.matplotlib_panels import draw_curves
from lotteryfw.report.plots.style import ErrorScale, error_scale, spaced_densities


@pytest.mark.parametrize("levels", [8, 12, 25])
@pytest.mark.parametrize("rate", [0.2, 0.35, 0.5])
def test_an_axis_names_its_ends_and_no_two_levels_too_close(levels: int, rate: float) -> None:
    densities = [(1 - rate) ** level for level in range(levels + 1)]
    gap = log10(densities[0] / densities[-1]) / 8
    named = spaced_densities(densities, gap)
    assert (named[0], named[-1]) == (1, densities[-1])
    assert set(named) <= set(densities)
    assert all(log10(denser / sparser) > gap for denser, sparser in pairwise(named))
    assert 3 <= len(named) <= 9


def test_one_level_is_named_once_and_two_are_whatever_the_gap() -> None:
    assert spaced_densities([0.5], 1) == [0.5]
    assert spaced_densities([], 1) == []
    assert spaced_densities([0.5, 0.49], 1) == [0.5, 0.49]


def scale_of(*accuracies: float, **fields: Any) -> ErrorScale | None:
    """Return the scale of a series with these accuracies by level."""
    rows = []
    for level, accuracy in enumerate(accuracies):
        rows.append(row({}, accuracy, level=level, density=0.5**level))
    [study] = group_studies(rows)
    return error_scale(replace(study, **fields), "test_accuracy")


def test_the_end_of_an_error_scale_has_room_for_every_mean() -> None:
    ordinary, perfect = scale_of(0.99, 0.98, 0.8), scale_of(1.0, 0.99, 0.8)
    assert ordinary is not None
    assert perfect is not None
    # errors of 1 to 20 %: the floor is half the smallest
    assert (ordinary.floor, ordinary.high) == pytest.approx((0.5, 100 - 1 / 1.4))
    assert (perfect.floor, perfect.high) == pytest.approx((0.5, 100 - 0.5 / 1.2))
    # what is drawn at the floor reads 100 there, and not as the accuracy of that place
    assert ordinary.ticks == (80, 90, 95, 97, 98, 99, 99.5)
    assert perfect.ticks == (80, 90, 95, 97, 98, 99, 100)
    assert [perfect.position(tick) for tick in (99, 100)] == pytest.approx([99, 99.5])
    # the dense network of a sweep is in no series
    [study] = group_studies([row({}, 1.0)])
    with_dense = scale_of(0.99, 0.98, 0.8, dense=study.dense)
    assert with_dense is not None
    assert with_dense.high == pytest.approx(perfect.high)


def test_figures_that_are_no_shares_have_no_error_scale() -> None:
    assert scale_of(0.95, 0.2, -0.5) is None
    assert scale_of(0.99, 0.8, 5.0) is None
    rows = [
        replace(row({}, 0.9, level=level), metrics={"balanced_accuracy": value})
        for level, value in enumerate((0.995, 0.8))
    ]
    for kind, is_share in (("number", False), ("share", True)):
        [study] = group_studies(rows, {"balanced_accuracy": kind})
        assert (error_scale(study, "metric.balanced_accuracy") is not None) == is_share


def test_a_perfect_accuracy_is_drawn_inside_its_panel() -> None:
    figure = pytest.importorskip("matplotlib.figure")
    rows = []
    for axes, accuracies in ((A, (1.0, 1.0, 0.99)), (B, (1.0, 0.98, 0.7))):
        for level, accuracy in enumerate(accuracies):
            for seed in (0, 1):
                figure_of_seed = accuracy - 0.001 * seed * level
                place = {"seed": seed, "level": level, "density": 0.5**level}
                rows.append(row(axes, figure_of_seed, **place))
    [study] = group_studies(rows)
    axes = figure.Figure().subplots()
    spread = methodcaller("spread", "test_accuracy")
    scale = error_scale(study, "test_accuracy")
    draw_curves(axes, study, study.unit("test_accuracy"), spread, scale)
    labels = {text.get_text(): text.get_position()[1] for text in axes.get_yticklabels()}
    assert scale is not None
    assert labels["100"] == pytest.approx(100 - scale.floor)
    lowest, highest = axes.get_ylim()
    top = axes.transData.transform((100, highest))[1]
    drawn = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert len(drawn) == 3
    for line in drawn:
        heights = list(line.get_ydata())
        assert lowest <= min(heights)
        # some pixels below the end, as half a marker lies above its point
        assert axes.transData.transform((100, max(heights)))[1] < top - 2
