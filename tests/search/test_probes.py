"""Probes in the lab: when they are asked for, how they reach the criterion, pruning to a density."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.labs import run
from torch import Tensor

from lotteryfw.api.errors import ContractError, UsageError
from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import Layer, Need
from lotteryfw.api.probe import NetworkCriterion, Probe
from lotteryfw.api.tickets import Ticket
from lotteryfw.runner.plan import plan_cell
from lotteryfw.search.jobs import ProbeJob, Train
from lotteryfw.std.criteria import LargeFinal
from lotteryfw.std.rewind import FineTune, LearningRate, ToStep
from lotteryfw.std.scopes import Erk, Global, Layerwise
from lotteryfw.std.searches import Imp
from lotteryfw.testkit.fake_lab import FakeOutcome, make_lab

torch.set_num_threads(1)


class Steepest(MaskCriterion):
    """Keeps the weights of steepest loss."""

    use = "steepest"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer: Layer) -> Tensor:
        return layer.gradient.abs()


class Both(NetworkCriterion):
    """Needs a gradient, too."""

    use = "both"
    needs = frozenset({Need.GRADIENT, Need.PROBE})

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        raise NotImplementedError("no job of these tests is run")


class NetworkOnly(NetworkCriterion):
    """Scores whole networks."""

    use = "network_only"

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        raise NotImplementedError("no job of these tests is run")


def jobs_of(generator: Any) -> tuple[list[Any], Any]:
    """The jobs that a generator of the lab asks for, and what it returns."""
    jobs: list[Any] = []
    try:
        requests = next(generator)
        while True:
            batch = [request.job for request in requests]
            jobs += batch
            requests = generator.send([FakeOutcome(job) for job in batch])
    except StopIteration as stop:
        return jobs, stop.value


def kept(ticket: Ticket) -> int:
    return sum(ticket.cut.kept.values())


def test_a_network_criterion_gets_a_probe_after_each_training() -> None:
    lab = make_lab(criterion=NetworkOnly(), search=Imp(levels=2))
    jobs, _ = jobs_of(lab.cell.search.search(lab))
    assert [type(job) for job in jobs] == [Train, ProbeJob] * 3
    assert {job.component.use for job in jobs if isinstance(job, ProbeJob)} == {"network_only"}
    # streams differ from level to level, and only these
    labels = [job.stream_labels for job in jobs if isinstance(job, ProbeJob)]
    assert labels == [(0, level, "network_only") for level in range(3)]
    for record in lab.records:
        assert record.trained.gradient is None


def test_the_scores_of_the_network_are_those_that_prune() -> None:
    lab = make_lab(criterion=NetworkOnly())
    _, trained = jobs_of(lab.train(lab.dense()))
    ticket = lab.prune(trained.ticket, trained)
    for layer in lab.layers:
        scores, mask = trained.network_scores[layer.name], ticket.mask[layer.name]
        assert scores[mask].min() > scores[~mask].max()


def test_a_criterion_may_need_both_and_gets_each_by_its_name() -> None:
    lab = make_lab(criterion=Both())
    jobs, trained = jobs_of(lab.train(lab.dense()))
    assert [type(job) for job in jobs] == [Train, ProbeJob, ProbeJob]
    by_kind = {job.component.kind: FakeOutcome(job) for job in jobs[1:]}
    for name, gradient in trained.gradient.items():
        assert torch.equal(gradient, by_kind["probe"].tensors().values[name])
    for name, scores in trained.network_scores.items():
        assert torch.equal(scores, by_kind["criterion"].tensors().values[name])


def test_a_probe_can_be_left_out_where_nothing_is_pruned_any_more() -> None:
    lab = make_lab(criterion=NetworkOnly())
    jobs, trained = jobs_of(lab.train(lab.dense(), probe=False))
    assert [type(job) for job in jobs] == [Train]
    assert trained.network_scores is None
    jobs, _ = jobs_of(lab.train_all([lab.dense()], probe=False))
    assert [type(job) for job in jobs] == [Train]


def test_a_ticket_is_probed_as_it_is() -> None:
    lab = make_lab(criterion=NetworkOnly())
    dense = lab.dense()
    jobs, probed = jobs_of(lab.probe(dense))
    assert [type(job) for job in jobs] == [ProbeJob]
    for name, value in dense.values.items():
        assert torch.equal(jobs[0].values[name], value)
        assert torch.equal(probed.weights()[name], value)
    assert torch.equal(probed.outcome.mask()["fc1.weight"], dense.mask["fc1.weight"])
    with pytest.raises(UsageError, match=r"has no figures: nothing was trained or evaluated"):
        _ = probed.metrics
    with pytest.raises(UsageError, match="no step 3 to go back to"):
        probed.outcome.state(3)


def test_nothing_is_asked_for_a_criterion_that_needs_no_probe() -> None:
    lab = make_lab(criterion=LargeFinal())
    jobs, probed = jobs_of(lab.probe(lab.dense()))
    assert jobs == []
    ticket = lab.prune(probed.ticket, probed)
    for layer in lab.layers:
        size, mask = lab.context.initial.values[layer.name].abs(), ticket.mask[layer.name]
        assert size[mask].min() >= size[~mask].max()


def test_a_probed_ticket_is_no_level() -> None:
    lab = make_lab(criterion=LargeFinal())
    _, probed = jobs_of(lab.probe(lab.dense()))
    with pytest.raises(ContractError, match=r"records level 1 with what lab\.probe returned"):
        lab.record(1, probed.ticket, probed)


def test_probes_of_one_network_are_one_job_for_all_criteria_and_seeds_that_do_not_draw() -> None:
    """A gradient depends on the network alone, so two cells with one dense network share it."""
    gradients = []
    for scope in (Global(), Layerwise()):
        lab = make_lab(criterion=Steepest(), scope=scope)
        jobs, _ = jobs_of(lab.probe(lab.dense()))
        gradients.append(jobs[0].key)
    assert len(set(gradients)) == 1


def test_many_rounds_keep_the_tensors_of_few() -> None:
    """Each round is pruned from the last one's values, and lets go of the rounds before."""
    lab = make_lab(criterion=LargeFinal(), scope=Global())
    ticket = lab.dense()
    states = []
    for times in range(1, 40):
        _, probed = jobs_of(lab.probe(ticket))
        ticket = lab.prune(ticket, probed, density=0.9**times)
        states.append(ticket)
    # 39 derivations deep, and materialised from the last one only
    assert kept(ticket) == round(0.9**39 * sum(layer.size for layer in lab.layers))
    # a restart holds tensors of its own round, not the chain
    restart = ticket.source.state().restart
    assert restart is not None
    values = restart.values(ticket.mask)
    for name, value in values.items():
        assert torch.equal(value, ticket.values[name])


