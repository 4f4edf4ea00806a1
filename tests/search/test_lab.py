"""How a lab puts tickets, jobs and controls together. Nothing is trained: outcomes are made up on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.labs import played, run
from support.mask_updates import FILE
from support.small import DATA, REGISTRY, cell, describe, lab, make
from torch import Tensor, nn

from lotteryfw import (
    Clock,
    ContractError,
    Group,
    Initialiser,
    Layer,
    Mask0Action,
    Mask1Action,
    MaskCriterion,
    ModelFamily,
    Need,
    Scope,
)
from lotteryfw.api.component import Component
from lotteryfw.api.errors import PluginError
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.registry import Registry
from lotteryfw.search.jobs import ProbeJob, Spec
from lotteryfw.search.lab import CellLab
from lotteryfw.search.randomness import Randomness
from lotteryfw.testkit.fake_lab import FakeOutcome


def trained(desk: CellLab, ticket: Ticket) -> Trained:
    return run(desk.train(ticket))


def bits(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def layer_names(desk: CellLab) -> list[str]:
    return [layer.name for layer in desk.layers]


# Where rounds start


def test_rewinding_to_zero_starts_from_the_initialisation_with_zeros_where_masked() -> None:
    desk = lab(cell())
    dense = desk.dense()
    ticket = desk.prune(dense, trained(desk, dense))
    for name, value in ticket.values.items():
        mask = ticket.mask.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, dense.values[name].where(mask, torch.zeros(())))
    assert (ticket.level, ticket.point.schedule, ticket.optimizer) == (1, 0, None)
    assert desk.job(ticket).steps == 20


def test_the_mask_is_the_criterions_and_the_scopes() -> None:
    desk = lab(cell(scope={"use": "layerwise", "rate": 0.5, "output_rate": 0.25}))
    dense = desk.dense()
    after = trained(desk, dense)
    ticket = desk.prune(dense, after)
    for layer in desk.layers:
        removed = round((0.25 if layer.is_output else 0.5) * layer.size)
        order = after.weights()[layer.name].abs().flatten().argsort()
        expected = torch.ones(layer.size, dtype=torch.bool)
        expected[order[:removed]] = False
        assert torch.equal(ticket.mask[layer.name].flatten(), expected)
    assert ticket.cut is not None
    assert ticket.cut.kept == {name: int(mask.sum()) for name, mask in ticket.mask.items()}
    assert ticket.cut.sizes == {layer.name: layer.size for layer in desk.layers}


def test_rewinding_to_a_step_takes_the_dense_runs_weights_of_that_step_at_every_level() -> None:
    desk = lab(cell(rewind={"use": "to_step", "step": "5it"}))
    records = played(desk)
    state = records[0].trained.outcome.state(5)[0].values
    for record in records[1:]:
        for name, mask in record.ticket.mask.items():
            assert torch.equal(record.ticket.values[name], state[name].where(mask, torch.zeros(())))
        assert torch.equal(record.ticket.values["fc1.bias"], state["fc1.bias"])
        job = desk.job(record.ticket)
        assert (job.start, job.steps, job.optimizer_state) == (5, 15, None)


def test_a_saved_optimizer_state_is_that_of_the_dense_run_at_the_step() -> None:
    desk = lab(cell(rewind={"use": "to_step", "step": "5it", "optimizer": "saved"}))
    records = played(desk)
    _, state = records[0].trained.outcome.state(5)
    for record in records[1:]:
        assert bits(desk.job(record.ticket).optimizer_state or {}) == bits(state)


def test_rewinding_to_the_latest_weights_goes_on_from_the_round_before() -> None:
    desk = lab(cell(rewind={"use": "fine_tune", "length": "7it"}))
    records = played(desk)
    for before, after in pairwise(records):
        weights = before.trained.weights()
        for name, mask in after.ticket.mask.items():
            assert torch.equal(
                after.ticket.values[name], weights[name].where(mask, torch.zeros(()))
            )
        job = desk.job(after.ticket)
        assert (job.start, job.steps) == (20, 7)


def test_pruning_a_dense_network_that_took_no_step_is_the_searchs_mistake() -> None:
    desk = lab(cell(rewind={"use": "to_step", "step": "5it"}))
    measured = desk.as_is(desk.dense())
    after = trained(desk, measured)
    with pytest.raises(
        PluginError, match=r"search 'lotteryfw/imp' of .* no step 5 to rewind to: train lab.dense"
    ):
        _ = desk.prune(measured, after).values


def test_two_chains_in_one_lab_rewind_to_their_own_dense_runs() -> None:
    """A second dense training once took over the rewinding of the first."""

    def chain(desk: CellLab, scale: float) -> Ticket:
        dense = desk.dense()
        moved = {name: value * scale for name, value in dense.values.items()}
        return desk.ticket(dense, values=moved)

    desk = lab(cell(rewind={"use": "to_step", "step": "5it"}))
    starts = [chain(desk, scale) for scale in (1.0, 2.0)]
    dense_runs = [trained(desk, start) for start in starts]
    tickets = [desk.prune(start, run) for start, run in zip(starts, dense_runs, strict=True)]
    for ticket, dense_run in zip(tickets, dense_runs, strict=True):
        state = dense_run.outcome.state(5)[0].values
        for name, mask in ticket.mask.items():
            assert torch.equal(ticket.values[name], state[name].where(mask, torch.zeros(())))
    assert not torch.equal(tickets[0].values["fc1.bias"], tickets[1].values["fc1.bias"])


def test_a_dense_network_that_is_measured_first_keeps_no_state_and_leaves_rewinding_alone() -> None:
    """Measuring it once asked for a state that no step reaches, and never ended."""
    desk = lab(cell(rewind={"use": "to_step", "step": "5it"}))
    dense = desk.dense()
    measured = desk.as_is(dense)
    assert desk.request(measured).snapshots == frozenset()
    trained(desk, measured)
    after = trained(desk, dense)
    ticket = desk.prune(dense, after)
    state = after.outcome.state(5)[0].values
    assert torch.equal(ticket.values["fc1.bias"], state["fc1.bias"])


class Normed(ModelFamily):
    """A small network with batch norm."""

    use = "normed"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, classes)
        )


def bare_lab(**parts: Component) -> CellLab:
    """The lab of a cell with these components, which no plugin needs to offer."""

    def describe(component: Component, clock: Clock) -> Spec:
        name = component.use or type(component).__name__.lower()
        return Spec(component.kind, name, "tests==0", component.options(clock))

    return CellLab(replace(cell(), **parts), describe, Path("unused"), "cpu")


@pytest.mark.parametrize("buffers", ["rewound", "latest"])
def test_buffers_are_rewound_or_kept_as_the_policy_says(buffers: str) -> None:
    desk = bare_lab(
        rewind=make("rewind", {"use": "to_step", "step": 5, "buffers": buffers}), model=Normed()
    )
    records = played(desk)
    ticket = records[2].ticket
    state = records[0].trained.outcome.state(5)[0].values
    latest = records[1].trained.weights()
    assert not torch.equal(state["2.running_mean"], latest["2.running_mean"])
    expected = latest if buffers == "latest" else state
    assert torch.equal(ticket.values["2.running_mean"], expected["2.running_mean"])
    assert torch.equal(ticket.values["2.weight"], state["2.weight"])


# Actions


class Sevens(Mask1Action):
    """Kept weights are 7."""

    def kept_values(self, layer: Layer) -> Tensor:
        return torch.full(layer.info.shape, 7.0)


class Levels(Mask0Action):
    """Masked weights are frozen at minus the number of weights that were alive."""

    def masked_values(self, layer: Layer) -> Tensor:
        return layer.init.masked_fill(layer.cut, -float(layer.mask_before.sum()))


class LevelsAndDoubled(Levels):
    """So they are, and the kept ones are doubled."""

    def kept(self, layer: Layer, alive: Tensor) -> Tensor:
        return alive * 2


@pytest.mark.parametrize(("mask0", "kept"), [(Levels(), 7.0), (LevelsAndDoubled(), 14.0)])
def test_values_are_mask1s_where_alive_and_mask0s_where_dead(
    mask0: Mask0Action, kept: float
) -> None:
    desk = bare_lab(mask1=Sevens(), mask0=mask0)
    records = played(desk)
    for name in layer_names(desk):
        first, second = (record.ticket.mask[name] for record in records[1:])
        value = records[2].ticket.values[name]
        assert (value[second] == kept).all()
        assert (value[first & ~second] == -first.sum()).all()
        assert (value[~first] == -first.numel()).all()


# Streams


def content(ticket: Ticket) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return bits(ticket.values), bits(ticket.mask)


RANDOM = {"criterion": "random", "mask1": "reinit", "mask0": "init_zero_reshuffle"}


def test_one_seed_gives_one_set_of_bits_whatever_else_was_drawn() -> None:
    first = [content(record.ticket) for record in played(lab(cell(**RANDOM)))]
    torch.rand(3)
    assert [content(record.ticket) for record in played(lab(cell(**RANDOM)))] == first


def test_seeds_and_levels_draw_apart() -> None:
    desk, other = lab(cell(**RANDOM)), lab(cell(seed=1, **RANDOM))
    here, there = played(desk), played(other)
    for name in layer_names(desk):
        assert not torch.equal(here[0].ticket.values[name], there[0].ticket.values[name])
        one, two = here[1].ticket, here[2].ticket
        assert not torch.equal(one.mask[name], there[1].ticket.mask[name])
        both = one.mask[name] & two.mask[name]
        assert not torch.equal(one.values[name][both], two.values[name][both])
    assert desk.job(desk.dense()).order_seed != other.job(other.dense()).order_seed


def test_the_lab_leaves_torchs_global_stream_alone() -> None:
    before = torch.get_rng_state()
    played(lab(cell(**RANDOM)))
    assert torch.equal(torch.get_rng_state(), before)


# Controls


@pytest.mark.parametrize(
    "scope", [{"use": "layerwise", "rate": 0.4}, {"use": "global", "rate": 0.4}]
)
@pytest.mark.parametrize("name", ["reinit", "random_mask", "random_mask_reinit"])
def test_controls_keep_as_many_weights_of_each_layer(name: str, scope: Mapping[str, Any]) -> None:
    desk = lab(cell(scope=scope))
    for record in played(desk)[1:]:
        control = desk.control(make("control", name), record)
        ticket = record.ticket
        for layer in layer_names(desk):
            mask = control.mask[layer]
            assert mask.sum() == ticket.mask[layer].sum()
            assert torch.equal(mask, ticket.mask[layer]) == (name == "reinit")
            start = desk.dense().values[layer]
            assert torch.equal(control.values[layer][mask], start[mask]) == (name == "random_mask")
            assert (control.values[layer][~mask] == 0).all()
        assert desk.job(control).steps == desk.job(ticket).steps
        assert control.origin != ticket.origin


def test_the_untrained_control_is_the_ticket_itself_without_a_step() -> None:
    desk = lab(cell())
    record = played(desk)[1]
    job = desk.job(desk.control(make("control", "untrained"), record))
    assert job.steps == 0
    assert bits(job.values) == bits(record.ticket.values)
    assert bits(job.mask) == bits(record.ticket.mask)
    assert job.key != desk.job(record.ticket).key


def test_a_random_control_may_keep_what_the_ticket_lost() -> None:
    desk = lab(cell(search={"use": "imp", "levels": 6}))
    record = played(desk)[-1]
    control = desk.control(make("control", "random_mask"), record)
    assert any(
        (control.mask[layer] & ~record.ticket.mask[layer]).any() for layer in layer_names(desk)
    )


def test_reinit_keeps_what_masked_weights_are_frozen_at() -> None:
    desk = lab(cell(mask0="init"))
    record = played(desk)[-1]
    control = desk.control(make("control", "reinit"), record)
    for layer in layer_names(desk):
        dead = ~record.ticket.mask[layer]
        assert torch.equal(control.values[layer][dead], record.ticket.values[layer][dead])


def test_the_control_of_the_dense_network_is_itself() -> None:
    desk = lab(cell())
    record = played(desk)[0]
    assert desk.control(make("control", "reinit"), record) is record.ticket


def test_random_tickets_have_the_scopes_budgets_and_rewound_weights() -> None:
    desk = lab(cell())
    dense = desk.dense()
    after = trained(desk, dense)
    ticket, chosen = desk.prune_randomly(dense, after, 3), desk.prune(dense, after, 3)
    assert ticket.cut == chosen.cut
    assert bits(ticket.mask) != bits(chosen.mask)
    for name, mask in ticket.mask.items():
        assert torch.equal(ticket.values[name], dense.values[name].where(mask, torch.zeros(())))


# Several cuts as one


def test_cuts_made_as_one_leave_as_many_weights_as_cuts_in_a_row() -> None:
    desk = lab(cell(search={"use": "imp", "levels": 5}))
    iterated = played(desk)[-1].ticket
    once = desk.prune(desk.dense(), desk.records[0].trained, 5)
    assert iterated.cut is not None
    assert once.cut is not None
    assert once.cut.kept == iterated.cut.kept
    assert once.level == iterated.level == 5


# Jobs, keys and origins


def test_equal_cells_have_equal_origins_and_keys_and_every_ingredient_counts() -> None:
    def last(**changes: Any) -> tuple[str, str]:
        desk = lab(cell(**changes))
        ticket = played(desk)[-1].ticket
        return ticket.origin, desk.job(ticket).origin

    base = last()
    assert last() == base
    changes: dict[str, Any] = {
        "criterion": "movement", "scope": {"use": "layerwise", "rate": 0.3}, "mask1": "constant", "mask0": "init",
        "rewind": {"use": "to_step", "step": 3}, "model": {"use": "mlp", "hidden": [9, 6]},
        "initialiser": "kaiming_normal", "data": {**DATA, "noise": 0.6}, "optimizer": "adam", "schedule": "cosine",
        "batch": 17, "seed": 1, "evaluate_every": 10, "steps": 30,
    }  # fmt: skip
    others = {name: last(**{name: value}) for name, value in changes.items()}
    assert all(origin != base[0] and job != base[1] for origin, job in others.values())
    assert len(set(others.values())) == len(others)


def test_the_dense_jobs_of_all_criteria_are_one() -> None:
    names = [
        offer.name for offer in REGISTRY.offers("criterion") if offer.distribution == "lotteryfw"
    ]
    assert len(names) >= 9
    desks = [lab(cell(criterion=name)) for name in names]
    jobs = [desk.job(desk.dense()) for desk in desks]
    assert len({job.key for job in jobs}) == 1
    assert len({job.origin for job in jobs}) == 1


def test_an_epoch_and_its_steps_are_one_job() -> None:
    def last(step: object, milestone: object) -> tuple[str, str]:
        changes = {
            "rewind": {"use": "to_step", "step": step},
            "schedule": {"use": "multistep", "milestones": [milestone], "warmup": step},
        }
        desk = lab(cell(steps=100, **changes))
        job = desk.job(played(desk)[-1].ticket)
        return job.key, job.origin

    assert cell(steps=100).clock.steps_per_epoch == 20
    assert last("1ep", "2ep") == last("20it", "40it") == last(20, "40%") == last("20%", 40)
    assert last("1ep", "2ep") != last("1ep", "41it")


def test_snapshots_are_asked_of_the_dense_run_only_and_are_no_part_of_its_key() -> None:
    rewinding, plain = lab(cell(rewind={"use": "to_step", "step": 5})), lab(cell())
    jobs = [desk.job(desk.dense()) for desk in (rewinding, plain)]
    assert [job.snapshots for job in jobs] == [frozenset({5}), frozenset()]
    assert jobs[0].key == jobs[1].key
    assert rewinding.job(played(rewinding)[1].ticket).snapshots == frozenset()


class Steepest(MaskCriterion):
    """Keeps the weights of steepest loss."""

    use = "steepest"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer: Layer) -> Tensor:
        return layer.gradient.abs()


def test_a_criterion_that_needs_the_gradient_gets_one_job_for_each_training() -> None:
    desk = bare_lab(criterion=Steepest())
    generator = desk.train(desk.dense())
    outcomes = [FakeOutcome(request.job) for request in next(generator)]
    asked = [request.job for request in generator.send(outcomes)]
    assert [type(job) for job in asked] == [ProbeJob]
    assert bits(asked[0].values) == bits(outcomes[0].tensors().values)
    with pytest.raises(StopIteration) as stop:
        generator.send([FakeOutcome(job) for job in asked])
    after = stop.value.value
    ticket = desk.prune(after.ticket, after)
    for layer in desk.layers:
        slope, mask = after.gradient[layer.name].abs(), ticket.mask[layer.name]
        assert slope[mask].min() > slope[~mask].max()


# What breaks is told by its name


def raising(layer: Layer) -> Tensor:
    raise ZeroDivisionError("oops")


FAULTS: dict[str, tuple[Callable[[Layer], Any], str]] = {
    "raises": (
        raising,
        r"broke in score\(\) on layer fc2.weight \[6, 8\]: ZeroDivisionError: oops",
    ),
    "no tensor": (
        lambda layer: None,
        r"score\(\) on layer fc2.weight returned NoneType, not a tensor",
    ),
    "shape": (
        lambda layer: layer.final.T,
        r"score\(\) on layer fc2.weight returned shape \[8, 6\]; the layer's shape is \[6, 8\]",
    ),
    "dtype": (
        lambda layer: layer.final.int(),
        r"score\(\) on layer fc2.weight returned dtype torch.int32; floating point is needed",
    ),
}


class Broken(MaskCriterion):
    """Right for every layer but fc2.weight."""

    use = "broken"
    fault: str

    def score(self, layer: Layer) -> Tensor:
        return FAULTS[self.fault][0](layer) if layer.name == "fc2.weight" else layer.final.abs()


class Unsure(MaskCriterion):
    """Does not know what to think of two weights."""

    use = "unsure"

    def score(self, layer: Layer) -> Tensor:
        score = layer.final.abs()
        score.flatten()[:2] = float("nan") if layer.name == "fc2.weight" else 1.0
        return score


def first_cut(**parts: Component) -> None:
    """Prune a dense network once and compute the ticket."""
    desk = bare_lab(**parts)
    dense = desk.dense()
    _ = desk.prune(dense, trained(desk, dense)).values


@pytest.mark.parametrize("fault", FAULTS)
def test_a_criterion_that_breaks_is_told_with_its_distribution_and_the_leaf(fault: str) -> None:
    with pytest.raises(
        PluginError, match=rf"^criterion 'broken' of tests==0:? {FAULTS[fault][1]}$"
    ):
        first_cut(criterion=Broken(fault=fault))


def test_scores_that_are_nan_are_told_with_criterion_distribution_leaf_and_level() -> None:
    with pytest.raises(ContractError) as told:
        first_cut(criterion=Unsure())
    for part in (
        "criterion 'unsure' of tests==0",
        "2 of 48 scores of layer fc2.weight are NaN or infinite",
        "level 1",
    ):
        assert part in str(told.value)


class Flat(Mask1Action):
    """Forgets the layer's shape."""

    def kept_values(self, layer: Layer) -> Tensor:
        return layer.rewound.flatten()


