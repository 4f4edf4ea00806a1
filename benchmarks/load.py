"""What a study of many cells costs beside its trainings: the first run, a rerun, the report.

    python benchmarks/load.py [--cells 5000] [--jobs 2]

A grid of learning rates, up to five seeds each: a dense network of 16 weights a cell and one pruned from it, each
trained for one step on made-up data, into an empty store in a temporary folder. Each phase is a process of its own, so
the peak memory is that phase's. A process's imports count: they are what a user waits for.

The first run has its trainings in worker processes (two or more), so that the processor time of the process that drives
them is the driver's alone. It is counted per training from when the recipe is read: without imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

TRAININGS = 2
"""Trainings of a cell."""
_BYTES = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in


def recipe(cells: int) -> dict[str, Any]:
    """A study of so many cells, whose trainings all differ."""
    seeds = max(count for count in range(1, 6) if cells % count == 0)
    rates = [round(1e-5 * (number + 1), 8) for number in range(cells // seeds)]
    return {
        "name": "load-benchmark",
        "seeds": list(range(seeds)),
        "data": {"use": "synthetic", "examples": 60, "classes": 2, "shape": [1, 2, 2]},
        "model": {"use": "mlp", "hidden": [2]},
        "search": {"use": "imp", "levels": TRAININGS - 1},
        "train": {"length": "1it", "batch": 8, "optimizer": {"use": "sgd", "lr": 0.1}},
        "evaluate": {"points": 1},
        "grid": {"train.optimizer.lr": rates},
    }


def run_study(folder: Path, cells: int, jobs: int) -> float:
    """Run the study, or run it again where it is finished; return the processor time from when its recipe was read."""
    from lotteryfw import run

    starts: list[float] = []
    run(
        recipe(cells), out=folder / "run", store=folder / "store", data=folder / "data", jobs=jobs, device="cpu",
        on_start=lambda stop: starts.append(time.process_time()),
    )  # fmt: skip
    return time.process_time() - starts[0]


def make_report(folder: Path, cells: int, jobs: int) -> float:
    """Write the page and the figures, and print the tables, as `lotteryfw report` does; return the processor time."""
    from lotteryfw.report import report

    report(folder / "run", show=True)
    return time.process_time()


PHASES: dict[str, Callable[[Path, int, int], float]] = {"run": run_study, "report": make_report}


def measure(phase: str, folder: Path, cells: int, jobs: int) -> None:
    """Run one phase in this process and write what it cost into the folder."""
    started = time.perf_counter()
    driving = PHASES[phase](folder, cells, jobs)
    wall = time.perf_counter() - started

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES
    cost = {"wall": wall, "cpu": time.process_time(), "driving": driving, "peak": peak}
    (folder / "cost.json").write_text(json.dumps(cost))


def cost_of(phase: str, folder: Path, cells: int, jobs: int) -> dict[str, float]:
    """Seconds (`wall`, `cpu` of the process without its workers, `driving` of them) and bytes (`peak`) of a phase."""
    command = [sys.executable, __file__, "--phase", phase, "--folder", str(folder)]
    command += ["--cells", str(cells), "--jobs", str(jobs)]
    with (folder / f"{phase}.txt").open("w") as output:
        subprocess.run(
            command, check=True, stdout=output, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    cost: dict[str, float] = json.loads((folder / "cost.json").read_text())
    return cost


def row(name: str, cost: dict[str, float], per_training: str = "") -> str:
    """A line of the table."""
    return f"{name:<10} {cost['wall']:8.1f} {cost['cpu']:8.1f} {cost['peak'] / 1e6:8.0f} {per_training:>26}"


def main() -> None:
    """Measure the phases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=5000, help="how many cells the study has")
    parser.add_argument(
        "--jobs", type=int, default=2, help="worker processes of the first run, at least 2"
    )
    parser.add_argument(
        "--keep", type=Path, help="a folder to leave the study in, instead of a temporary one"
    )
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cells < 1 or options.jobs < 2:
        parser.error("--cells must be at least 1, --jobs at least 2")
    if options.phase:
        measure(options.phase, options.folder, options.cells, options.jobs)
        return

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trainings = TRAININGS * options.cells
        print(f"{platform.machine()}, Python {platform.python_version()}, torch {version('torch')}")
        print(
            f"{options.cells:,} cells, {trainings:,} trainings of one step, {options.jobs} worker processes"
        )
        print(
            f"{'phase':<10} {'wall, s':>8} {'CPU, s':>8} {'peak, MB':>8} {'driver CPU ms / training':>26}"
        )

        first = cost_of("run", folder, options.cells, options.jobs)
        print(row("first run", first, f"{1000 * first['driving'] / trainings:.2f}"), flush=True)
        print(row("rerun", cost_of("run", folder, options.cells, options.jobs)), flush=True)
        print(row("report", cost_of("report", folder, options.cells, options.jobs)), flush=True)


if __name__ == "__main__":
    main()
