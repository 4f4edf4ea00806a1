"""`lab.ticket`: tickets that a search makes itself are checked, keyed and reported like others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.labs import run
from support.runs import go, recipe
from support.small import cell, lab, make
from torch import Tensor

from lotteryfw import ContractError, RewindPoint, load_ticket
from lotteryfw.api.tickets import Ticket
from lotteryfw.search.lab import CellLab


def checkerboard(desk: CellLab, shift: int = 0) -> dict[str, Tensor]:
    """Return masks that keep every other weight of each layer."""
    masks = {}
    for layer in desk.layers:
        masks[layer.name] = ((torch.arange(layer.size) + shift) % 2 == 0).reshape(layer.shape)
    return masks


def filled(desk: CellLab, number: float) -> dict[str, Tensor]:
    return {name: torch.full_like(v, number) for name, v in desk.dense().values.items()}


def test_a_mask_of_ones_own_prunes_to_zero_and_is_reported() -> None:
    desk = lab(cell())
    dense, masks = desk.dense(), checkerboard(desk)
    ticket = desk.ticket(dense, mask=masks)
    for name, mask in masks.items():
        assert torch.equal(ticket.mask[name], mask)
        assert torch.equal(ticket.values[name], dense.values[name] * mask)
    assert torch.equal(ticket.values["fc1.bias"], dense.values["fc1.bias"])
    assert ticket.cut.kept == {name: int(mask.sum()) for name, mask in masks.items()}
    assert ticket.cut.density == ticket.cut.requested_density == 0.5
    assert (ticket.level, ticket.parent, ticket.is_dense) == (1, 0, False)
    assert ticket.source.kept_by_budgets() == ticket.cut.kept


def test_values_count_where_the_mask_keeps_and_frozen_where_it_removes() -> None:
    desk = lab(cell())
    masks, sevens = checkerboard(desk), filled(desk, 7.0)
    frozen = {"fc1.weight": torch.full((8, 16), -3.0)}
    ticket = desk.ticket(desk.dense(), values=sevens, mask=masks, frozen=frozen)
    for name, mask in masks.items():
        assert bool((ticket.values[name][mask] == 7).all())
        expected = -3 if name in frozen else 0
        assert bool((ticket.values[name][~mask] == expected).all())
    assert bool((ticket.values["fc1.bias"] == 7).all())


def test_what_the_base_froze_stays_frozen_at_its_values() -> None:
    desk = lab(cell(mask0="init"))
    dense = desk.dense()
    base = desk.prune(dense, run(desk.train(dense)))
    narrower = {name: mask & board for (name, mask), board in zip(
        base.mask.items(), checkerboard(desk).values(), strict=True
    )}  # fmt: skip
    ticket = desk.ticket(base, values=filled(desk, 7.0), mask=narrower)
    for name, mask in base.mask.items():
        assert torch.equal(ticket.values[name][~mask], base.values[name][~mask])
        assert bool((ticket.values[name][mask & ~narrower[name]] == 0).all())


def test_equal_content_is_one_ticket_and_any_other_is_another() -> None:
    desk = lab(cell())
    dense = desk.dense()

    def made(**options: Any) -> tuple[str, str]:
        ticket = desk.ticket(dense, **options)
        return ticket.origin, desk.job(ticket).key

    tickets = [
        made(mask=checkerboard(desk)),
        made(mask=checkerboard(desk, 1)),
        made(values=filled(desk, 1.0)),
        made(values=filled(desk, 2.0)),
        made(mask=checkerboard(desk), values=filled(desk, 2.0)),
        made(mask=checkerboard(desk), frozen=filled_layers(desk, 1.0)),
    ]
    assert made(mask=checkerboard(desk), label="board") == tickets[0]
    assert len({origin for origin, _ in tickets}) == len({key for _, key in tickets}) == 6


def filled_layers(desk: CellLab, number: float) -> dict[str, Tensor]:
    return {layer.name: torch.full(layer.shape, number) for layer in desk.layers}


def test_a_ticket_keeps_the_tensors_that_it_was_given() -> None:
    desk = lab(cell())
    masks = checkerboard(desk)
    ticket = desk.ticket(desk.dense(), mask=masks)
    masks["fc1.weight"].zero_()
    assert int(ticket.mask["fc1.weight"].sum()) == 64


def test_dense_values_of_ones_own_begin_a_chain_with_its_own_dense_run() -> None:
    desk = lab(cell(rewind={"use": "to_step", "step": "5it"}))
    start = desk.ticket(desk.dense(), values=filled(desk, 1.0))
    assert start.is_dense
    assert desk.request(start).snapshots == {5}
    after = run(desk.train(start))
    pruned = desk.prune(start, after)
    state = after.outcome.state(5)[0].values
    assert torch.equal(pruned.values["fc1.bias"], state["fc1.bias"])


def test_a_control_starts_from_the_given_values_wherever_its_mask_keeps() -> None:
    desk = lab(cell())
    sevens = filled(desk, 7.0)
    ticket = desk.ticket(desk.dense(), values=sevens, mask=checkerboard(desk))
    desk.record(1, ticket, run(desk.train(ticket)))
    control = desk.control(make("control", "random_mask"), desk.records[-1])
    for name, mask in control.mask.items():
        assert not torch.equal(mask, ticket.mask[name])
        assert bool((control.values[name][mask] == 7).all())


def test_a_point_says_where_training_starts() -> None:
    desk = lab(cell())
    ticket = desk.ticket(desk.dense(), point=RewindPoint(weights=0, schedule=15))
    job = desk.job(ticket)
    assert (job.start, job.steps) == (15, 5)


def test_scores_of_ones_own_are_learned_from() -> None:
    parts = {
        "search": make("search", {"use": "edge_popup", "density": 0.3}),
        "parametrization": make("parametrization", "top_k"),
    }
    desk = lab(replace(cell(), **parts))
    ones = filled_layers(desk, 1.0)
    ticket = desk.ticket(desk.learn_mask(0.3), scores=ones)
    job = desk.job(ticket)
    assert all(torch.equal(job.scores[name], value) for name, value in ones.items())
    assert job.parametrization is not None


def nan(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    changed = {name: value.clone() for name, value in tensors.items()}
    changed["fc1.weight"][0, 0] = float("nan")
    return changed


WRONG: dict[str, tuple[Any, str]] = {
    "mask of numbers": (
        lambda d: {"mask": filled_layers(d, 1.0)},
        r"mask: the mask of fc1.weight has the dtype torch.float32; it is a bool tensor",
    ),
    "mask of another shape": (
        lambda d: {"mask": {"fc1.weight": torch.ones(3, dtype=torch.bool)}},
        r"the mask of fc1.weight has the shape \[8, 16\], not \[3\]",
    ),
    "mask of no layer": (
        lambda d: {"mask": {"fc1.bias": torch.ones(8, dtype=torch.bool)}},
        r"no prunable layer 'fc1.bias' \(.*fc1.weight",
    ),
    "empty mask": (
        lambda d: {"mask": {n: m & False for n, m in checkerboard(d).items()}},
        "the mask keeps no weight of the whole network",
    ),
    "no mapping": (lambda d: {"mask": [True]}, "mask is a list"),
    "no tensor": (lambda d: {"values": {"fc1.bias": 1.0}}, "fc1.bias is a float, not a tensor"),
    "values that are NaN": (
        lambda d: {"values": nan(filled(d, 1.0))},
        "values: 1 of 128 values of fc1.weight are NaN or infinite",
    ),
    "integers": (
        lambda d: {"values": {"fc1.bias": torch.ones(8, dtype=torch.int64)}},
        "fc1.bias is torch.float32, not torch.int64",
    ),
    "frozen values that are NaN": (
        lambda d: {"mask": checkerboard(d), "frozen": nan(filled_layers(d, 1.0))},
        "frozen: 1 of 128 values",
    ),
    "scores where none are learned": (
        lambda d: {"scores": filled_layers(d, 1.0)},
        r"`base` learns none: begin with lab.learn_mask\(\)",
    ),
    "a point beyond the schedule": (
        lambda d: {"point": RewindPoint(weights=0, schedule=21)},
        "point.schedule is a step from 0 to 20, not 21",
    ),
    "a saved state": (
        lambda d: {"point": RewindPoint(weights=5, schedule=5, optimizer="saved")},
        'point.optimizer is "fresh"',
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_fits_no_ticket_is_refused_by_name(case: str) -> None:
    options, message = WRONG[case]
    desk = lab(cell())
    with pytest.raises(ContractError, match=message) as caught:
        desk.ticket(desk.dense(), label="mine", **options(desk))
    assert "search 'lotteryfw/imp' of lotteryfw" in str(caught.value)
    assert "lab.ticket(label='mine')" in str(caught.value)


PLUGIN = """
import torch
from lotteryfw import SearchAlgorithm, hookimpl, stream