class Whole(Mask0Action):
    """Counts."""

    def masked_values(self, layer: Layer) -> Tensor:
        return layer.mask.long()


class Greedy(Scope):
    """Keeps more than there is."""

    def groups(self, layers: Any, kept: Any, times: int) -> Any:
        return [Group(("fc1.weight",), 10**6, 10**6)]


class Misnamed(ModelFamily):
    """Prunes a parameter that is not there."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))

    def prunable(self, module: nn.Module) -> list[str]:
        return ["7.weight"]


class Short(Initialiser):
    """Draws too few biases."""

    def weight(self, layer: Any, rng: torch.Generator) -> Tensor:
        return torch.zeros(layer.shape)

    def bias(self, layer: Any, rng: torch.Generator) -> Tensor:
        return torch.zeros(1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"mask1": Flat()}, r"mask1 'flat' of tests==0: kept_values\(\) on layer fc1.weight returned shape \[128\]"),
        ({"mask0": Whole()}, r"mask0 'whole' of tests==0: masked_values\(\) on layer fc1.weight returned dtype torch.int64"),
        ({"scope": Greedy()}, r"scope 'greedy' of tests==0: groups\(\) keeps 1000000 of 128 living weights"),
        ({"model": Misnamed()}, r"model 'misnamed' of tests==0: prunable\(\) named no parameter .*: 7.weight"),
        ({"initialiser": Short()}, r"initialiser 'short' of tests==0: bias\(\) on layer fc1.weight returned shape"),
    ],
)  # fmt: skip
def test_what_other_components_break_is_told_by_name(
    parts: dict[str, Component], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        first_cut(**parts)


# The level that a ticket was cut after


def test_a_ticket_cut_after_a_training_of_its_parent_names_the_level() -> None:
    desk = lab(cell())
    dense = desk.dense()
    trained = run(desk.train(dense))
    first = desk.prune(dense, trained)
    second = desk.prune(first, run(desk.train(first)))
    later = desk.prune(dense, trained, 3)
    found = [(ticket.level, ticket.parent) for ticket in (first, second, later)]
    assert found == [(1, 0), (2, 1), (3, 0)]
    # Another object for the same network is the same training.
    assert desk.prune(desk.dense(), trained).parent == 0


def test_a_ticket_that_was_cut_after_no_training_of_its_parent_names_no_level() -> None:
    desk = lab(cell())
    dense = desk.dense()
    at_init = desk.prune(dense, run(desk.probe(dense)))
    measured = desk.prune(dense, run(desk.train(desk.as_is(dense))))
    copied = desk.prune(dense, run(desk.train(desk.again(dense, 1))))
    early = run(desk.stop_when(dense, lambda segments: True, every="5it"))
    drawn = desk.prune(dense, early, density=0.5)
    for ticket in (at_init, measured, copied, drawn):
        assert (ticket.level, ticket.parent) == (1, None)


def updating_lab(**changes: Any) -> CellLab:
    """Return the lab of a cell whose trainings change their masks."""
    update = Registry.load([FILE]).create("mask_update", "swap")
    specs = {"swap": Spec("mask_update", "mine/swap", "mine==1", {})}
    return CellLab(
        cell(mask_update=update, **changes),
        lambda part, clock: specs.get(part.use) or describe(part, clock),
        Path("unused"),
        "cpu",
    )


def test_the_seed_of_ties_is_in_the_origin_of_a_random_first_mask_alone() -> None:
    one, other = (updating_lab(randomness=Randomness(ties=seed)) for seed in (0, 1))
    assert one.update_mask(1.0).origin == other.update_mask(1.0).origin
    assert one.update_mask(0.5).origin != other.update_mask(0.5).origin


def test_a_ticket_of_a_mask_that_was_found_in_training_names_no_level() -> None:
    desk = lab(cell(parametrization=make("parametrization", "top_k")))
    start = desk.learn_mask(0.5)
    learned = run(desk.train(start))
    for rewound in (True, False):
        assert desk.extract_ticket(start, learned, rewound=rewound).parent is None
    desk = updating_lab()
    start = desk.update_mask(0.5)
    assert desk.extract_ticket(start, run(desk.train(start))).parent is None
