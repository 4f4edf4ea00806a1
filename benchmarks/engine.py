"""How much the whole path costs on top of a bare loop of the same work.

    python benchmarks/engine.py [--steps 3000] [--repeats 3]

Trains LeNet-300-100 on MNIST, batch 128, SGD, in one process of one thread, twice in turn: by `lotteryfw.run` on a
recipe — registry, checks, store, hooks, curves, evaluation, run folder and all — and by a plain loop over the same
batches with the same evaluations. Prints steps per second of both and their ratio, the median of the repeats' ratios.
Needs MNIST in $LOTTERYFW_DATA (`lotteryfw data fetch mnist`).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from lotteryfw import Dataset, stream
from lotteryfw.engine import configure_torch
from lotteryfw.registry import Registry
from lotteryfw.runner import default_data_folder
from lotteryfw.runner import run_study as run

BATCH, POINTS = 128, 10


def recipe(steps: int) -> dict:
    """The recipe that is timed: one dense level."""
    return {
        "name": "engine-benchmark",
        "data": "mnist",
        "model": "lenet_300_100",
        "search": {"use": "imp", "levels": 0},
        "train": {"length": f"{steps}it", "batch": BATCH, "optimizer": {"use": "sgd", "lr": 0.1}},
        "evaluate": {"points": POINTS},
    }


def whole_path(steps: int) -> float:
    """Seconds of `lotteryfw.run` into an empty store, reading the data set included."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(
            recipe(steps),
            out=Path(folder) / "run",
            store=Path(folder) / "store",
            jobs=1,
            device="cpu",
        )
        return time.perf_counter() - started


def bare_loop(steps: int, points: int = POINTS, splits: Dataset | None = None) -> float:
    """Seconds of the same training by hand: same data, same batches, same evaluations, nothing else.

    The data set is read in that time, unless it is there.
    """
    registry = Registry.load()
    started = time.perf_counter()
    splits = splits or registry.create("data", "mnist").load(default_data_folder())
    model = registry.create("model", "lenet_300_100").build((1, 28, 28), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    inputs, labels = splits.train.inputs, splits.train.labels
    per_epoch = len(labels) // BATCH

    def measure(part) -> float:
        with torch.no_grad():
            chunks = zip(part.inputs.split(1000), part.labels.split(1000), strict=True)
            right = [(model(x.float().div_(255)).argmax(1) == y).sum() for x, y in chunks]
        return float(sum(right)) / len(part.labels)

    measure(splits.validation)
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = torch.randperm(len(labels), generator=stream(0, "order", epoch))
        chosen = order[place * BATCH : (place + 1) * BATCH]
        loss = cross_entropy(model(inputs[chosen].float().div_(255)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % (steps // points) == 0:
            measure(splits.validation)
    measure(splits.test)
    return time.perf_counter() - started


def main() -> None:
    """Times both in turn and prints a table."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--steps", type=int, default=3000)
    asked.add_argument("--repeats", type=int, default=3)
    given = asked.parse_args()
    configure_torch()
    whole_path(200)  # imports and first touches
    pairs = [(whole_path(given.steps), bare_loop(given.steps)) for _ in range(given.repeats)]
    print(
        f"{platform.machine()}, torch {version('torch')}, {given.steps} steps of batch {BATCH}, one thread"
    )
    for name, column in (("lotteryfw.run", 0), ("bare loop", 1)):
        rates = [given.steps / pair[column] for pair in pairs]
        print(
            f"  {name:<14} {statistics.median(rates):6.0f} steps/s   (min {min(rates):.0f}, max {max(rates):.0f})"
        )
    ratios = [bare / whole for whole, bare in pairs]
    print(
        f"  ratio          {statistics.median(ratios):6.3f}           (min {min(ratios):.3f}, max {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