# Densities in place of rates


@pytest.mark.parametrize("scope", [Global(), Layerwise(), Erk()])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.31, 0.07])
def test_a_density_takes_the_place_of_the_rates(scope: Any, density: float) -> None:
    lab = make_lab(criterion=LargeFinal(), scope=scope)
    _, probed = jobs_of(lab.probe(lab.dense()))
    ticket = lab.prune(probed.ticket, probed, density=density)
    expected = {}
    for group in scope.at(lab.layers, density):
        expected[group.layers] = group.keep
    for names, keep in expected.items():
        assert sum(int(ticket.mask[name].sum()) for name in names) == keep
    assert ticket.cut.requested_density == pytest.approx(density)


@pytest.mark.parametrize("scope", [Global(), Layerwise(), Erk()])
def test_falling_densities_keep_what_one_cut_to_the_last_would(scope: Any) -> None:
    """Rounding must not stop a long schedule: of the layers of `erk` one may be due a weight more."""
    lab = make_lab(criterion=LargeFinal(), scope=scope)
    whole = ticket = lab.dense()
    _, probed = jobs_of(lab.probe(whole))
    for round_number in range(1, 101):
        _, last = jobs_of(lab.probe(ticket))
        ticket = lab.prune(ticket, last, density=0.02 ** (round_number / 100))
    once = lab.prune(whole, probed, density=0.02)
    assert abs(kept(ticket) - kept(once)) <= len(lab.layers)
    assert lab.layers[0].name in ticket.cut.kept


