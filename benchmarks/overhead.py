"""What a study of short levels costs beside its steps, part by part.

    python benchmarks/overhead.py [--steps 500] [--levels 24] [--repeats 3]

LeNet-300-100 on MNIST, batch 128, SGD 0.1, 20 % a level, in one process of one thread into an empty store: events,
progress, curves, search and store around every step. Prints the seconds of each part of one `lotteryfw.run`, nested
parts counted once, and its share of the steps' seconds: for a chain of levels that get sparser and so cheaper, and for
as many dense trainings; with as many measurements a training as a recipe has by default, and with one. Medians of the
repeats, variants in turn. Needs MNIST in $LOTTERYFW_DATA (`lotteryfw data fetch mnist`).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lotteryfw.engine import configure_torch, train
from lotteryfw.recipe.schema import POINTS
from lotteryfw.runner import cells, executors, recorder, reporter
from lotteryfw.runner import run_study as run

STEPS, EVALUATION = "steps", "evaluation"
WATCHED = {
    EVALUATION: [(train.Training, "metrics")],
    "curves, progress, best weights": [(train.Training, "count"), (train.TrainingGroup, "update")],
    "kernel made ready": [(train.TrainingGroup, "__init__")],
    "store": [(executors.InProcess, "wait"), (recorder.RunRecorder, "ticket")],
    "events, tables, manifest": [
        (reporter.Reporter, "event"),
        (recorder.RunRecorder, "level"),
        (recorder.RunRecorder, "write"),
    ],
    "cut, keys of jobs": [(cells.CellRun, "advance")],
}
"""Parts, and the functions whose time they are, as far as no other part is called from there."""
REST = "recipe, plan, first weights"


class Ledger:
    """Seconds by part. While a watched function runs, its part pays; what it calls that is watched too pays itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._paying = [REST]
        self._since = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._paying[-1]] += now - self._since
        self._since = now

    def watched(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function, its time put down to a part."""

        @wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            self._turn()
            self._paying.append(part)
            try:
                return function(*given, **named)
            finally:
                self._turn()
                self._paying.pop()

        return timed

    def close(self) -> dict[str, float]:
        """The seconds so far; the next count starts from zero."""
        self._turn()
        found, self.seconds = self.seconds, defaultdict(float)
        return found


def watch_everything() -> Ledger:
    """Puts a ledger into the framework: for this process only."""
    ledger = Ledger()
    for part, places in WATCHED.items():
        for owner, name in places:
            setattr(owner, name, ledger.watched(getattr(owner, name), part))
    made = train.make_kernel

    def make_kernel(*given: Any) -> Any:
        kernel = made(*given)
        kernel.update = ledger.watched(kernel.update, STEPS)
        for member in kernel.members:
            member.evaluate = ledger.watched(member.evaluate, EVALUATION)
        return kernel

    train.make_kernel = make_kernel
    return ledger


def recipe(steps: int, points: int, levels: int, seeds: int) -> dict[str, Any]:
    """A chain of iterative magnitude pruning for each seed."""
    return {
        "name": "overhead-benchmark",
        "seeds": list(range(1, seeds + 1)),
        "data": "mnist",
        "model": "lenet_300_100",
        "search": {"use": "imp", "levels": levels},
        "scope": {"use": "layerwise", "rate": 0.2, "output_rate": 0.1},
        "train": {"length": f"{steps}it", "batch": 128, "optimizer": {"use": "sgd", "lr": 0.1}},
        "evaluate": {"points": points},
    }


def measured(ledger: Ledger, table: dict[str, Any]) -> dict[str, float]:
    """Seconds by part of one run into an empty store, whose data set is decoded already."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        first = table | {
            "seeds": [0],
            "train": table["train"] | {"length": "1it"},
        }  # compiles, decodes the data set
        run(first, out=place / "first", store=place / "store", jobs=1, device="cpu")
        ledger.close()
        run(table, out=place / "run", store=place / "store", jobs=1, device="cpu")
        return ledger.close()


def main() -> None:
    """Measures and prints."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--steps", type=int, default=500)
    asked.add_argument("--levels", type=int, default=24)
    asked.add_argument("--repeats", type=int, default=3)
    given = asked.parse_args()
    configure_torch()
    ledger = watch_everything()
    variants = {
        f"{kind}, {points} points": recipe(given.steps, points, levels, seeds)
        for kind, levels, seeds in (("dense", 0, given.levels + 1), ("one chain", given.levels, 1))
        for points in (1, POINTS)
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(given.repeats):
        for name, table in variants.items():
            runs[name].append(measured(ledger, table))
    parts = [STEPS, EVALUATION, *(part for part in WATCHED if part != EVALUATION), REST]
    machine = f"{platform.machine()}, torch {version('torch')}, one thread"
    print(f"{machine}; {given.levels + 1} trainings of {given.steps} steps")
    print("seconds (share of the steps' seconds)")
    print(f"{'':<32}" + "".join(f"{name:>26}" for name in variants))
    middle = {
        name: {part: statistics.median(each[part] for each in found) for part in parts}
        for name, found in runs.items()
    }
    for part in parts:
        shares = (f"{each[part]:.2f} ({each[part] / each[STEPS]:6.1%})" for each in middle.values())
        print(f"{part:<32}" + "".join(f"{share:>26}" for share in shares))
    beside = (
        sum(value for part, value in each.items() if part not in (STEPS, EVALUATION)) / each[STEPS]
        for each in middle.values()
    )
    print(f"{'all but steps and evaluation':<32}" + "".join(f"{share:>26.1%}" for share in beside))


if __name__ == "__main__":
    main()
