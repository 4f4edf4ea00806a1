"""Planning is bounded: results are unknown and say so, and a search that cannot run is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.layers import make_layer
from support.recipes import changed
from support.runs import go, recipe
from support.small import DATA

from lotteryfw.api.errors import ContractError
from lotteryfw.runner import StudyContext
from lotteryfw.runner import run_study as run
from lotteryfw.runner.plan import Plan
from lotteryfw.search.guard import blame
from lotteryfw.search.jobs import Spec

PLUGIN = """
from lotteryfw import MaskCriterion, SearchAlgorithm, hookimpl


class UntilAccurate(SearchAlgorithm):
    "Prunes until the accuracy falls."
    use = "until_accurate"

    def search(self, lab):
        ticket, level = lab.dense(), 0
        while True:
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)
            if trained.metrics.test_accuracy < 2.0:
                return
            ticket, level = lab.prune(ticket, trained), level + 1


class Endless(SearchAlgorithm):
    "Never looks at a figure and never ends."
    use = "endless"

    def search(self, lab):
        ticket = lab.dense()
        while True:
            yield from lab.train(ticket)


class Broken(SearchAlgorithm):
    "Raises before it asks for anything."
    use = "broken"

    def search(self, lab):
        raise ZeroDivisionError("no search")
        yield


class Heavy(MaskCriterion):
    "Changes the weights that it is shown."
    use = "heavy"

    def score(self, layer):
        return layer.final.abs_()


@hookimpl
def register_components():
    return [UntilAccurate, Endless, Broken, Heavy]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "searches.py"
    path.write_text(PLUGIN)
    return path


def planned(tmp_path: Path, plugin: Path, **changes: Any) -> Plan:
    context = StudyContext(changed(seeds=[0], **changes), trust=[plugin], store=tmp_path / "store")
    return context.plan()


def test_a_search_that_depends_on_figures_is_planned_up_to_there(
    tmp_path: Path, plugin: Path
) -> None:
    plan = planned(tmp_path, plugin, search="until_accurate")
    assert (plan.asked, len(plan.unknown), plan.broken) == (1, 1, ())


def test_a_search_without_an_end_is_planned_up_to_a_bound(
    tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lotteryfw.runner.plan._MOST_REQUESTS", 500)
    plan = planned(tmp_path, plugin, search="endless")
    assert (plan.asked, plan.unique, len(plan.unknown)) == (501, 1, 1)


def test_a_broken_search_is_named_with_its_reason(tmp_path: Path, plugin: Path) -> None:
    plan = planned(tmp_path, plugin, search="broken")
    ((cell, fault),) = plan.broken
    assert (plan.asked, plan.unknown) == (0, ())
    assert "seed=0" in cell
    assert "search 'searches.py/broken' of" in fault
    assert "broke in search(): ZeroDivisionError: no search" in fault


def test_a_criterion_that_changes_its_input_fails_its_cell_in_a_run(
    tmp_path: Path, plugin: Path
) -> None:
    """Everything after it would compute with other values than the ones on record."""
    recipe = changed(
        seeds=[0], data=DATA, model={"use": "mlp", "hidden": [8]}, criterion="heavy",
        search={"use": "imp", "levels": 1},
        train={"length": "5it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
    )  # fmt: skip
    done = run(
        recipe, out=tmp_path / "run", store=tmp_path / "store", trust=[plugin], jobs=1, device="cpu"
    )
    assert list(done.statuses.values()) == ["failed"]
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert "score() on layer fc1.weight changed `final` in place" in events


@pytest.mark.parametrize("name", ["original", "init", "final", "rewound", "mask", "mask_before"])
def test_every_tensor_that_a_component_is_shown_is_protected(name: str) -> None:
    spec, layer = Spec("criterion", "odd", "tests==0", {}), make_layer()
    tensor = getattr(layer, name)
    expected = pytest.raises(
        ContractError, match=rf"score\(\) on layer fc1.weight changed `{name}`"
    )
    with expected, blame(spec, "score", layer):
        tensor.logical_not_() if tensor.dtype == torch.bool else tensor.zero_()


@pytest.mark.parametrize(
    ("analysis", "shared"),
    [
        ({"use": "linear_mode_connectivity", "points": 4}, 0),
        # the four lines end at one network, which shows as they are measured
        ({"use": "error_barrier", "points": 3}, 3),
        ({"use": "stability_to_data_order", "copies": 3}, 0),
        ("stability_to_pruning", 0),
        ("mask_diagnostics", 0),
    ],
    ids=str,
)
def test_the_jobs_of_analyses_are_planned(tmp_path: Path, analysis: Any, shared: int) -> None:
    """As many as the run then does, those of controls included."""
    table = recipe(analyses=[analysis], controls=["random_mask"], engine={"kernel": "reference"})
    planned = StudyContext(table, store=tmp_path / "store", data=tmp_path).plan()
    assert not planned.unknown
    _, watch = go(tmp_path, table)
    finished = {event.key: event.steps for event in watch.of("JobFinished")}
    assert planned.unique == len(finished) + shared
    assert planned.trainings == len([steps for steps in finished.values() if steps])


def test_what_a_planned_training_costs_does_not_grow_unnoticed(tmp_path: Path) -> None:
    """A plan of 250,000 trainings takes under 3 s, which allows about 30 calls for each of them.

    Calls of Python functions are counted, which other processes on the machine do not change.
    """
    rates = [number / 1000 for number in range(1, 41)]
    table = changed(seeds=[0], search={"use": "imp"}, grid={"train.optimizer.lr": rates})
    context = StudyContext(table, store=tmp_path / "store", data=tmp_path)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        planned = context.plan()
    finally:
        sys.setprofile(None)
    assert planned.trainings == 40 * 25
    # That includes what the 25 trainings of a cell share: its lab, and the digests of its components.
    assert calls / planned.trainings < 30
