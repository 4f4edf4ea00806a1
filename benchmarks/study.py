"""What whole studies cost: a 25-level chain by kernel, two processes against one, replay, planning, memory.

    python benchmarks/study.py [--steps 300] [--only chain,processes,replay,plan]

LeNet-300-100 on MNIST, batch 128, SGD 0.1, 20 % a level (output layer 10 %), 24 cuts, four measurements of 5,000
validation examples a level, into empty stores. Prints a table of ratios, each from one run on one machine. Needs MNIST
in $LOTTERYFW_DATA (`lotteryfw data fetch mnist`).
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lotteryfw import Run
from lotteryfw.engine import configure_torch
from lotteryfw.runner import StudyContext
from lotteryfw.runner import run_study as run

LEVELS = 24
LONG = 2000
"""Steps a level, at least, where processes are compared: workers take seconds to start, which short studies feel."""


def recipe(steps: int, kernel: str = "auto", seeds: int = 1, **changes: Any) -> dict[str, Any]:
    """A chain of iterative magnitude pruning for each seed."""
    return {
        "name": "study-benchmark",
        "seeds": list(range(seeds)),
        "data": "mnist",
        "model": "lenet_300_100",
        "search": {"use": "imp", "levels": LEVELS},
        "scope": {"use": "layerwise", "rate": 0.2, "output_rate": 0.1},
        "train": {"length": f"{steps}it", "batch": 128, "optimizer": {"use": "sgd", "lr": 0.1}},
        "evaluate": {"points": 4},
        "engine": {"kernel": kernel},
    } | changes


def timed(table: dict[str, Any], folder: Path, jobs: int = 1) -> tuple[float, Run]:
    """Seconds of a run into this folder's store, and the run."""
    started = time.perf_counter()
    done = run(table, out=folder / "run", store=folder / "store", jobs=jobs, device="cpu")
    return time.perf_counter() - started, done


def fresh(table: dict[str, Any], jobs: int = 1) -> tuple[float, list[float]]:
    """Seconds of a run into an empty store, and the test accuracy at each of its levels."""
    with tempfile.TemporaryDirectory() as folder:
        taken, done = timed(table, Path(folder), jobs)
        return taken, [row.test_accuracy or 0.0 for row in done.levels]


def chain(steps: int) -> None:
    """One chain of 25 levels in one process, by kernel."""
    fresh(recipe(20))  # compiles the sparse kernel, reads the data once
    found = {name: fresh(recipe(steps, name)) for name in ("reference", "fused", "auto")}
    slowest = found["reference"][0]
    print(f"25-level chain, {steps} steps a level, one process")
    for name, (taken, accuracies) in found.items():
        rate = 25 * steps / taken
        accuracy = statistics.mean(accuracies)
        print(f"  {name:<10} {taken:7.1f} s {rate:8.0f} steps/s {slowest / taken:6.2f}×   "
              f"mean test accuracy over levels {100 * accuracy:.2f} %")  # fmt: skip


def processes(steps: int) -> None:
    """Two chains by one process and by two; the peak memory of each process."""
    steps = max(steps, LONG)
    fresh(recipe(20))  # compiles the sparse kernel
    one, two = fresh(recipe(steps, seeds=2), 1)[0], fresh(recipe(steps, seeds=2), 2)[0]
    print(f"two 25-level chains, {steps} steps a level")
    print(f"  one process  {one:7.1f} s")
    print(
        f"  two          {two:7.1f} s {one / two:6.2f}×   {50 * steps / two:.0f} steps/s together"
    )
    peaks = [
        resource.getrusage(who).ru_maxrss / 1e6
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(f"  peak memory  {peaks[0]:.2f} GB here, {peaks[1]:.2f} GB in the largest worker")


def replay(_: int) -> None:
    """A thousand levels that are all in the store."""
    table = recipe(1, seeds=40, data="digits") | {"evaluate": {"points": 1}}
    with tempfile.TemporaryDirectory() as folder:
        timed(table, Path(folder))
        taken, done = timed(table, Path(folder))
        print(f"replay of {len(done.levels):,} stored levels  {taken:.1f} s")


def planning(_: int) -> None:
    """The plan of ten thousand cells."""
    rates = [round(1e-4 * number, 6) for number in range(1, 101)]
    table = recipe(1000, seeds=100, grid={"train.optimizer.lr": rates})
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        context = StudyContext(table, store=Path(folder))
        checked = time.perf_counter() - started
        found = context.plan()
        whole = time.perf_counter() - started
    print(
        f"plan of {found.cells:,} cells ({found.asked:,} trainings)  {whole:.1f} s, checking the recipe {checked:.1f} s"
    )


PARTS: dict[str, Callable[[int], None]] = {
    "chain": chain,
    "processes": processes,
    "replay": replay,
    "plan": planning,
}


def main() -> None:
    """Runs the parts asked for."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--steps", type=int, default=300)
    asked.add_argument("--only", default=",".join(PARTS))
    given = asked.parse_args()
    configure_torch()
    print(f"{platform.machine()}, torch {version('torch')}, numba {version('numba')}")
    for name in given.only.split(","):
        PARTS[name](given.steps)


if __name__ == "__main__":
    main()
