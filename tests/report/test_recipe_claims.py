"""The claims of the recipes in the repository: each can go either way, and says when it holds."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.recipes import NOWHERE

from lotteryfw.recipe import Claim, Recipe, Side, load_recipe
from lotteryfw.recipe.claim_selection import select_combinations
from lotteryfw.registry import Registry
from lotteryfw.search.cell import Cell

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
OF_NO_PAPER = ("a question of ours", "after ")
Range = tuple[float, float]


def loaded(path: Path) -> Recipe:
    return load_recipe(path, Registry.load(), data_folder=NOWHERE)


@pytest.fixture(scope="module", params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return loaded(request.param)


def test_a_claim_of_a_paper_needs_its_length(recipe: Recipe) -> None:
    for claim in recipe.claims:
        assert claim.needs_length or claim.source.startswith(OF_NO_PAPER), claim.text


def test_claims_that_are_repeated_are_a_family(recipe: Recipe) -> None:
    import tomllib

    assert recipe.path is not None
    for table in tomllib.loads(recipe.path.read_text()).get("claim", []):
        assert table.get("family") or not table.get("for_each"), table["text"]


STATED_BOUNDS: dict[str, set[float | None]] = {
    # Frankle et al. 2020, section 2: networks are stable where the error barrier is below 2 %
    "linear_mode_connectivity": {0.02},
}
"""By recipe, the bounds that its paper states; the other papers state values and orders alone."""


def test_no_bound_is_of_our_own_choosing(recipe: Recipe) -> None:
    for claim in recipe.claims:
        bounds = {claim.at_least, claim.at_most} - {None}
        assert bounds <= STATED_BOUNDS.get(recipe.name, set()), claim.text


def densities(cell: Cell) -> list[float]:
    """The density of each cycle of a search that learns masks."""
    search: Any = cell.search
    if cell.search.use == "edge_popup":
        return [search.density]
    if search.densities is not None:
        return list(search.densities)
    return [search.density ** (cycle / search.cycles) for cycle in range(1, search.cycles + 1)]


def possible(cell: Cell, metric: str) -> Range:
    """The values that a figure of dying edges can have, whatever the training does.

    A cycle selects at least as many edges as its density keeps, at its first step alone.
    """
    cycles = densities(cell)
    figure = metric.partition(".")[2]
    if figure == "dying_ratio_of_cycle":
        return 0.0, 1 - cycles[-1]
    if figure == "turnover":
        # no more edges can take a place than are left over
        return 0.0, min(1.0, (1 - cycles[-1]) / cycles[-1])
    if figure == "dying_ratio_with_removed" and getattr(cell.search, "pruning", "") == "hard":
        return 1 - cycles[-2], 1 - cycles[-1]
    return 0.0, 1 - cycles[0]


def possible_of_side(recipe: Recipe, side: Side) -> Range:
    cells = [(cell.axes, cell) for cell in recipe.cells if cell.study == side.study]
    ranges = [possible(cell, side.metric) for cell in select_combinations(cells, side.axes)]
    lows, highs = zip(*ranges, strict=True)
    return sum(lows) / len(lows), sum(highs) / len(highs)


def decided_by_arithmetic(recipe: Recipe, claim: Claim) -> bool:
    """Whether the possible values alone say that a claim holds, or that it does not."""
    sides = claim.sides()
    ranges = [possible_of_side(recipe, side) for side in sides.values()]
    if "higher" in sides:
        (low, high), (other_low, other_high) = ranges
        return low > other_high or high < other_low
    if claim.rises_along is not None:
        return any(after[1] < before[0] for before, after in pairwise(ranges))
    if claim.expect is None or claim.tolerance is None:
        low, high = claim.at_least or -inf, inf if claim.at_most is None else claim.at_most
    else:
        low, high = claim.expect - claim.tolerance, claim.expect + claim.tolerance
    [(lowest, highest)] = ranges
    return (low <= lowest and highest <= high) or highest < low or lowest > high


def about_dying_edges(recipe: Recipe) -> list[Claim]:
    return [
        claim
        for claim in recipe.claims
        if all(side.metric.startswith("dying_edges.") for side in claim.sides().values())
    ]


def test_no_claim_about_dying_edges_is_decided_by_arithmetic_alone() -> None:
    count = 0
    for path in RECIPES:
        recipe = loaded(path)
        for claim in about_dying_edges(recipe):
            assert not decided_by_arithmetic(recipe, claim), (path.name, claim.text)
            count += 1
    assert count > 20


@pytest.mark.parametrize(
    "of",
    [
        # the first of five cycles selects 0.5 ** (1 / 5) of the edges, so at most 12.9 % die
        {"at_most": 0.15},
        # a whole half of the edges is selected at any step, so no more than half can die
        {"metric": "dying_edges.dying_ratio_of_cycle", "expect": 0.6, "tolerance": 0.05},
    ],
)
def test_claims_that_arithmetic_decides_are_recognised(of: dict[str, Any]) -> None:
    recipe = loaded(ROOT / "recipes" / "iep.toml")
    claim = Claim.model_validate(
        {
            "text": "t",
            "source": "s",
            "study": "densities",
            "metric": "dying_edges.dying_ratio",
            "at": "last level",
            "of": {"search": "iterative_edge_popup", "search.density": "0.5"},
        }
        | of
        | ({"tolerance_reason": "r"} if "tolerance" in of else {})
    )
    assert decided_by_arithmetic(recipe, claim)
