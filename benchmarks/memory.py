"""The memory of each process of a study, and what a network costs.

    python benchmarks/memory.py [--steps 400] [--jobs 2]

First a study of LeNet-300-100 on MNIST in worker processes, looked at in /proc ten times a second (Linux): the largest
resident set of each process; the part that is its own, with what it shares counted once over those who share it (PSS);
and of the decoded data set, the bytes mapped and the bytes copied by the process. Then one process for each network on
data of its shape: the resident set when torch is loaded, and the largest while it trains, batch 60, and is measured.
Needs MNIST in $LOTTERYFW_DATA (`lotteryfw data fetch mnist`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lotteryfw.runner import run_study as run

MODELS = {"lenet_300_100": [1, 28, 28], "conv2": [3, 32, 32], "conv4": [3, 32, 32]}
DATA_SET = "splits.safetensors"


class Watch(threading.Thread):
    """Keeps the largest figures of this process and of its children, in bytes, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._done = threading.Event()

    def run(self) -> None:
        """Looks ten times a second."""
        while not self._done.wait(0.1):
            me = os.getpid()
            children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
            for process in (me, *map(int, children)):
                for name, size in figures(process).items():
                    self.largest[process][name] = max(self.largest[process][name], size)

    def stop(self) -> dict[int, dict[str, int]]:
        """The figures by process."""
        self._done.set()
        self.join()
        return self.largest


def figures(process: int) -> dict[str, int]:
    """Bytes that a process has now; none of a process that is gone."""
    folder = Path(f"/proc/{process}")
    try:
        whole = (folder / "status").read_text() + (folder / "smaps_rollup").read_text()
        # a mapping's head ends with its file's name; its figures follow, up to the next head
        parts = re.findall(rf"{DATA_SET}\n((?:\w+: .*\n)+)", (folder / "smaps").read_text())
    except OSError:
        return {}
    mapped = "".join(parts)
    return {
        "peak": kilobytes("VmHWM", whole),
        "pss": kilobytes("Pss", whole),
        "mapped": kilobytes("Rss", mapped),
        "copied": kilobytes("Private_Dirty", mapped),
    }


def kilobytes(name: str, text: str) -> int:
    """The sum of a figure over a text of /proc, in bytes."""
    return 1024 * sum(map(int, re.findall(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)))


def recipe(model: str, data: Any, **changes: Any) -> dict[str, Any]:
    """A dense level and a cut one."""
    return {
        "name": "memory-benchmark",
        "data": data,
        "model": model,
        "search": {"use": "imp", "levels": 1},
        "train": {"length": "4it", "batch": 60, "optimizer": {"use": "adam", "lr": 1e-3}},
        "evaluate": {"points": 2},
    } | changes


def study(steps: int, jobs: int) -> None:
    """Prints the processes of a study of a chain for each job."""
    table = recipe(
        "lenet_300_100", "mnist", seeds=list(range(jobs)), search={"use": "imp", "levels": 8}
    )
    table["train"] |= {"length": f"{steps}it"}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(
            table | {"search": {"use": "imp", "levels": 0}, "seeds": [99]},
            out=place / "first",
            store=place,
            jobs=1,
        )
        size = sum(file.stat().st_size for file in place.rglob(DATA_SET))
        command = [
            sys.executable,
            __file__,
            "--study",
            json.dumps(table),
            "--jobs",
            str(jobs),
            "--folder",
            folder,
        ]
        told = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[
                -1
            ]
        )
    print(
        f"LeNet-300-100 on MNIST, {jobs} worker processes; the decoded data set has {size / 1e6:.0f} MB; MB"
    )
    print(
        f"  {'':<12}{'peak resident':>14}{'PSS':>8}{'of it the data set: mapped':>28}{'copied':>8}"
    )
    for name, each in told.items():
        print(
            f"  {name:<12}"
            + "".join(f"{each[key] / 1e6:>{width}.0f}" for key, width in COLUMNS.items())
        )


COLUMNS = {"peak": 14, "pss": 8, "mapped": 28, "copied": 8}


def watched(table: dict[str, Any], folder: Path, jobs: int) -> dict[str, dict[str, int]]:
    """The figures of this process and its workers while it runs a study."""
    watch = Watch()
    watch.start()
    run(table, out=folder / "run", store=folder, jobs=jobs, device="cpu")
    workers = watch.stop()
    here = workers.pop(os.getpid())
    return {
        "main": here,
        **{f"worker {place}": each for place, each in enumerate(workers.values(), 1)},
    }


def network(model: str) -> tuple[int, int]:
    """Bytes of a process when torch is loaded, and at most while it trains and measures a network."""
    import torch

    torch.set_num_threads(1)
    before = figures(os.getpid())["peak"]
    data = {"use": "synthetic", "examples": 5000, "shape": MODELS[model]}
    with tempfile.TemporaryDirectory() as folder:
        run(
            recipe(model, data),
            out=Path(folder) / "run",
            store=Path(folder) / "store",
            jobs=1,
            device="cpu",
        )
    return before, figures(os.getpid())["peak"]


def main() -> None:
    """Measures and prints."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--steps", type=int, default=400)
    asked.add_argument("--jobs", type=int, default=2)
    for hidden in ("--study", "--folder", "--network"):
        asked.add_argument(hidden, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.study:
        print(json.dumps(watched(json.loads(given.study), Path(given.folder), given.jobs)))
        return
    if given.network:
        print(json.dumps(network(given.network)))
        return
    print(f"{platform.machine()}, torch {version('torch')}")
    study(given.steps, given.jobs)
    print("one process, a network each, 5,000 examples, batch 60; MB")
    print(f"  {'':<16}{'with torch':>12}{'at most':>10}{'for the network':>18}")
    for model in MODELS:
        told = subprocess.run(
            [sys.executable, __file__, "--network", model],
            check=True,
            capture_output=True,
            text=True,
        )
        before, most = json.loads(told.stdout.splitlines()[-1])
        print(
            f"  {model:<16}{before / 1e6:>12.0f}{most / 1e6:>10.0f}{(most - before) / 1e6:>18.0f}"
        )


if __name__ == "__main__":
    main()
