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
TRAIN = BASE["train"]
CLAIM = {
    "text": "t",
    "source": "s",
    "of": {},
    "expect": 0.9,
    "tolerance": 0.1,
    "tolerance_reason": "r",
}
IEP = {"use": "iterative_edge_popup"}
CYCLES = {"rewind": "learning_rate"}
"""The rewind policy that a search with several cycles needs."""


@cache
def registry() -> Registry:
    """Return the installed components, loaded once."""
    return Registry.load()


def changed(**changes: Any) -> dict[str, Any]:
    """Return BASE with these top-level keys; None takes a key away."""
    recipe = copy.deepcopy(BASE) | changes
    return {key: value for key, value in recipe.items() if value is not None}


def train(**changes: Any) -> dict[str, Any]:
    """Return BASE with these keys of `train`; None takes a key away."""
    table = {key: value for key, value in (TRAIN | changes).items() if value is not None}
    return changed(train=table)


def learned(**changes: Any) -> dict[str, Any]:
    """Return BASE with a parametrization and these top-level keys."""
    return changed(**({"parametrization": "top_k"} | changes))


def load(source: Any, profile: str | None = None, sets: Sequence[str] = ()) -> Recipe:
    """Load a recipe that needs no data files."""
    return load_recipe(source, registry(), data_folder=NOWHERE, profile=profile, sets=sets)


def faults(source: Any, profile: str | None = None, sets: Sequence[str] = ()) -> list[str]:
    """Return every fault of a recipe as text; none for a valid one."""
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
