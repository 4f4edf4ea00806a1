"""The targets of a study: other data, or other trainings, that its tickets are trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lotteryfw.recipe.compatibility import check_batch_parts
from lotteryfw.recipe.data_fit import check_data_fit
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.metrics import check_metrics
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import (
    TRAIN_SLOTS,
    Component,
    Evaluate,
    Name,
    Numbers,
    Table,
    Train,
)
from lotteryfw.search.cell import Cell, Target


class TargetTable(Table):
    """Other data, or another training, that the tickets of a study are trained on as well.

    The rows of these trainings have the variant `name`.
    """

    name: Name
    data: Component = None
    """Other data. If it is left out, the study's."""
    train: dict[str, Any] = {}
    """The keys of `train` that differ from the study's."""
    levels: Numbers | None = None
    """The levels whose tickets are trained: a list, or "7..12". If it is left out, all, the dense
    network's included."""


CHANGES_NOTHING = ("changes nothing: its trainings would be the study's own", "set data or train")
_NOT_OF_TARGETS = ("mask_optimizer", "mask_update")
"""Keys of `train` for searches that learn masks or change them: a target's mask stays."""


@dataclass(frozen=True)
class TargetSetup:
    """A checked target, and the fields of a cell that it changes."""

    table: TargetTable
    index: int
    changes: Mapping[str, Any]
    differs: bool
    """False where its trainings are the cell's own."""

    def of_cell(self, cell: Cell, locate: Callable[..., tuple[str, str]]) -> Target:
        """Return the target as a cell has it; `locate` says where a key is written."""
        # The ticket's origin has the start file; the network of the target may have another head.
        own = replace(
            cell, **self.changes, start=None, targets=(), controls=(), analyses=(), mask_update=None
        )
        levels = None if self.table.levels is None else frozenset(self.table.levels)
        key = "train" if self.table.data is None else "data"
        return Target(self.table.name, own, levels, locate(("target", self.index, key)))

    def resolved(self, resolver: ComponentResolver) -> dict[str, Any]:
        """Return the target's entry in a recipe with every option filled in."""
        entry: dict[str, Any] = {"name": self.table.name}
        if self.table.levels is not None:
            entry["levels"] = self.table.levels
        if self.table.data is not None:
            entry["data"] = resolver.full(self.changes["data"])
        train: dict[str, Any] = {}
        for key, value in self.table.train.items():
            if key in TRAIN_SLOTS:
                train[key] = resolver.full(self.changes[key])
            elif key == "augment":
                train[key] = [resolver.full(part) for part in self.changes["augment"]]
            else:
                train[key] = value
        # What a target takes over from the study may vary along the grid, so it is left out.
        return {**entry, "train": train} if train else entry


def target_setups(
    table: Mapping[str, Any],
    parts: Mapping[str, Any],
    evaluate: Evaluate,
    memory_format_for: Callable[[str], str],
    resolver: ComponentResolver,
    faults: FaultCollector,
) -> tuple[TargetSetup, ...]:
    """Return the targets of the cells with this table, and report their faults.

    `parts` are those of the cells, which have no faults.
    """
    # A row is told from others by its variant, whatever made it.
    names = {"ticket", *parts["search"].variants, *(part.use for part in parts["controls"])}
    setups = []
    for index, entry in enumerate(table.get("target", [])):
        here = faults.at("target", index)
        target = here.value_of(resolver.table(TargetTable, entry))
        if not isinstance(target, TargetTable):
            continue
        if target.name in names:
            here.at("name").add(
                f"levels are recorded under the name '{target.name}' already",
                "the name of a target is that of a variant: choose another",
            )
        names.add(target.name)
        if target.data is None and not target.train:
            here.add(*CHANGES_NOTHING)
        before = len(faults.problems)
        changes = _changes(target, table, parts, evaluate, memory_format_for, resolver, here)
        if changes is not None and len(faults.problems) == before:
            differs = any(parts[key] != value for key, value in changes.items())
            setups.append(TargetSetup(target, index, changes, differs))
    return tuple(setups)


def _changes(
    target: TargetTable,
    table: Mapping[str, Any],
    parts: Mapping[str, Any],
    evaluate: Evaluate,
    memory_format_for: Callable[[str], str],
    resolver: ComponentResolver,
    faults: FaultCollector,
) -> dict[str, Any] | None:
    """Return the fields of a cell that a target changes, None if there are faults."""
    in_train = faults.at("train")
    for key in _NOT_OF_TARGETS:
        if key in target.train:
            in_train.at(key).add("has no effect: the mask of a target's ticket stays as it is")
    # A component is replaced as a whole: the options of one optimizer are not another's.
    merged = {**table.get("train", {}), **target.train}
    for key in _NOT_OF_TARGETS:
        merged.pop(key, None)
    train = in_train.value_of(resolver.table(Train, merged))
    data = parts["data"]
    if target.data is not None:
        data = faults.at("data").value_of(resolver.component("data", target.data))
    if not isinstance(train, Train) or data is None:
        return None

    changes: dict[str, Any] = {"data": data, "batch": train.batch, "precision": train.precision}
    changes["accumulate"] = train.accumulate
    check_batch_parts(train, parts["devices"], faults)
    for slot in TRAIN_SLOTS:
        checked = resolver.component(slot, merged.get(slot))
        changes[slot] = in_train.at(slot).value_of(checked)
    augment = []
    for number, entry in enumerate(train.augment):
        checked = resolver.component("augmentation", entry)
        augment.append(in_train.at("augment", number).value_of(checked))
    clock = faults.value_of(resolver.clock(data, train.length, train.batch))
    if clock is None or None in (*augment, *(changes[slot] for slot in TRAIN_SLOTS)):
        return None

    in_train.at("schedule").value_of(resolver.schedule(changes["schedule"], clock))
    # A percentage or an epoch of other data is another number of steps.
    interval = evaluate.interval(clock)
    if interval < 1:
        in_train.at("length").add(f"has less than a step between evaluations ('{evaluate.every}')")
    changes["augment"] = tuple(augment)
    unfit = FaultCollector()
    check_metrics({**parts, **changes}, resolver, unfit)
    check_data_fit({**parts, **changes}, resolver, unfit)
    for problem in unfit.problems:
        faults.at(*_place(target, problem.keys)).add(problem.text, problem.remedy)
    return {
        **changes,
        "clock": clock,
        "evaluate_every": interval,
        "memory_format": memory_format_for(train.precision),
    }


def _place(target: TargetTable, keys: Keys) -> Keys:
    """Return where a target changes what does not fit at these keys of a study."""
    if keys[0] == "train" and keys[1] in target.train:
        return keys
    # The parts of the study fit its own data, so what does not fit is the target's data or objective.
    return ("train", "objective") if target.data is None else ("data",)
