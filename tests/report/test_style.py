"""The style that figures and the page share: which levels an axis names."""

from __future__ import annotations

from itertools import pairwise
from math import log10

import pytest

from lotteryfw.report.plots.style import spaced_densities


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
