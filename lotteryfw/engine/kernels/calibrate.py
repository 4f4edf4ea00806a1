"""Measuring on one machine from which density on the sparse kernel's products are no faster than dense ones.

Nothing is chosen by what is found: a choice follows from the job and its recipe, which may set `engine.sparse_below`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from lotteryfw.engine.kernels.sparse import SPARSE_BELOW, Backend, backends, loops_of
from lotteryfw.store.files import atomic_write, explained

DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
WIDTHS = (784, 300, 100, 10)
"""The network of most of the recipes: LeNet-300-100."""
_EXAMPLES, _BATCH, _STEPS = 5_000, 128, 10
_FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What was found: when (UTC), with which versions, and for each back end the density, in [0, 1], where a step on
    sparse products takes as long as on dense ones."""

    date: str
    versions: dict[str, str]
    below: dict[Backend, float]


_MACHINES = TypeAdapter(dict[str, Calibration])


def calibrate(root: Path, widths: Sequence[int] = WIDTHS, rounds: int = 9) -> Calibration:
    """Measures every back end that is here, in under a minute, and keeps what it finds in the store at `root`, under
    the machine's name. Call `settle_process` before. Raises StoreError where it cannot be written."""
    below = {backend: break_even(backend, widths, rounds) for backend in backends()}
    found = Calibration(datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), _versions(), below)
    atomic_write(
        root / _FILE, _MACHINES.dump_json(_read(root) | {platform.node(): found}, indent=1)
    )
    return found


def break_even(backend: Backend, widths: Sequence[int], rounds: int) -> float:
    """The density where a step of plain SGD costs the same with all layers sparse and with all layers dense.

    The two take turns, and each round's ratio is of neighbours in time: what else the machine does falls on both.
    """
    import numpy as np

    from lotteryfw.engine.kernels.sparse_chain import warm_up

    warm_up(loops_of(backend))
    ratios = [0.0]
    for density in DENSITIES:
        sparse, dense = (_steps(backend, widths, density, dense_from) for dense_from in (1.1, 0.0))
        ratios.append(median([sparse() / dense() for _ in range(rounds + 1)][1:]))
    return round(float(np.interp(1.0, np.maximum.accumulate(ratios), [0.0, *DENSITIES])), 2)


def _steps(
    backend: Backend, widths: Sequence[int], density: float, dense_from: float
) -> Callable[[], float]:
    """Seconds that some steps take, each time it is called."""
    import torch

    from lotteryfw.engine.kernels.sparse_chain import SparseChain, Update

    rng = torch.Generator().manual_seed(0)
    masks = [
        torch.rand(outputs, inputs, generator=rng) < density for inputs, outputs in pairwise(widths)
    ]
    weights = [0.05 * torch.randn(mask.shape, generator=rng) * mask for mask in masks]
    biases = [torch.zeros(len(mask)) for mask in masks]
    chain = SparseChain(
        weights, masks, biases, Update("sgd"), _BATCH, dense_from, loops_of(backend)
    )
    images = torch.randint(0, 256, (_EXAMPLES, widths[0]), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, widths[-1], (_EXAMPLES,), generator=rng)
    batches = torch.randperm(_EXAMPLES, generator=rng)[: _STEPS * _BATCH].view(_STEPS, _BATCH)

    def run() -> float:
        started = time.perf_counter()
        for chosen in batches:
            chain.step(images, labels, chosen, 0.01)
        return time.perf_counter() - started

    return run


def sparse_advice(root: Path) -> list[str]:
    """Lines for people: where sparse products begin by default, what was measured here, and how to go by it."""
    here, versions = next(iter(backends())), _versions()
    lines = [
        f"{here} {versions[here]}, below density {SPARSE_BELOW[here]} unless a recipe sets engine.sparse_below"
    ]
    found = _read(root).get(platform.node())
    if found is None:
        return [*lines, "not measured on this machine: lotteryfw doctor --calibrate"]
    each = ", ".join(
        f"{below} with {name} {found.versions.get(name, '')}" for name, below in found.below.items()
    )
    lines.append(f"measured on this machine: break-even at {each} ({found.date} UTC)")
    if found.versions != versions:
        return [*lines, "that was with other versions: lotteryfw doctor --calibrate"]
    return [*lines, f"a recipe goes by it with: [engine] sparse_below = {found.below[here]}"]


def _versions() -> dict[str, str]:
    return {package: version(package) for package in backends()}


def _read(root: Path) -> dict[str, Calibration]:
    """What was measured, by machine: several may share a store. Nothing where the file is not what was written."""
    with explained(root / _FILE, "read"):
        try:
            return _MACHINES.validate_json((root / _FILE).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
