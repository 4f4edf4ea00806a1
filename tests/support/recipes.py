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


RICH = changed(
    title="A title", about="Long.\nText.", controls=["reinit"], rewind={"use": "to_step", "step": "1ep"},
    train=BASE["train"] | {"augment": ["flip", {"use": "crop", "padding": 1}], "schedule": "cosine"},
    study=[
        {
            "name": "one",
            "grid": {
                "criterion": ["large_final", "random"],
                "scope": [{"use": "layerwise", "rate": 0.1}, {"rate": 0.2, "rates": {"fc*": 0.3}}, "global"],
                "train.augment": [[], ["flip", {"use": "crop", "padding": 2}]],
                "train.length": ["2ep", 100],
            },
        },
        {"name": "two", "data": {"use": "digits"}, "evaluate": {"every": "1ep"}, "seeds": [4], "controls": []},
        # alone neither the base nor the grid's first axis says `step`
        {"name": "three", "grid": {"rewind": [{"use": "to_step"}], "rewind.step": ["0it", "10%"]}},
    ],
    claim=[
        {
            "text": "t", "source": "s", "study": "one", "needs_length": "100ep", "metric": "early_stop_step",
            "density": [0.1, 1],
            "higher": {"criterion": "large_final", "scope": {"use": "layerwise", "rate": 0.1}},
            "lower": {"criterion": {"use": "random"}, "variant": "reinit", "train.length": "2ep"},
        },
        {"text": "t", "source": "s", "study": "two", "of": {}, "expect": 0.97, "tolerance": 0.01,
         "tolerance_reason": "r"},
    ],
)  # fmt: skip
