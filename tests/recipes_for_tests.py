"""A small recipe that is right, and a way to load changed versions of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import RecipeError
from lotteryfw.recipe import Recipe, load_recipe
from lotteryfw.registry import Registry

BASE: dict[str, Any] = {
    "name": "small",
    "seeds": [0, 1],
    "data": {"use": "synthetic", "examples": 600},
    "model": "lenet_300_100",
    "train": {"length": "200it", "batch": 20, "optimizer": {"use": "adam", "lr": 1e-3}},
}
NOWHERE = Path("no-data-here")


@cache
def registry() -> Registry:
    return Registry.load()


def changed(**changes: Any) -> dict[str, Any]:
    """BASE with these top-level keys; None takes a key away."""
    recipe = copy.deepcopy(BASE) | changes
    return {key: value for key, value in recipe.items() if value is not None}


def load(source: Any, profile: str | None = None, sets: Sequence[str] = ()) -> Recipe:
    return load_recipe(source, registry(), data_folder=NOWHERE, profile=profile, sets=sets)


def faults(source: Any, profile: str | None = None, sets: Sequence[str] = ()) -> list[str]:
    """Every fault of a recipe as text; none for one that is right."""
    try:
        load(source, profile, sets)
    except RecipeError as error:
        return [str(fault) for fault in error.faults]
    return []