def test_a_density_above_what_is_left_is_refused_with_numbers() -> None:
    lab = make_lab(criterion=LargeFinal(), scope=Layerwise())
    _, probed = jobs_of(lab.probe(lab.dense()))
    sparse = lab.prune(probed.ticket, probed, density=0.25)
    _, last = jobs_of(lab.probe(sparse))
    dense_again = lab.prune(sparse, last, density=0.5)
    message = (
        r"density 0\.5 keeps 40 of the 80 weights of fc1\.weight, of which only 20 are left: "
        r"pruned weights do not come back, so the density can be 0\.25 at most"
    )
    with pytest.raises(UsageError, match=message):
        dense_again.source.kept_by_budgets()
    with pytest.raises(UsageError, match=message):
        _ = dense_again.mask


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, float("nan")])
def test_a_density_is_above_0_and_1_at_most(density: float) -> None:
    lab = make_lab(criterion=LargeFinal())
    _, probed = jobs_of(lab.probe(lab.dense()))
    with pytest.raises(UsageError, match=r"lab\.prune\(density=.*\): a density is above 0"):
        lab.prune(probed.ticket, probed, density=density)


# Scores computed elsewhere


def test_scores_computed_elsewhere_decide_and_are_in_the_digest() -> None:
    lab = make_lab(criterion=NetworkOnly())
    trained = run(lab.train(lab.dense(), probe=False))
    scores = {layer.name: torch.rand(layer.shape) for layer in lab.layers}
    ticket = lab.prune(trained.ticket, trained, scores=scores)
    for name, score in scores.items():
        assert score[ticket.mask[name]].min() > score[~ticket.mask[name]].max()
    again = lab.prune(trained.ticket, trained, scores=dict(scores))
    other = lab.prune(trained.ticket, trained, scores={n: -s for n, s in scores.items()})
    assert ticket.origin == again.origin != other.origin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc1.weight": None}, "lacks layer fc1.weight"),
        ({"fc9": torch.ones(1)}, "names no layer of the network: fc9"),
        ({"fc1.weight": torch.ones(3)}, r"fc1.weight returned shape \[3\]"),
        ({"fc1.weight": torch.ones(10, 8, dtype=torch.long)}, "returned dtype torch.int64"),
    ],
)
def test_unusable_scores_are_refused(change: dict[str, Any], message: str) -> None:
    lab = make_lab(criterion=LargeFinal())
    _, probed = jobs_of(lab.probe(lab.dense()))
    scores = {layer.name: torch.rand(layer.shape) for layer in lab.layers} | change
    scores = {name: score for name, score in scores.items() if score is not None}
    with pytest.raises(ContractError, match=message):
        lab.prune(probed.ticket, probed, scores=scores)


# Rewinding


@pytest.mark.parametrize("rewind", [ToStep(step="5it"), FineTune(length="5it")])
def test_nothing_can_be_rewound_to_where_nothing_was_trained(rewind: Any) -> None:
    lab = make_lab(criterion=LargeFinal(), rewind=rewind)
    _, probed = jobs_of(lab.probe(lab.dense()))
    with pytest.raises(UsageError, match=r"goes back to step \d+ of a training, .* \"to_init\""):
        lab.prune(probed.ticket, probed)


def test_a_policy_that_rewinds_nothing_but_the_schedule_leaves_the_initial_weights() -> None:
    lab = make_lab(criterion=LargeFinal(), rewind=LearningRate())
    _, probed = jobs_of(lab.probe(lab.dense()))
    ticket = lab.prune(probed.ticket, probed, density=0.5)
    for name, mask in ticket.mask.items():
        assert torch.equal(ticket.values[name], lab.context.initial.values[name] * mask)


def test_a_pruned_ticket_of_a_training_may_be_probed_and_pruned_on() -> None:
    """It goes back to the dense training, as every round of it does."""
    lab = make_lab(criterion=NetworkOnly(), rewind=ToStep(step="5it"))
    trained = run(lab.train(lab.dense()))
    ticket = lab.prune(trained.ticket, trained, density=0.5)
    probed = run(lab.probe(ticket))
    again = lab.prune(ticket, probed, density=0.25)
    assert again.root is trained
    rewound = trained.outcome.state(5)[0].values
    for name, mask in again.mask.items():
        assert torch.equal(again.values[name], rewound[name] * mask)


def test_probes_are_planned_without_tensors() -> None:
    planned = plan_cell(make_lab(criterion=LargeFinal(), search=Imp(levels=2)))
    assert [request.kind for request in planned.requests] == ["training"] * 3
    planned = plan_cell(make_lab(criterion=NetworkOnly(), search=Imp(levels=2)))
    assert [request.kind for request in planned.requests] == ["training", "probe"] * 3
    assert [request.steps for request in planned.requests] == [1000, 0] * 3
