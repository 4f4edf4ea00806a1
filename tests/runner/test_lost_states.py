"""A training that diverges before a state that was to be kept has ended: nothing trains it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import Watch, recipe
from support.runs import go as run_to_its_end

from lotteryfw.runner import Run
from lotteryfw.runner import run_study as run

PLUGIN = """
from lotteryfw import SearchAlgorithm, hookimpl

class Stops(SearchAlgorithm):
    "Trains the dense network in segments."
    use = "stops"
    def search(self, lab):
        dense = lab.dense()
        trained = yield from lab.stop_when(dense, lambda segments: False, every="15it")
        lab.record(0, dense, trained)

class Keeps(SearchAlgorithm):
    "Trains the dense network, keeping two states."
    use = "keeps"
    def search(self, lab):
        dense = lab.dense()
        trained = yield from lab.train(dense, states=[5, 30])
        lab.record(0, dense, trained)

@hookimpl
def register_components():
    return [Stops, Keeps]
"""
DIVERGES = {**recipe()["train"], "optimizer": {"use": "sgd", "lr": 1e30}}
MOST_JOBS = 5
"""More jobs than any of these runs has; one that trains for ever is stopped here."""


class Bounded(Watch):
    """A listener that stops a run which trains for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.stops: list[Callable[[], None]] = []

    def event(self, event: Any) -> None:
        super().event(event)
        if len(self.trained) > MOST_JOBS:
            self.stops[0]()


def go(folder: Path, table: Any) -> tuple[Run, Watch]:
    plugin = folder / "segments.py"
    plugin.write_text(PLUGIN)
    watch = Bounded()
    done = run(
        table, out=folder / "run", store=folder / "store", data=folder, jobs=1, device="cpu",
        trust=[plugin], listener=watch, on_start=watch.stops.append,
    )  # fmt: skip
    return done, watch


@pytest.mark.parametrize(
    "changes",
    [
        # It is measured every 10 steps, so it is found to diverge at step 10.
        {"rewind": {"use": "to_step", "step": "10it"}},
        {"rewind": {"use": "to_step", "step": "25it"}},
        {"search": "stops"},
        {"search": "keeps"},
    ],
)
def test_a_training_that_diverges_before_a_state_is_trained_once(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    table = recipe(train=DIVERGES, **changes)
    done, watch = go(tmp_path, table)
    assert list(done.statuses.values()) == ["diverged"]
    assert len(watch.trained) == 1
    # the manifest names objects that are there alone
    objects = {path.name for path in (tmp_path / "store" / "objects").glob("*/*")}
    assert set(done.manifest["keys"]) <= objects
    _, again = go(tmp_path, table)
    assert not again.trained


def test_a_state_before_the_step_at_which_a_stored_training_diverged_is_made(
    tmp_path: Path,
) -> None:
    """Another recipe of the same store asks for a step that the first one passed."""
    _, first = run_to_its_end(tmp_path, recipe(train=DIVERGES), "first")
    done, second = go(tmp_path, recipe(train=DIVERGES, rewind={"use": "to_step", "step": "5it"}))
    assert first.trained == second.trained
    assert list(done.statuses.values()) == ["diverged"]
    assert len(done.manifest["keys"]) > len(second.trained)
