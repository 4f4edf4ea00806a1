"""Measures what a step of a training takes, where nothing like it was trained before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lotteryfw.api.errors import LotteryError
from lotteryfw.engine import EngineContext, KernelDispatcher, Stopped, configure_torch, execute
from lotteryfw.registry import Registry
from lotteryfw.runner.first_jobs import deciding_parts, first_jobs
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.jobs import Train, likeness
from lotteryfw.search.lab import CellLab
from lotteryfw.store import Store

_SECONDS = 2.0
"""Seconds of steps that are measured, for each kind of training."""
_WARM_UP = 5
"""Steps before the measurement: the first ones compile, allocate and fill caches."""
_OBJECT_BYTES = 4_000
"""Bytes of a stored training beside its weights: figures, curve and checksums."""

Cost = tuple[float, int]
"""The seconds a step and the bytes of a stored training."""


def measure_costs(
    cells: Iterable[Cell],
    describe: Describe,
    registry: Registry,
    data_folder: Path,
    device: str,
) -> dict[str, Cost]:
    """Return, by cost class, what a training costs: one of each is begun, and stopped soon.

    Nothing is kept: the store is a temporary one. Each is trained alone, and evaluated only before
    its first step and after its last, which is not in the time. Imports torch.
    """
    configure_torch()
    costs: dict[str, Cost] = {}
    measured: set[tuple[int, ...]] = set()
    for cell in cells:
        # The seeds and most axes of a study share all that decides about the time of a step.
        identity = (*deciding_parts(cell), cell.batch)
        if identity in measured:
            continue
        measured.add(identity)
        with TemporaryDirectory() as folder:
            store = Store(Path(folder))
            context = EngineContext(registry, data_folder, device, store)
            lab = CellLab(cell, describe, data_folder, device, KernelDispatcher(context))
            # What cannot be trained is reported by the plan, or when it runs.
            with contextlib.suppress(LotteryError):
                for job in first_jobs(lab):
                    cost_class = likeness(job)
                    if cost_class in costs:
                        continue
                    seconds = _seconds_a_step(job, store, context)
                    if seconds is not None:
                        costs[cost_class] = (seconds, _size(job))
    return costs


def _size(job: Train) -> int:
    """Return the bytes of a stored training: the values of its end have the shapes of its first."""
    tensors = [*job.values.values(), *job.scores.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + _OBJECT_BYTES


def _seconds_a_step(job: Train, store: Store, context: EngineContext) -> float | None:
    """Return the seconds a step of a training, of as many steps as fit into the time.

    None where there is no time to tell: it diverged at once, or has a single step.
    """
    # No evaluation on the way: the time is that of steps alone.
    job = replace(job, evaluate_every=job.steps)
    times: list[tuple[int, float]] = []

    def on_step(done: int, of: int) -> bool:
        now = time.perf_counter()
        # The first call comes before the first step, and before the evaluation there.
        if done >= max(1, min(_WARM_UP, of - 1)):
            times.append((done, now))
        return bool(times) and now - times[0][1] > _SECONDS

    def on_done(key: str, warning: str | None) -> None:
        """The training was shorter than the measurement."""

    with contextlib.suppress(Stopped):
        execute([job], store, context, on_step, on_done, checkpoint_seconds=3600.0)
    # the loss was not finite before a step was made, or there was one step alone
    if len(times) < 2:
        return None
    (first, began), (last, ended) = times[0], times[-1]
    return (ended - began) / (last - first)
