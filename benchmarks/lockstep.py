"""What a lockstep group gains: steps of several networks at once, against the fused kernel one after another.

    python benchmarks/lockstep.py [--rounds 7] [--density 1.0] [--members 1 2 4 8 16]

Chains on random images, SGD at rate 0.1 and Adam, batches of 60 and 128, groups of 1 to 16, whose members see the same
batches ("shared", as the criteria and actions of one seed do) or each its own. In one process of one thread the ways
take turns, each for the same number of steps; a median over the rounds is printed, and the ratio to the fused kernel is
the median of the rounds' ratios. With a density below 1 the sparse kernel takes part, one network after another.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lotteryfw.engine import Chooser, Workshop
from lotteryfw.engine.kernels.choose import kernel_of
from lotteryfw.engine.kernels.lockstep import Group
from lotteryfw.runner import Desk
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab

SHAPES = {(64, 32, 16, 10): 8, (64, 300, 100, 10): 8, (784, 300, 100, 10): 28}
OPTIMIZERS = ({"use": "sgd", "lr": 0.1}, {"use": "adam", "lr": 1e-3})
Run = Callable[[int], None]
"""Takes so many steps of every member."""


def job_of(
    side: int, hidden: list[int], batch: int, optimizer: dict[str, Any], density: float, store: Path
) -> Any:
    """A training under a random mask, and the workshop to run it in."""
    recipe = {
        "name": "bench", "data": {"use": "synthetic", "examples": 6000, "classes": 10, "shape": [1, side, side]},
        "model": {"use": "mlp", "hidden": hidden}, "search": {"use": "imp", "levels": 1},
        "train": {"length": "1ep", "batch": batch, "optimizer": optimizer},
    }  # fmt: skip
    desk = Desk(recipe, store=store)
    shop = Workshop(desk.registry, desk.data_folder, "cpu")
    lab = CellLab(desk.recipe.cells[0], desk.describe, desk.data_folder, "cpu", Chooser(shop))
    job = lab.job(lab.dense())
    mask = {name: torch.rand(alive.shape) < density for name, alive in job.mask.items()}
    values = {name: value * mask.get(name, 1.0) + 0.0 for name, value in job.values.items()}
    return replace(job, mask=mask, values=values), shop


def one_by_one(jobs: list[Train], kernel: str, shop: Workshop) -> Run:
    """All steps of the first, then those of the next."""
    name = Chooser(shop)(jobs[0], kernel)
    kernels = [kernel_of(replace(job, kernel=name), shop) for job in jobs]

    def run(steps: int) -> None:
        for each in kernels:
            for step in range(steps):
                each.update(step, 1.0)

    return run


def at_once(jobs: list[Train], shop: Workshop) -> Run:
    """Step by step, all of them in each."""
    group = Group(jobs, shop)

    def run(steps: int) -> None:
        for step in range(steps):
            group.losses += group.update(step, 1.0)

    return run


def rounds(runs: dict[str, Run], count: int, members: int, each: int) -> dict[str, list[float]]:
    """Microseconds per step of one member, one number a round; the first round is left out."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run(each)
            times[name].append((time.perf_counter() - started) * 1e6 / each / members)
    return {name: column[1:] for name, column in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--density", type=float, default=1.0)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"{platform.machine()}, torch {version('torch')}, density {given.density:.0%}, one thread; "
        "µs per step and member (times faster than fused)"
    )
    ways = ["shared", "own"] + (["sparse"] if given.density < 1 else [])
    print(
        f"{'network':>15} {'':>5} {'batch':>5} {'members':>7} {'fused':>8}"
        + "".join(f"{way:>17}" for way in ways)
    )
    with TemporaryDirectory() as folder:
        for (shape, side), optimizer, batch in (
            (shape, optimizer, batch)
            for shape in SHAPES.items()
            for optimizer in OPTIMIZERS
            for batch in (60, 128)
        ):
            job, shop = job_of(
                side, list(shape[1:-1]), batch, optimizer, given.density, Path(folder)
            )
            for members in given.members:
                same = [job] * members
                own = [
                    replace(job, order_seed=job.order_seed + number) for number in range(members)
                ]
                runs = {
                    "fused": one_by_one(same, "fused", shop),
                    "shared": at_once(same, shop),
                    "own": at_once(own, shop),
                }
                if given.density < 1:
                    runs["sparse"] = one_by_one(same, "sparse", shop)
                times = rounds(runs, given.rounds, members, 60 if side == 8 else 20)
                told = (
                    f"{'-'.join(map(str, shape)):>15} {optimizer['use']:>5} {batch:5} {members:7}"
                )
                told += f"{statistics.median(times['fused']):9.0f}"
                for way in ways:
                    ratio = statistics.median(
                        a / b for a, b in zip(times["fused"], times[way], strict=True)
                    )
                    told += f"{statistics.median(times[way]):9.0f} ({ratio:4.2f}×)"
                print(told, flush=True)


if __name__ == "__main__":
    main()
