"""The axes of a study: the paths that its grid varies, and lists of seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lotteryfw.api.errors import nearest
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.layered_table import Keys, dotted
from lotteryfw.recipe.metrics import METRICS
from lotteryfw.recipe.schema import (
    SLOTS,
    STUDY_SLOTS,
    Engine,
    Evaluate,
    RandomnessTable,
    StudyTable,
    Table,
    Train,
)


@dataclass(frozen=True)
class Axis:
    """A path that a grid varies, its values as written, and an entry and a label for each.

    An entry is plain data: of a component its name, and the options that differ from defaults.
    """

    keys: Keys
    values: Sequence[Any]
    entries: Sequence[Any]
    labels: Sequence[str]
    written: Keys
    """The path of the list of its values: in the grid, or a list of seeds in its own table."""

    @property
    def path(self) -> str:
        return dotted(self.keys)


def written_axes(
    study: StudyTable, faults: FaultCollector
) -> Iterator[tuple[Keys, Keys, Sequence[Any]]]:
    """Yield the path, the place and the values of each axis whose path can vary."""
    # in the order of the recipe, which is the order of the cells
    grid = study.grid
    for path, values in grid.items():
        keys: Keys = tuple(path.split("."))
        problem = check_grid_path(keys)
        if problem:
            faults.at("grid", path).add(*problem)
        else:
            yield keys, ("grid", path), values
    for name, values in study.randomness.items():
        keys = ("randomness", name)
        if not isinstance(values, list):
            continue
        if dotted(keys) in grid:
            faults.at(*keys).add("is an axis of the grid, too", "give its seeds in one place")
        elif name not in RandomnessTable.model_fields:
            remedy = nearest(name, RandomnessTable.model_fields)
            faults.at(*keys).add("unknown key", remedy)
        elif not values:
            faults.at(*keys).add("must be at least 1 long, got []")
        else:
            yield keys, keys, values


def check_grid_path(keys: Keys, also: Iterable[str] = ()) -> tuple[str, str] | None:
    """Return why a grid cannot vary this path, and a remedy; None if it can.

    `also` are other keys that may have been meant.
    """
    tables = (*STUDY_SLOTS, "train", "evaluate", "engine", "randomness")
    is_option = len(keys) > 1 and keys[0] in tables
    if keys[:2] in (METRICS, ("evaluate", "train")):
        return "is measured for all cells of a study alike", "set it beside the grid"
    if keys[-1] == "use" and keys[:-1] in SLOTS:
        # cells would be named by it, and claims name components
        return "is not a key that a grid can vary", f"vary `{dotted(keys[:-1])}` itself"
    if keys in SLOTS or is_option:
        return None
    # the paths that people misspell: components, and the keys of the fixed tables
    choices = [*also, *STUDY_SLOTS]
    models: dict[str, type[Table]] = {
        "train": Train,
        "evaluate": Evaluate,
        "engine": Engine,
        "randomness": RandomnessTable,
    }
    for name, model in models.items():
        choices += [f"{name}.{field}" for field in model.model_fields]
    return "is not a key that a grid can vary", nearest(dotted(keys), choices)
