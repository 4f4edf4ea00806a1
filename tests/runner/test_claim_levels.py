"""A claim about a level that no search has is refused before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recipes import changed

import lotteryfw
from lotteryfw.api.errors import RecipeError

CLAIM = {"text": "t", "source": "s", "of": {}, "expect": 0.9, "tolerance": 0.1}
CLAIM |= {"tolerance_reason": "r"}
SEARCH = {"use": "imp", "levels": 2}
SCOPE = {"use": "layerwise", "rate": 0.5, "output_rate": 0.5}


def recipe(**claim: Any) -> dict[str, Any]:
    return changed(
        data="digits",
        train={"length": "2it", "batch": 8, "optimizer": {"use": "sgd", "lr": 0.1}},
        search=SEARCH,
        scope=SCOPE,
        seeds=[0],
        claim=[CLAIM | claim],
    )


def run(source: dict[str, Any], tmp_path: Path, **options: Any) -> Any:
    return lotteryfw.run(source, out=tmp_path / "run", store=tmp_path / "store", jobs=1, **options)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            {"density": 0.4},
            r"recipe: claim\[0\]\.of: the study 'small' has no level of density 0\.4 "
            r"\(the nearest are 1, 0\.5, 0\.25\)",
        ),
        ({"of": {"density": [0.3, 0.4]}}, "has no level of density 0.3 to 0.4"),
        ({"density": 0.5, "of": {"density": 0.1}}, "has no level of density 0.1"),
    ],
)
def test_a_level_that_no_search_has_is_refused(
    tmp_path: Path, claim: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        run(recipe(**claim), tmp_path)
    assert not (tmp_path / "run" / "levels.csv").exists()


@pytest.mark.parametrize("density", [0.5, 0.49, 1.0, [0.2, 0.3]])
def test_a_level_near_the_density_of_the_claim_is_right(tmp_path: Path, density: Any) -> None:
    assert run(recipe(density=density), tmp_path).levels


def test_a_smaller_version_of_a_recipe_may_leave_levels_out(tmp_path: Path) -> None:
    assert run(recipe(density=0.25), tmp_path, sets=["search.levels=1"]).levels