class Halves(SearchAlgorithm):
    "Trains each half of the network."
    use = "halves"
    def search(self, lab):
        dense = lab.dense()
        mask = {}
        for layer in lab.layers:
            rng = stream(lab.seed, "halves", layer.name)
            mask[layer.name] = torch.rand(layer.shape, generator=rng) < 0.5
        other = {name: ~part for name, part in mask.items()}
        first, second = lab.ticket(dense, mask=mask), lab.ticket(dense, mask=other)
        for level, ticket in enumerate((first, second, first), 1):
            trained = yield from lab.train(ticket)
            lab.record(level, ticket, trained)

@hookimpl
def register_components():
    return [Halves]
"""


def test_a_search_of_own_tickets_is_planned_shared_and_resumed(tmp_path: Path) -> None:
    from lotteryfw.runner.context import StudyContext

    plugin = tmp_path / "halves.py"
    plugin.write_text(PLUGIN)
    table = recipe(plugins=[str(plugin)], search="halves", controls=["random_mask"])
    context = StudyContext(table, store=tmp_path / "none", data=tmp_path, trust=[plugin])
    planned = context.plan()
    # The third level is the first again, and so is its control.
    assert (planned.asked, planned.unknown, planned.broken) == (6, (), ())
    done, watch = go(tmp_path, table, trust=[plugin])
    assert len(watch.trained) == planned.unique == 4
    assert [row.variant for row in done.levels].count("ticket") == 3
    first, second = (
        load_ticket(next((done.path / "tickets").rglob(f"level-0{level}.safetensors")))
        for level in (1, 2)
    )
    for name, mask in first.mask.items():
        assert torch.equal(second.mask[name], ~mask)
    _, watch = go(tmp_path, table, "again", trust=[plugin])
    assert not watch.trained


def test_a_ticket_made_of_a_training_ends_the_plan_there() -> None:
    from lotteryfw.api.errors import NotKnownYet
    from lotteryfw.runner.plan import _UNKNOWN

    desk = lab(cell())
    dense = desk.dense()
    trained = desk.train(dense)
    next(trained)
    with pytest.raises(StopIteration) as stop:
        trained.send((_UNKNOWN,))
    with pytest.raises(NotKnownYet):
        desk.ticket(dense, values=stop.value.value.weights())


def chain(desk: CellLab, ticket: Ticket) -> list[Ticket]:
    """Return a ticket and the two that pruning makes of it."""
    after = run(desk.train(ticket))
    once = desk.prune(ticket, after)
    return [ticket, once, desk.prune(once, run(desk.train(once)))]


def test_pruning_goes_on_from_a_ticket_of_ones_own() -> None:
    desk = lab(cell())
    own = desk.ticket(desk.dense(), mask=checkerboard(desk), values=filled(desk, 7.0))
    _, once, twice = chain(desk, own)
    for name, mask in own.mask.items():
        assert not bool((once.mask[name] & ~mask).any())
        assert not bool((twice.mask[name] & ~once.mask[name]).any())
