"""Networks in the middle of a training: `lab.train(ticket, states=…)` and `Trained.state(step)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.small import cell, dense_job, engine_context, execute_one, lab

from lotteryfw import UsageError
from lotteryfw.engine import StoredOutcome, execute
from lotteryfw.engine.outcomes import is_stored
from lotteryfw.search.jobs import Train
from lotteryfw.store import Store

Run = Callable[[Any], Any]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    """Answers what a search asks for by running its jobs."""
    store, context = Store(tmp_path / "store"), engine_context()

    def run(search: Any) -> Any:
        try:
            requests = next(search)
            while True:
                for request in requests:
                    if not is_stored(request.job, store):
                        execute([request.job], store, context, lambda done, of: False, _ignore)
                requests = search.send([StoredOutcome(store, one.key) for one in requests])
        except StopIteration as end:
            return end.value

    return run


def _ignore(key: str, warning: str | None) -> None: ...


def bits(values: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in values.items()}


def test_a_state_is_the_end_of_a_shorter_training(run: Run) -> None:
    desk = lab(cell(20))
    dense = desk.dense()
    trained = run(desk.train(dense, states=[5, 12]))
    for step in (5, 12):
        shorter = replace(dense, point=replace(dense.point, steps=step))
        assert bits(trained.state(step)) == bits(run(desk.train(shorter)).weights())
    assert bits(trained.state(5)) != bits(trained.state(12))


def test_a_finished_training_is_asked_for_further_states(run: Run) -> None:
    """The key is the same, so that what is stored is completed."""
    desk = lab(cell(20))
    plain = run(desk.train(desk.dense()))
    again = run(desk.train(desk.dense(), states=[7]))
    assert again.outcome.key == plain.outcome.key
    assert bits(again.weights()) == bits(plain.weights())
    with pytest.raises(UsageError, match=r"these steps are kept: none; name it"):
        plain.state(7)
    with pytest.raises(UsageError, match=r"these steps are kept: 7; name it"):
        again.state(8)
    assert again.state(7).keys() == again.weights().keys()


def test_states_of_a_rewound_ticket_count_from_the_dense_run(run: Run) -> None:
    desk = lab(cell(20, rewind={"use": "to_step", "step": "5it"}))
    dense = desk.dense()
    ticket = desk.prune(dense, run(desk.train(dense)))
    (request,) = next(desk.train(ticket, states=[6]))  # type: ignore[arg-type]
    job = request.job  # type: ignore[attr-defined]
    assert isinstance(job, Train)
    assert (job.start, 6 in job.snapshots) == (5, True)
    with pytest.raises(UsageError, match=r"passes the steps 6 to 20, not 5"):
        next(desk.train(ticket, states=[5]))


@pytest.mark.parametrize("step", [0, 21, -1, 2.5, True])
def test_a_step_that_the_training_does_not_pass_is_refused(step: Any) -> None:
    desk = lab(cell(20))
    with pytest.raises(UsageError, match=r"imp' of .*passes the steps 1 to 20, not "):
        next(desk.train(desk.dense(), states=[step]))


def test_a_training_that_diverged_has_all_states_that_it_can_have(tmp_path: Path) -> None:
    """It is measured every 5 steps, and is found to diverge at step 5."""
    store = Store(tmp_path / "store")
    job = dense_job(cell(20, optimizer={"use": "sgd", "lr": 1e30}))
    execute_one(job, store, engine_context(), lambda done, of: False)
    assert StoredOutcome(store, job.key).diverged_at == 5
    for steps, expected in (
        ([], True),
        ([5], True),
        ([10, 20], True),
        ([4], False),
        ([4, 9], False),
    ):
        assert is_stored(replace(job, snapshots=frozenset(steps)), store) is expected
    execute_one(
        replace(job, snapshots=frozenset([4, 9])), store, engine_context(), lambda done, of: False
    )
    assert is_stored(replace(job, snapshots=frozenset([4, 9])), store)

    # the outcome alone says that it diverged
    outcome = store.path(job.key)
    assert outcome is not None
    (outcome / "outcome.json").write_bytes(b"x" * (outcome / "outcome.json").stat().st_size)
    assert not is_stored(replace(job, snapshots=frozenset([9])), Store(store.root))
