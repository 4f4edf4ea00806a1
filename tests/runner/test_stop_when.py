"""`lab.stop_when`: a training in segments that ends when a condition of its search holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import go, recipe

from lotteryfw import Run, load_ticket
from lotteryfw.api.errors import LotteryError
from lotteryfw.engine import StoredOutcome
from lotteryfw.runner.context import StudyContext
from lotteryfw.store import Store

PLUGIN = """
from lotteryfw import SearchAlgorithm, hookimpl

class Stops(SearchAlgorithm):
    "Trains the dense network until `after` segments were made, and records it."
    use = "stops"
    after: int = 2
    every: str = "10it"
    reads: str = "nothing"
    learns: bool = False
    def search(self, lab):
        dense = lab.as_is(lab.dense()) if self.learns else lab.dense()
        def enough(segments):
            if self.reads == "figures":
                _ = segments[-1].metrics.test_loss
            return len(segments) == self.after
        trained = yield from lab.stop_when(dense, enough, every=self.every)
        lab.record(0, dense, trained)
        pruned = lab.prune(dense, trained)
        after = yield from lab.train(pruned)
        lab.record(1, pruned, after)

@hookimpl
def register_components():
    return [Stops]
"""
REFERENCE = {"engine": {"kernel": "reference"}}
TRAIN = {
    "length": "40it",
    "batch": 16,
    "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": "cosine",
}


def table(tmp_path: Path, search: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], Path]:
    plugin = tmp_path / "stops.py"
    plugin.write_text(PLUGIN)
    plain: dict[str, Any] = {"plugins": [str(plugin)], "train": TRAIN, **REFERENCE}
    return recipe(search={"use": "stops", **search}, **(plain | changes)), plugin


def weights(run: Run, store: Path, level: int = 0) -> dict[str, torch.Tensor]:
    (row,) = (row for row in run.levels if (row.variant, row.level) == ("ticket", level))
    return dict(StoredOutcome(Store(store), row.key).tensors().values)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_segments_are_the_whole_training_to_the_bit(tmp_path: Path, optimizer: str) -> None:
    """Momentum, schedule and data order go on; 7 steps are no part of an epoch or of 40 steps."""
    options = {"use": optimizer, "lr": 0.05, **({"momentum": 0.9} if optimizer == "sgd" else {})}
    train = {**TRAIN, "optimizer": options}
    segments, plugin = table(tmp_path, {"after": 99, "every": "7it"}, train=train)
    done, watch = go(tmp_path, segments, "segments", trust=[plugin])
    assert len(watch.trained) == 6 + 1
    whole = recipe(search={"use": "imp", "levels": 1}, train=train, **REFERENCE)
    expected, _ = go(tmp_path, whole, "whole")
    for level in (0, 1):
        one, other = (weights(run, tmp_path / "store", level) for run in (done, expected))
        for name, value in other.items():
            assert torch.equal(one[name], value), (level, name)


def test_the_condition_ends_it_and_conditions_share_their_first_segments(tmp_path: Path) -> None:
    first, plugin = table(tmp_path, {"after": 2})
    done, watch = go(tmp_path, first, "two", trust=[plugin])
    assert len(watch.trained) == 3
    second, plugin = table(tmp_path, {"after": 3})
    _, watch = go(tmp_path, second, "three", trust=[plugin])
    # one segment more, and the training of another ticket
    assert len(watch.trained) == 2
    _, watch = go(tmp_path, first, "again", trust=[plugin])
    assert not watch.trained
    ticket = load_ticket(next((done.path / "tickets").rglob("level-01.safetensors")))
    assert ticket.density < 1


def test_workers_give_the_same_network(tmp_path: Path) -> None:
    segments, plugin = table(tmp_path, {"after": 3}, seeds=[0, 1])
    one, _ = go(tmp_path, segments, "one", trust=[plugin])
    two, _ = go(tmp_path, segments, "two", trust=[plugin], jobs=2, store=tmp_path / "other")
    losses = [[row.test_loss for row in run.levels] for run in (one, two)]
    assert losses[0] == losses[1]


def test_a_plan_ends_where_the_condition_reads_figures(tmp_path: Path) -> None:
    for reads, asked, unknown in (("nothing", 3, 0), ("figures", 1, 1)):
        segments, plugin = table(tmp_path, {"after": 2, "reads": reads})
        planned = StudyContext(segments, store=tmp_path / "s", data=tmp_path, trust=[plugin]).plan()
        assert (planned.asked, len(planned.unknown), planned.broken) == (asked, unknown, ())


@pytest.mark.parametrize(
    ("search", "changes", "message"),
    [
        ({"every": "0it"}, {}, "every is at least one step"),
        ({"learns": True}, {}, "has 0 steps whatever a condition says"),
        ({}, {"rewind": {"use": "to_step", "step": "5it"}}, "goes back to step 5 of the dense"),
    ],
)
def test_what_cannot_be_stopped_is_refused_before_any_training(
    tmp_path: Path, search: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    segments, plugin = table(tmp_path, search, **changes)
    with pytest.raises(LotteryError, match=message):
        go(tmp_path, segments, trust=[plugin])
    assert not list((tmp_path / "store").rglob("metrics.json"))
