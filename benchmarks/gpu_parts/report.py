"""Rows of figures: printed as they come, kept in a JSON file after every row, and as one table at the end."""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure. `value` is a number, or text such as "pass"."""

    part: str
    what: str
    value: float | str
    unit: str = ""
    note: str = ""

    def __str__(self) -> str:
        value = f"{self.value:.4g}" if isinstance(self.value, float | int) else str(self.value)
        return f"{self.part:<10} {self.what:<44} {value:>9} {self.unit:<8} {self.note}".rstrip()


@dataclass
class Report:
    """What the parts write to, and what they have to know: the device, the size, a folder of their own."""

    device: str
    tiny: bool
    folder: Path
    path: Path | None = None
    rows: list[Row] = field(default_factory=list)
    part: str = ""

    def __post_init__(self) -> None:
        """Go on with what earlier parts left in the file."""
        self.read()

    def read(self) -> None:
        """Take the rows that are in the file."""
        if self.path is not None and self.path.is_file():
            self.rows = [Row(**row) for row in json.loads(self.path.read_text())]

    def rate(self, label: str) -> float:
        """A limit that the part `device` measured: operations or bytes a second; NaN where it was not run."""
        for row in self.rows:
            if row.part == "device" and row.what == label:
                return float(row.value) * 1e12
        return nan

    def add(self, what: str, value: float | str, unit: str = "", note: str = "") -> None:
        """Record a figure."""
        row = Row(self.part, what, value, unit, note)
        self.rows.append(row)
        print(row, flush=True)
        self.flush()

    def flush(self) -> None:
        """Write what there is, so that a run that is killed leaves it."""
        if self.path is not None:
            self.path.write_text(json.dumps([asdict(row) for row in self.rows], indent=1))

    @contextmanager
    def attempt(self, what: str, seconds: int = 120) -> Iterator[None]:
        """Run a block; where it raises, or takes longer, print the traceback, record a row and go on."""
        started = time.perf_counter()
        try:
            with limit(seconds):
                yield
        except Exception as error:
            traceback.print_exc()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.add(
                what, "FAILED", note=f"{text[:300]} (after {time.perf_counter() - started:.1f} s)"
            )
        finally:
            free_memory(self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def seconds_per_call(
        self, call: Callable[[], Any], seconds: float = 1.0, rounds: int = 3
    ) -> float:
        """Return the median over the rounds of the mean time of a call, host and device, in seconds.

        As many calls make a round as fit into its share of `seconds`; each round begins and ends with the device idle.
        """
        seconds = 0.01 if self.tiny else seconds
        for _ in range(2 if self.tiny else 5):
            call()

        started, calls = time.perf_counter(), 0
        self.synchronize()
        while calls < 1 or (time.perf_counter() - started < seconds / 10 and calls < 1000):
            call()
            calls += 1
        self.synchronize()
        each = (time.perf_counter() - started) / calls
        count = 1 if self.tiny else max(3, int(seconds / rounds / each))

        times = []
        for _ in range(1 if self.tiny else rounds):
            self.synchronize()
            started = time.perf_counter()
            for _ in range(count):
                call()
            self.synchronize()
            times.append((time.perf_counter() - started) / count)
        return median(times)


_deadlines: list[float] = []
"""When the blocks that have a limit must be done, outermost first."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer, or outlasts a limit around it."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done within its limit of {seconds} s, or within that of its part")

    before = signal.signal(signal.SIGALRM, ring)
    _deadlines.append(min([time.monotonic() + seconds, *_deadlines]))
    _set_alarm()
    try:
        yield
    finally:
        _deadlines.pop()
        signal.signal(signal.SIGALRM, before)
        _set_alarm()


def _set_alarm() -> None:
    """Ring at the innermost deadline; not at all where there is none."""
    left = max(0.01, _deadlines[-1] - time.monotonic()) if _deadlines else 0.0
    signal.setitimer(signal.ITIMER_REAL, left)


def free_memory(device: str) -> None:
    """Give cached device memory back, so that one part's leftovers are no other's trouble."""
    import gc

    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
