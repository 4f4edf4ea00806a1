"""The bytes that the trainings of a study hold on a device, and the refusal of what cannot fit.

Importing this module does not import torch; its functions do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine import EngineContext
from lotteryfw.registry import Registry
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab

if TYPE_CHECKING:
    from lotteryfw.engine.memory import TrainingMemory


def memory_of(lab: CellLab, registry: Registry, data_folder: Path) -> TrainingMemory:
    """Return what a training of a lab's cell holds on its device."""
    from lotteryfw.engine.memory import training_memory

    specs = lab.context.specs
    job = lab.job(lab.dense())
    assert isinstance(job, Train)
    if "parametrization" in specs:
        # What a learned mask is trained by: a score for each prunable weight.
        job = replace(
            job,
            scores={name: job.values[name] for name in job.mask},
            parametrization=specs["parametrization"],
            optimizer=specs.get("mask_optimizer", specs["optimizer"]),
        )
    return training_memory(job, EngineContext(registry, data_folder, "cpu"))


def refuse_too_large(
    cells: Iterable[Cell],
    describe: Describe,
    registry: Registry,
    data_folder: Path,
    available: int,
    processes: int,
) -> None:
    """Raise UsageError for a training that a device's memory cannot hold, with what would fit.

    `available` are the bytes of the device, which `processes` share. What is counted is the least
    that a training with autograd takes; one by `torch.compile` may take less.
    """
    checked: set[tuple[object, ...]] = set()
    for cell in cells:
        # The seeds and most axes of a study share these.
        parts = (cell.model, cell.data, cell.objective, cell.optimizer, cell.parametrization)
        batch = (cell.batch, cell.accumulate, cell.devices, cell.activation_checkpointing)
        identity = (*map(id, parts), *batch, cell.precision)
        if identity in checked:
            continue
        checked.add(identity)
        try:
            lab = CellLab(cell, describe, data_folder, "cpu")
            memory = memory_of(lab, registry, data_folder)
        except LotteryError:
            # What cannot be trained is reported when it runs.
            continue
        share = available // processes
        if memory.of_training + memory.data > share:
            raise UsageError(_too_large(cell, memory, available, processes))


def _too_large(cell: Cell, memory: TrainingMemory, available: int, processes: int) -> str:
    text = f"cell '{cell.id}': a training needs {in_words(memory)}"
    text += f", and the device has {gigabytes(available)}"
    remedies = []
    if processes > 1:
        text += f", which {processes} processes share"
        remedies.append("run fewer processes on it (--jobs-per-device 1, or --jobs)")
    largest = memory.largest_batch(available // processes - memory.data)
    if 0 < largest < memory.batch:
        remedies.append(f"set train.batch to at most {largest}")
    if memory.activations and memory.parts == 1:
        remedies.append("set train.accumulate, which computes a batch in parts")
    if memory.activations and not cell.activation_checkpointing:
        remedies.append("set engine.activation_checkpointing = true")
    if cell.precision == "float32" and memory.activations:
        remedies.append('set train.precision = "bf16", which halves most activations')
    remedies.append("take a smaller network")
    return f"{text}; {', or '.join(remedies)}"


def in_words(memory: TrainingMemory) -> str:
    """Return the bytes of a training, and what takes them."""
    parts = [
        f"weights {gigabytes(memory.weights)}",
        f"gradients {gigabytes(memory.gradients)}",
        f"optimizer {gigabytes(memory.optimizer)}",
    ]
    if memory.activations is not None:
        batch = f"a batch of {memory.batch}"
        if memory.parts > 1:
            batch += f" in {memory.parts} parts"
        parts.append(f"activations of {batch} {gigabytes(memory.activations)}")
    parts.append(f"data set {gigabytes(memory.data)}")
    total = gigabytes(memory.of_training + memory.data)
    return f"at least {total} ({', '.join(parts)})"


def gigabytes(count: int) -> str:
    """Return a number of bytes with a unit that leaves a digit or more."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
