"""What denormal numbers cost: the same training with them, and with zeros in their place as jobs on the CPU have.

    python benchmarks/denormals.py [--steps 10000] [--kernel auto]

LeNet-300-100 on MNIST from $LOTTERYFW_DATA, batch 60, Adam at rate 1.2e-3, in one process of one thread. Many pixels of
MNIST are black in nearly every image, so most updates have no gradient for their weights, and Adam's averages decay.
The two trainings take turns, a twentieth of the steps each.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from lotteryfw.engine import EngineContext, KernelDispatcher, configure_torch
from lotteryfw.engine.arithmetic import algorithms_of
from lotteryfw.engine.kernels.dispatch import make_kernel
from lotteryfw.runner import StudyContext, default_data_folder
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab

TURNS = 20


def dense_training(kernel: str, steps: int, store: Path) -> tuple[Train, EngineContext]:
    """The training, and where it is made."""
    folder = default_data_folder()
    recipe = {
        "name": "denormals-benchmark",
        "data": "mnist",
        "model": "lenet_300_100",
        "train": {
            "length": f"{steps}it",
            "batch": 60,
            "optimizer": {"use": "adam", "lr": 1.2e-3},
        },
        "engine": {"kernel": kernel},
    }
    study = StudyContext(recipe, data=folder, store=store)
    context = EngineContext(study.registry, folder, "cpu")
    choose = KernelDispatcher(context)
    lab = CellLab(study.recipe.cells[0], study.describe, folder, "cpu", choose)
    job = lab.job(lab.dense())
    assert isinstance(job, Train)
    return job, context


def main() -> None:
    """Time them in turn, and print a table."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--steps", type=int, default=10_000)
    asked.add_argument("--kernel", default="auto")
    given = asked.parse_args()
    configure_torch()
    with tempfile.TemporaryDirectory() as store:
        job, context = dense_training(given.kernel, given.steps, Path(store))
        trainings = {name: make_kernel([job], context) for name in ("denormals", "zeros")}
        print(f"{platform.machine()}, torch {version('torch')}, kernel {job.kernel.name}")
        print(f"{'steps':>14} {'denormals':>12} {'zeros':>12}   steps/s")
        turn = given.steps // TURNS
        total = dict.fromkeys(trainings, 0.0)
        for first in range(0, turn * TURNS, turn):
            seconds = {}
            for name, kernel in trainings.items():
                with algorithms_of(job) if name == "zeros" else nullcontext():
                    started = time.perf_counter()
                    for step in range(first, first + turn):
                        kernel.update(step, 1.0)
                    seconds[name] = time.perf_counter() - started
                total[name] += seconds[name]
            print(_line(f"to {first + turn:,}", turn, seconds))
        print(_line("all", turn * TURNS, total))


def _line(label: str, steps: int, seconds: dict[str, float]) -> str:
    rates = [f"{steps / each:,.0f}".rjust(12) for each in seconds.values()]
    return f"{label:>14} {' '.join(rates)}   {seconds['denormals'] / seconds['zeros']:.2f}×"


if __name__ == "__main__":
    main()
