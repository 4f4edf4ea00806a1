"""Forward passes of networks as they are: of tickets, between trainings, with metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import cell, engine_context, lab, make
from torch import Tensor

from lotteryfw import ContractError, Ticket, Trained, UsageError
from lotteryfw.engine import StoredOutcome, execute, spool, unspool
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Evaluate, Train
from lotteryfw.search.lab import CellLab
from lotteryfw.std.connectivity import barrier
from lotteryfw.std.metrics import NegativeLogLikelihood, TopK
from lotteryfw.store import Store

IMAGES = {"use": "synthetic", "examples": 150, "classes": 3, "shape": [3, 8, 8], "noise": 0.5}
WITH_BATCH_NORM = {"model": {"use": "resnet20", "width": 0.125}, "data": IMAGES}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Run = Callable[[Any], Any]


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(name="executed")
def _executed() -> list[str]:
    """The keys of the jobs that were computed, in order."""
    return []


@pytest.fixture(name="run")
def _run(store: Store, executed: list[str]) -> Run:
    """Answers what a search asks for by running its jobs."""
    context = engine_context()

    def run(search: Any) -> Any:
        try:
            requests = next(search)
            while True:
                for request in requests:
                    if not store.has(request.key):
                        executed.append(request.key)
                        job = request.job
                        execute([job], store, context, lambda done, of: False, lambda *_: None)
                requests = search.send([StoredOutcome(store, one.key) for one in requests])
        except StopIteration as end:
            return end.value

    return run


def two_trainings(run: Run, of: Cell) -> tuple[CellLab, Trained, Trained]:
    """One ticket trained under two data orders."""
    desk = lab(of)
    dense = desk.dense()
    first, second = run(desk.train_all([dense, desk.again(dense, order=1)]))
    return desk, first, second


def evaluation_job(desk: CellLab, network: Ticket | Trained, **options: Any) -> Evaluate:
    """The job that an evaluation asks for."""
    (request,) = next(desk.evaluate(network, **options))
    job = request.job  # type: ignore[attr-defined]
    assert isinstance(job, Evaluate)
    return job


def bits(values: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in values.items()}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_end_of_a_training_has_the_trainings_own_figures(run: Run, part: str) -> None:
    desk = lab(cell())
    trained = run(desk.train(desk.dense()))
    figures = run(desk.evaluate(trained, part))
    assert figures.loss == getattr(trained.metrics, f"{part}_loss")
    assert figures.accuracy == getattr(trained.metrics, f"{part}_accuracy")


def test_a_ticket_is_measured_at_its_values(run: Run) -> None:
    desk = lab(cell())
    ticket = desk.dense()
    untrained = run(desk.train(desk.as_is(ticket)))
    figures = run(desk.evaluate(ticket, metrics=[TopK(k=2), NegativeLogLikelihood()]))
    assert figures.loss == untrained.metrics.test_loss
    assert set(figures.metrics) == {"top_2", "nll"}
    assert figures.metrics["nll"] == pytest.approx(figures.loss, abs=1e-6)


def test_equal_networks_are_measured_once(run: Run, executed: list[str]) -> None:
    desk, first, second = two_trainings(run, cell())
    del executed[:]
    run(desk.evaluate(first))
    run(desk.evaluate(desk.interpolate(first, second, 0.0)))
    run(desk.evaluate(desk.interpolate(second, first, 1.0)))
    run(desk.evaluate(desk.at(desk.dense(), first.weights())))
    run(desk.evaluate(desk.interpolate(first, first, 0.3)))
    # Without batch norm nothing is recalibrated, so all five are one job.
    assert len(executed) == 1


@pytest.mark.parametrize("changes", [{}, WITH_BATCH_NORM], ids=["mlp", "resnet20"])
@pytest.mark.parametrize("batches", [0, 3])
def test_interpolation_ends_at_the_networks_own_figures(
    run: Run, changes: dict[str, Any], batches: int
) -> None:
    desk, first, second = two_trainings(run, cell(8, batch=16, **changes))
    line = [desk.interpolate(first, second, alpha) for alpha in (0.0, 0.5, 1.0)]
    start, middle, end = run(desk.evaluate_all(line, recalibrate_batch_norm=batches))
    assert start == run(desk.evaluate(first, recalibrate_batch_norm=batches))
    assert end == run(desk.evaluate(second, recalibrate_batch_norm=batches))
    assert start != end
    assert middle not in (start, end)


@pytest.mark.parametrize("changes", [{}, WITH_BATCH_NORM], ids=["mlp", "resnet20"])
def test_the_barrier_of_a_network_with_itself_is_0(run: Run, changes: dict[str, Any]) -> None:
    desk = lab(cell(8, batch=16, **changes))
    trained = run(desk.train(desk.dense()))
    line = [desk.interpolate(trained, trained, alpha) for alpha in (0.0, 0.25, 0.5, 0.9, 1.0)]
    figures = run(desk.evaluate_all(line))
    assert all(one == figures[0] for one in figures)


def test_a_hand_made_pair_has_the_barrier_that_one_can_compute(run: Run) -> None:
    """Between a linear classifier and its negative lies the one that gives every class 1 / 3."""
    desk = lab(cell(model={"use": "mlp", "hidden": []}))
    dense = desk.dense()
    values = {name: 10 * value for name, value in dense.values.items()}
    negative = {name: -value for name, value in values.items()}
    ends = [desk.as_is(desk.at(dense, one)) for one in (values, negative)]
    first, second = run(desk.train_all(ends, probe=False))
    losses = [
        run(desk.evaluate(desk.interpolate(first, second, alpha), "test")).loss
        for alpha in (0, 0.5, 1)
    ]
    assert losses[1] == pytest.approx(math.log(3), rel=1e-6)
    own = [run(desk.evaluate(one, "test")).loss for one in (first, second)]
    assert [losses[0], losses[2]] == own
    assert barrier(losses) == max(losses) - sum(own) / 2


def test_recalibration_changes_batch_norm_and_is_the_default_of_tickets(run: Run) -> None:
    desk, first, second = two_trainings(run, cell(8, batch=16, **WITH_BATCH_NORM))
    middle = desk.interpolate(first, second, 0.5)
    on, off = run(desk.evaluate(middle)), run(desk.evaluate(middle, recalibrate_batch_norm=0))
    assert on.loss != off.loss
    assert evaluation_job(desk, middle).recalibrate == desk.clock.steps_per_epoch
    assert evaluation_job(desk, desk.dense()).recalibrate == desk.clock.steps_per_epoch
    assert evaluation_job(desk, first).recalibrate == 0
    # Another number of batches is another job.
    keys = {evaluation_job(desk, middle, recalibrate_batch_norm=n).key for n in (0, 1, 2)}
    assert len(keys) == 3


def test_recalibrated_statistics_are_the_mean_of_the_batches_own(run: Run) -> None:
    """Of the first layer with statistics, whose inputs depend on no other statistics."""
    from torch.func import functional_call

    from lotteryfw.engine.batch_norm import BATCH_NORM, recalibrated

    desk = lab(cell(8, batch=16, **WITH_BATCH_NORM))
    job = evaluation_job(desk, desk.dense(), recalibrate_batch_norm=3)
    context = engine_context()
    dataset = context.dataset_of(job)
    module = context.network(job.model, dataset, job.objective)
    values = recalibrated(job, context, module, job.values, dataset)

    name, layer = next((n, m) for n, m in module.named_modules() if isinstance(m, BATCH_NORM))
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for step in range(3):
        inputs, _ = dataset.batch(step, job.batch, job.steps_per_epoch, job.order_seed)
        functional_call(module.eval(), dict(job.values), (inputs,))
    means = torch.stack([batch.mean((0, 2, 3)) for batch in seen]).mean(0)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in seen]).mean(0)
    assert torch.allclose(values[f"{name}.running_mean"], means, atol=1e-5)
    assert torch.allclose(values[f"{name}.running_var"], variances, atol=1e-5)
    # The ticket's own statistics are not written to.
    assert not job.values[f"{name}.running_mean"].any()


def measured_as_it_is(desk: CellLab, ticket: Ticket) -> Train:
    job = desk.job(desk.as_is(ticket))
    assert isinstance(job, Train)
    return job


def test_a_network_that_is_only_measured_has_statistics_of_its_own(run: Run) -> None:
    desk = lab(cell(8, batch=16, **WITH_BATCH_NORM))
    dense = desk.dense()
    pruned = desk.prune(dense, run(desk.train(dense)), density=0.5)
    for ticket in (dense, pruned):
        measured = run(desk.train(desk.as_is(ticket)))
        # The cell's seed is 0, and so are the seeds of a network that is only measured.
        figures = run(desk.evaluate(ticket))
        stale = run(desk.evaluate(ticket, recalibrate_batch_norm=0))
        assert measured.metrics.test_loss == figures.loss != stale.loss
        assert measured.metrics.early_test_loss == figures.loss
        # What is stored is the network that was measured.
        after = measured.weights()
        changed = {name for name in after if not torch.equal(after[name], ticket.values[name])}
        assert changed == {name for name in after if name.endswith(STATISTICS)}
        assert run(desk.evaluate(measured)).loss == figures.loss


@pytest.mark.parametrize("name", ["untrained", "reinit", "random_mask"])
def test_a_control_of_an_untrained_ticket_has_statistics_of_its_own(run: Run, name: str) -> None:
    search = {"use": "one_shot", "levels": 1, "train": False}
    desk = lab(cell(8, batch=16, search=search, **WITH_BATCH_NORM))
    run(desk.cell.search.search(desk))
    control = desk.control(make("control", name), desk.records[1])
    measured = run(desk.train(control))
    assert measured.metrics.steps == 0
    assert measured.metrics.test_loss == run(desk.evaluate(control)).loss


def test_statistics_are_in_the_key_only_where_they_are_computed_anew() -> None:
    def names(of: Cell) -> set[str]:
        desk = lab(of)
        return set(measured_as_it_is(desk, desk.dense()).source)

    plain, with_statistics = names(cell(8)), names(cell(8, batch=16, **WITH_BATCH_NORM))
    assert with_statistics - plain == {"recalibrate"}
    desk = lab(cell(8, batch=16, **WITH_BATCH_NORM))
    trained = desk.job(desk.dense())
    assert "recalibrate" not in trained.source
    job = measured_as_it_is(desk, desk.dense())
    assert job.recalibrate == desk.clock.steps_per_epoch
    assert job.key != replace(job, recalibrate=0).key


def test_a_learned_mask_that_is_measured_keeps_the_statistics_it_was_learned_with() -> None:
    desk = lab(
        cell(8, batch=16, parametrization=make("parametrization", "top_k"), **WITH_BATCH_NORM)
    )
    assert measured_as_it_is(desk, desk.learn_mask(0.5)).recalibrate == 0


def test_masked_weights_stay_where_they_are_frozen(run: Run) -> None:
    desk = lab(cell())
    dense = desk.dense()
    trained = run(desk.train(dense))
    ticket = desk.prune(dense, trained)
    moved = desk.at(ticket, {name: torch.ones_like(value) for name, value in ticket.values.items()})
    for name, mask in ticket.mask.items():
        assert bool((moved.values[name][mask] == 1).all())
        assert torch.equal(moved.values[name][~mask], ticket.values[name][~mask])
    assert moved.mask is ticket.mask
    # Equal values make equal tickets.
    same = desk.at(ticket, {name: torch.ones_like(value) for name, value in ticket.values.items()})
    assert same.origin == moved.origin != ticket.origin


def test_an_interpolation_needs_no_tensors_to_be_planned(run: Run) -> None:
    desk, first, second = two_trainings(run, cell())
    origins = set()
    for alpha in (0.0, 0.5, 1.0):
        (request,) = next(desk.evaluate(desk.interpolate(first, second, alpha)))
        origins.add(request.origin)
    assert len(origins) == 3


def test_copies_differ_in_order_and_augmentation_alone(run: Run) -> None:
    desk = lab(cell())
    ticket = desk.dense()
    own, same, other = (
        desk.job(ticket),
        desk.job(desk.again(ticket, 0)),
        desk.job(desk.again(ticket, 2)),
    )
    assert isinstance(own, Train)
    assert isinstance(other, Train)
    assert same.key == own.key
    assert desk.request(desk.again(ticket, 0)).origin == desk.request(ticket).origin
    differing = {name for name in own.source if own.source[name] != other.source[name]}
    assert differing == {"order_seed"}
    assert bits(own.values) == bits(other.values)
    first, second = run(desk.train_all([ticket, desk.again(ticket, 2)]))
    assert bits(first.weights()) != bits(second.weights())


def test_a_job_survives_the_spool(store: Store) -> None:
    desk = lab(cell(**WITH_BATCH_NORM))
    job = evaluation_job(desk, desk.dense(), metrics=[TopK(k=2)], part="train")
    again = unspool(spool(job, store), store)
    assert isinstance(again, Evaluate)
    assert again.key == job.key
    assert again.plain() == job.plain()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"part": "tests"}, "there is no part 'tests' (did you mean 'test'"),
        ({"recalibrate_batch_norm": -1}, "at least 0"),
        ({"recalibrate_batch_norm": True}, "not True"),
        ({"metrics": ["top_5"]}, "metrics are components"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(options: dict[str, Any], text: str) -> None:
    desk = lab(cell())
    with pytest.raises(UsageError) as caught:
        next(desk.evaluate(desk.dense(), **options))
    assert text in str(caught.value)


def test_weights_that_do_not_fit_are_refused_by_name(run: Run) -> None:
    desk, first, second = two_trainings(run, cell())
    with pytest.raises(ContractError, match=r"no parameter or buffer 'fc1.weigh' .*fc1.weight"):
        _ = desk.at(desk.dense(), {"fc1.weigh": torch.ones(1)}).values
    with pytest.raises(ContractError, match=r"fc1.weight has the shape \[8, 16\], not \[1\]"):
        _ = desk.at(desk.dense(), {"fc1.weight": torch.ones(1)}).values
    with pytest.raises(UsageError, match=r"alpha is a number from 0 to 1, not 1\.5"):
        desk.interpolate(first, second, 1.5)
    with pytest.raises(UsageError, match="order is an integer of at least 0, not -1"):
        desk.again(desk.dense(), -1)
