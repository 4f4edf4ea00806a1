"""The networks of a study before any training: layers, parameters, densities of levels, memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import LotteryError
from lotteryfw.api.layers import LayerInfo
from lotteryfw.registry import Registry
from lotteryfw.runner.device_memory import in_words, memory_of
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.lab import CellLab


@dataclass(frozen=True)
class NetworkTable:
    """One network of a study: what is pruned of it, what is not, and the densities of its levels.

    `layers` has the prunable parameters in order, `not_pruned` all others by name, with the number
    of their values. `densities` are those of the levels, from 1 down; empty where results decide.
    `memory` says what a training of it holds on its device, in words, and `training_bytes` how
    much that is at least.
    """

    study: str
    model: str
    inputs: tuple[int, ...]
    layers: tuple[tuple[str, tuple[int, ...], int], ...]
    not_pruned: tuple[tuple[str, int], ...]
    densities: tuple[float, ...]
    training_bytes: int
    memory: str

    @property
    def prunable(self) -> int:
        """The number of prunable weights."""
        return sum(count for _, _, count in self.layers)

    @property
    def parameters(self) -> int:
        """The number of all parameters."""
        return self.prunable + sum(count for _, count in self.not_pruned)

    def plain(self) -> dict[str, Any]:
        """Return the table as JSON-able data."""
        return {**asdict(self), "prunable": self.prunable, "parameters": self.parameters}


def network_tables(
    cells: Iterable[Cell], describe: Describe, registry: Registry, data_folder: Path
) -> list[NetworkTable]:
    """Return a table for each network of a study, with the levels of its searches. Imports torch.

    Cells that differ in their levels, such as by the scope's rate, have a table each, and so have
    those that differ in what a training holds.
    """
    tables: dict[NetworkTable, None] = {}
    seen: set[tuple[object, ...]] = set()
    for cell in cells:
        parts = (cell.model, cell.data, cell.objective, cell.search, cell.scope, cell.optimizer)
        # Seeds and most axes share these objects, and building a network takes long.
        identity = (cell.study, *map(id, parts), cell.batch, cell.precision, cell.accumulate)
        if identity in seen:
            continue
        seen.add(identity)
        tables[_table(cell, describe, registry, data_folder)] = None
    return list(tables)


def _table(cell: Cell, describe: Describe, registry: Registry, data_folder: Path) -> NetworkTable:
    lab = CellLab(cell, describe, data_folder, "cpu")
    initial = lab.context.initial
    layers = []
    for layer in initial.layers:
        layers.append((layer.name, layer.shape, _count(layer)))
    prunable = {layer.name for layer in initial.layers}
    others = []
    for name, value in initial.values.items():
        if name not in prunable and name not in initial.buffers:
            others.append((name, value.numel()))

    memory = memory_of(lab, registry, data_folder)
    return NetworkTable(
        study=cell.study,
        model=cell.model.use,
        inputs=cell.data.facts(data_folder).shape,
        layers=tuple(layers),
        not_pruned=tuple(others),
        densities=_densities(lab),
        training_bytes=memory.of_training + memory.data,
        memory=in_words(memory),
    )


def _count(layer: LayerInfo) -> int:
    count = 1
    for size in layer.shape:
        count *= size
    return count


def _densities(lab: CellLab) -> tuple[float, ...]:
    """Return the densities of the levels by their budgets; none where results decide them."""
    # The plan records the levels; their densities follow from budgets, without training.
    planned = plan_cell(lab)
    if planned.depends_on_results or planned.fault is not None:
        return ()
    total = sum(lab.context.pruner.sizes.values())
    densities: dict[float, None] = {}
    for record in lab.records:
        # What a learned mask keeps shows in its training.
        if record.trained.ticket.learns_mask or record.trained.ticket.updates_mask:
            return ()
        try:
            kept = record.ticket.source.kept_by_budgets()
        except LotteryError:
            return ()
        densities[sum(kept.values()) / total] = None
    return tuple(densities)
