"""What `--set` or a profile gives has an effect on the cells, or it is a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recipes import BASE, NOWHERE, changed, faults, load

from lotteryfw.api.errors import RecipeError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry

STUDIES = changed(
    seeds=None,
    study=[
        {"name": "one", "seeds": [0], "search": {"levels": 3}, "evaluate": {"every": "10it"}},
        {"name": "two", "seeds": [1], "search": {"use": "one_shot", "levels": 2}}
        | {"grid": {"criterion": ["large_final", "random"]}, "evaluate": {"points": 2}},
    ],
)
GRID = changed(
    grid={
        "criterion": ["large_final", "random"],
        "search": [{"use": "imp", "levels": 2}, "at_init"],
    }
)
NO_EFFECT = {
    "criterion=small_final": (GRID, "criterion", "grid.criterion"),
    'criterion={use="small_final"}': (GRID, "criterion", "grid.criterion"),
    "search.levels=5": (GRID, "search.levels", "grid.search"),
    "seeds=[5]": (STUDIES, "seeds", "studies.one.seeds and studies.two.seeds"),
    "search.levels = 5": (
        STUDIES, "search.levels", "studies.one.search.levels and studies.two.search",
    ),
    "evaluate.points=7": (
        STUDIES, "evaluate.points", "studies.one.evaluate and studies.two.evaluate.points",
    ),
    "studies.two.criterion=small_final": (
        STUDIES, "studies.two.criterion", "studies.two.grid.criterion",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", NO_EFFECT)
def test_what_is_set_and_decides_nothing_is_a_fault(change: str) -> None:
    recipe, key, decisive = NO_EFFECT[change]
    (found,) = faults(recipe, sets=[change])
    assert found.startswith(f"--set: {key}: has no effect: "), found
    assert decisive in found


def test_what_a_profile_gives_and_decides_nothing_is_a_fault() -> None:
    recipe = STUDIES | {"profiles": {"quick": {"seeds": [5], "train": {"batch": 10}}}}
    (found,) = faults(recipe, "quick")
    assert found.startswith("recipe: profiles.quick.seeds: has no effect: "), found
    assert faults(recipe) == []


def test_what_decides_for_one_study_has_an_effect(tmp_path: Path) -> None:
    recipe: dict[str, Any] = STUDIES | {"study": [*STUDIES["study"], {"name": "three"}]}
    for change in ("seeds=[5]", "search.levels=5", "evaluate.points=7", "train.batch=10"):
        assert faults(recipe, sets=[change]) == []
    assert faults(STUDIES, sets=["criterion=small_final"]) == []
    assert faults(GRID, sets=["seeds=[5]", 'grid.criterion=["random"]']) == []
    # of --study, what is set is meant for these alone; a profile is for all
    load_recipe(recipe, Registry.load(), data_folder=NOWHERE, studies=["three"], sets=["seeds=[5]"])
    with pytest.raises(RecipeError, match=r"seeds: has no effect: .*studies\.one\.seeds"):
        load_recipe(
            recipe, Registry.load(), data_folder=NOWHERE, studies=["one"], sets=["seeds=[5]"]
        )
    recipe |= {"profiles": {"quick": {"seeds": [5]}}}
    load_recipe(recipe, Registry.load(), data_folder=NOWHERE, studies=["one"], profile="quick")


def test_what_is_set_later_counts() -> None:
    assert [cell.seed for cell in load(BASE, sets=["seeds=[3]", "seeds=[4]"]).cells] == [4]
    assert [
        cell.seed
        for cell in load(BASE | {"profiles": {"q": {"seeds": [3]}}}, "q", ["seeds=[4]"]).cells
    ] == [4]


def test_an_empty_table_changes_nothing() -> None:
    assert faults(GRID, sets=["grid={}"]) == [
        "--set: grid: is an empty table, which changes nothing (a list replaces a list: "
        "grid.KEY=[…])"
    ]
