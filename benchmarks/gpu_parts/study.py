"""The wall time of a whole small study: the quick profile of Deconstructing Lottery Tickets, on the embedded digits."""

from __future__ import annotations

import time
from typing import Any

from lotteryfw.runner import Interrupted

from .checkout import ROOT
from .report import Report
from .studies import Troubles, go

SECONDS = 80


class Clocked(Troubles):
    """A listener that stops the run when its time is over."""

    def __init__(self) -> None:
        super().__init__()
        self._end = time.monotonic() + SECONDS
        self._steps = 0

    def progress(self, progress: Any) -> None:
        """Stop at the end of the time."""
        self._steps += 1
        if time.monotonic() > self._end:
            self._stop()


def run(report: Report) -> None:
    """One seed, on the device and, at a tiny size, wherever it is."""
    sets = [
        'data="digits"', "seeds=[0]", 'train.length="500it"', 'evaluate.every="250it"',
        'studies.supermask_learned.train.length="300it"', "studies.supermask_learned.train.batch=60",
    ]  # fmt: skip
    if report.tiny:
        sets = [
            each.replace("500it", "4it").replace("250it", "2it").replace("300it", "4it")
            for each in sets
        ]
        sets += [
            'model={use="mlp",hidden=[8]}',
            "search.levels=1",
            "studies.supermask_untrained.search.levels=1",
        ]
    with report.attempt("deconstruct", SECONDS + 40):
        listener = Clocked()
        started = time.perf_counter()
        note = ""
        done: Any = None
        try:
            recipe = ROOT / "recipes" / "deconstruct.toml"
            done = go(report, recipe, "study", report.device, listener, profile="quick", sets=sets)
        except Interrupted:
            note = "stopped, not finished; "
        seconds = time.perf_counter() - started
        note += f"{listener.finished} trainings" + (f", {len(done.levels)} levels" if done else "")
        report.add("deconstruct, quick, one seed, digits", seconds, "s", note)
