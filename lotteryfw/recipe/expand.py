"""One study: its grid multiplied out into checked cells, its faults placed where they were said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lotteryfw.cell import Cell
from lotteryfw.errors import Fault, nearest
from lotteryfw.recipe.schema import POINTS, SLOTS, TABLE_SLOTS, TRAIN_SLOTS, Body, Evaluate, Train
from lotteryfw.recipe.slots import Slots, label_of
from lotteryfw.recipe.tree import Keys, Tree, dotted
from lotteryfw.recipe.words import Problem

AUGMENT = ("train", "augment")


@dataclass(frozen=True)
class Axis:
    """A path that a grid varies, its values as written, and a label for each."""

    keys: Keys
    values: Sequence[Any]
    labels: Sequence[str]

    @property
    def path(self) -> str:
        return dotted(self.keys)


@dataclass(frozen=True)
class Setup:
    """Everything of a cell but its coordinates, and the fixed parts it was made from."""

    parts: Mapping[str, Any]
    train: Train
    evaluate: Evaluate


class Study:
    """A study of a recipe. `faults` is what is wrong with it; `cells` are those that nothing is wrong with."""

    def __init__(self, name: str, tree: Tree, slots: Slots):
        self.name = name
        self.cells: list[Cell] = []
        self.faults: dict[Fault, None] = {}  # a set that keeps its order
        self.axes: list[Axis] = []
        self._tree = tree
        self._slots = slots
        self._first: Setup | None = None
        body, found = slots.table(Body, tree.table)
        self._report(found)
        if body is not None:
            self._body: Body = body
            self.axes = list(self._checked_axes())
            self._expand()

    def resolved(self) -> dict[str, Any]:
        """The study as a table in which nothing is left to defaults. Loads to the same cells."""
        assert self._first is not None, "a study with faults has nothing to resolve"
        parts, train = self._first.parts, self._first.train
        full = self._slots.full
        evaluate = {"every": str(self._first.evaluate.every)} if self._first.evaluate.every else {"points": self._first.evaluate.points or POINTS}
        grid = {axis.path: [self._resolved_value(axis.keys, value) for value in axis.values] for axis in self.axes}
        return {
            "name": self.name,
            "seeds": self._body.seeds,
            "controls": self._body.controls,
            **{slot: full(parts[slot]) for slot in TABLE_SLOTS},
            "train": {
                "length": str(train.length),
                "batch": train.batch,
                **{slot: full(parts[slot]) for slot in TRAIN_SLOTS},
                "augment": [full(each) for each in parts["augment"]],
            },
            "evaluate": evaluate,
            **({"grid": grid} if grid else {}),
        }
