"""A dense level beside the public open_lth framework: the same network, data, batches, optimizer and steps.

    python benchmarks/open_lth.py PATH [--steps 1000] [--rounds 3]

PATH is a checkout of facebookresearch/open_lth (measured at commit 2ce732f). That code is of 2020; today's torch and
numpy need two of its lines changed, which this project does not carry:

- models/base.py: the class Model names torch's Module before abc's ABC among its bases, not after it, since torch's
  DistributedDataParallel has become an ABC itself and the order of a later class's bases clashes otherwise;
- training/optimizers.py: numpy's product, which numpy 2 dropped, is called prod.

LeNet-300-100 on MNIST, batch 128, SGD 0.1. Of open_lth its own `train` is timed, without any callback: no measurement,
no file; once with torch's own number of threads, as it comes, once with one thread, and once with one thread and its
batches ready in memory, which is its arithmetic alone. Of lotteryfw all of `lotteryfw.run` is timed, with its two
measurements, its store and its run folder, in one thread; beside it a bare loop of the same work (`engine.py`).
Variants take turns; medians of the rounds. MNIST is read from $LOTTERYFW_DATA by all (`lotteryfw data fetch mnist`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

BATCH = 128
PEERS = {
    "open_lth": "loader",
    "open_lth, one thread": "one-thread",
    "open_lth, no loader": "memory",
}


def peer(checkout: Path, data: Path, steps: int, how: str) -> float:
    """Seconds that open_lth's loop takes for so many steps; to be called in a process of its own."""
    import torch

    if how != "loader":
        torch.set_num_threads(1)
    sys.path.insert(0, str(checkout))
    import datasets.registry
    import models.registry
    import platforms.platform
    from foundations.step import Step
    from models.mnist_lenet import Model
    from platforms.base import Platform
    from training.train import train

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mnist").symlink_to(data)
        here = type(
            "Here", (Platform,), {"root": folder, "dataset_root": folder, "imagenet_root": folder}
        )
        platforms.platform._PLATFORM = here()
        settings = Model.default_hparams()
        settings.dataset_hparams.batch_size = BATCH
        batches: Any = datasets.registry.get(settings.dataset_hparams, train=True)
        if how == "memory":
            batches = InMemory(batches, steps + 1)
        model = models.registry.get(settings.model_hparams)
        end = Step.from_iteration(steps, batches.iterations_per_epoch)
        started = time.perf_counter()
        train(settings.training_hparams, model, batches, folder, end_step=end)
        return time.perf_counter() - started


class InMemory:
    """The loader's first batches, over and over, without its work."""

    def __init__(self, loader: Any, steps: int):
        self.iterations_per_epoch = loader.iterations_per_epoch
        self._batches = [batch for batch, _ in zip(loader, range(min(50, steps)), strict=False)]

    def shuffle(self, seed: int) -> None:
        """The order stays."""

    def __iter__(self) -> Any:
        return (
            self._batches[step % len(self._batches)] for step in range(self.iterations_per_epoch)
        )


def peer_process(checkout: Path, data: Path, steps: int, how: str) -> float:
    """The same from here: as the loop does for whoever runs that framework, with nothing else in its process."""
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")
    }
    command = [
        sys.executable,
        __file__,
        str(checkout),
        "--steps",
        str(steps),
        "--peer",
        how,
        "--data",
        str(data),
    ]
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    if told.returncode:
        sys.exit(
            f"{checkout} does not run; does it have the two changes that this script describes?\n{told.stderr}"
        )
    return float(json.loads(told.stdout.splitlines()[-1]))


def ours(steps: int, store: Path, seed: int) -> float:
    """Seconds of `lotteryfw.run`: one dense level of a seed that the store does not have yet."""
    from lotteryfw import run

    table = {
        "name": "open-lth-benchmark",
        "data": "mnist",
        "model": "lenet_300_100",
        "search": {"use": "imp", "levels": 0},
        "train": {"length": f"{steps}it", "batch": BATCH, "optimizer": {"use": "sgd", "lr": 0.1}},
        "evaluate": {"points": 1},
        "seeds": [seed],
    }
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(table, out=folder, store=store, jobs=1, device="cpu")
        return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("checkout", type=Path)
    asked.add_argument("--steps", type=int, default=1000)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--peer", choices=PEERS.values(), help=argparse.SUPPRESS)
    asked.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = asked.parse_args()
    checkout = given.checkout.resolve()
    if given.peer:
        print(json.dumps(peer(checkout, given.data, given.steps, given.peer)))
        return
    # here, for a peer's process has nothing of lotteryfw
    from engine import bare_loop

    from lotteryfw.engine import configure_torch
    from lotteryfw.registry import Registry
    from lotteryfw.runner import default_data_folder

    configure_torch()
    data = default_data_folder().resolve()
    with tempfile.TemporaryDirectory() as store:
        # the data set is decoded before any clock starts, as it is for the peer
        ours(1, Path(store), 0)
        splits = Registry.load().create("data", "mnist").load(data)
        rates: dict[str, list[float]] = {
            name: [] for name in (*PEERS, "bare loop", "lotteryfw.run")
        }
        for seed in range(1, given.rounds + 1):
            for name, how in PEERS.items():
                rates[name].append(given.steps / peer_process(checkout, data, given.steps, how))
            rates["bare loop"].append(given.steps / bare_loop(given.steps, points=1, splits=splits))
            rates["lotteryfw.run"].append(given.steps / ours(given.steps, Path(store), seed))
    print(f"{platform.machine()}, torch {version('torch')}, {given.steps} steps of batch {BATCH}")
    for name, found in rates.items():
        ratios = (
            statistics.median(rate / other for rate, other in zip(found, rates[base], strict=True))
            for base in ("open_lth", "open_lth, no loader", "bare loop")
        )
        against = "  ".join(f"{ratio:6.2f}×" for ratio in ratios)
        spread = f"(min {min(found):.0f}, max {max(found):.0f})"
        print(f"  {name:<21}{statistics.median(found):6.0f} steps/s  {spread:<20}{against}")
    print("  ×: times as fast as open_lth as it comes; as its arithmetic alone; as the bare loop")


if __name__ == "__main__":
    main()
