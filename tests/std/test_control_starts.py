"""A control starts from what its ticket would start from with the control's mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.labs import played
from support.small import cell, lab, make
from torch import Tensor

from lotteryfw.search.cell import Cell
from lotteryfw.search.lab import CellLab
from lotteryfw.search.records import Record

POLICIES = [
    "to_init",
    {"use": "to_step", "step": "5it"},
    {"use": "to_step", "step": "5it", "optimizer": "saved"},
    "learning_rate",
    "fine_tune",
    {"use": "fine_tune", "length": "8it"},
]


def of_cell(rewind: Any, **parts: Any) -> tuple[CellLab, list[Record]]:
    """The lab of a cell that is pruned three times, and the records of its search."""
    search = make("search", {"use": "imp", "levels": 3})
    of: Cell = replace(cell(), rewind=make("rewind", rewind), search=search, **parts)
    desk = lab(of)
    return desk, played(desk)


def last_trained(records: list[Record], level: int) -> dict[str, Tensor]:
    """By layer, what each weight was at the end of the last training that it took part in."""
    values = {name: value.clone() for name, value in records[0].trained.weights().items()}
    for record in records[1:level]:
        weights = record.trained.weights()
        for name, mask in record.ticket.mask.items():
            values[name][mask] = weights[name][mask]
    return values


def rewound(rewind: Any, desk: CellLab, records: list[Record], level: int) -> Mapping[str, Tensor]:
    """The plain rule of each policy, stated again."""
    use = rewind if isinstance(rewind, str) else rewind["use"]
    if use == "to_init":
        return records[0].ticket.values
    if use == "to_step":
        return records[0].trained.outcome.state(5)[0].values
    return last_trained(records, level)


@pytest.mark.parametrize("rewind", POLICIES)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_random_mask_keeps_the_rewound_weights(rewind: Any, level: int) -> None:
    desk, records = of_cell(rewind)
    control = desk.control(make("control", "random_mask"), records[level])
    ticket = records[level].ticket
    expected = rewound(rewind, desk, records, level)
    for name, mask in control.mask.items():
        assert not torch.equal(mask, ticket.mask[name])
        assert int(mask.sum()) == int(ticket.mask[name].sum())
        start = control.values[name]
        assert torch.equal(start[mask], expected[name][mask])
        assert int((start[mask] == 0).sum()) == 0
        assert int((start[~mask] != 0).sum()) == 0
        both = mask & ticket.mask[name]
        assert torch.equal(start[both], ticket.values[name][both])


@pytest.mark.parametrize("rewind", POLICIES)
def test_a_random_mask_has_the_values_that_the_actions_give(rewind: Any) -> None:
    actions = {"mask1": make("mask1", "constant"), "mask0": make("mask0", "init")}
    desk, records = of_cell(rewind, **actions)
    control = desk.control(make("control", "random_mask"), records[3])
    before = rewound(rewind, desk, records, 3)
    for name, mask in control.mask.items():
        initial = records[0].ticket.values[name]
        size = initial.std(correction=0)
        start = control.values[name]
        assert torch.equal(start[mask], size * before[name].sign()[mask])
        assert torch.equal(start[~mask], before[name][~mask])


@pytest.mark.parametrize("rewind", POLICIES)
@pytest.mark.parametrize("name", ["untrained", "reinit", "signs_only"])
def test_a_control_with_the_tickets_mask_has_its_masked_values(rewind: Any, name: str) -> None:
    actions = {"mask1": make("mask1", "constant"), "mask0": make("mask0", "init")}
    desk, records = of_cell(rewind, **actions)
    ticket = records[2].ticket
    control = desk.control(make("control", name), records[2])
    for layer, mask in ticket.mask.items():
        assert torch.equal(control.mask[layer], mask)
        assert torch.equal(control.values[layer][~mask], ticket.values[layer][~mask])


@pytest.mark.parametrize("mask0", ["init_zero", "init_zero_reshuffle", "init_zero_reverse"])
def test_what_an_earlier_round_froze_stays_so_under_another_mask(mask0: str) -> None:
    zeros = others = 0
    # of several seeds, as few weights are removed at level 1
    for seed in range(8):
        desk, records = of_cell("to_init", mask0=make("mask0", mask0), seed=seed)
        ticket = records[2].ticket
        control = desk.control(make("control", "random_mask"), records[2])
        for name, mask in control.mask.items():
            frozen = ~records[1].ticket.mask[name] & ~mask
            assert torch.equal(control.values[name][frozen], ticket.values[name][frozen])
            zeros += int((ticket.values[name][frozen] == 0).sum())
            others += int((ticket.values[name][frozen] != 0).sum())
    # both kinds, or the rule would not show
    assert zeros
    assert others


@pytest.mark.parametrize("name", ["random_mask", "layer_shuffle", "invert"])
def test_biases_start_where_those_of_the_ticket_do(name: str) -> None:
    desk, records = of_cell("learning_rate")
    control = desk.control(make("control", name), records[2])
    others = control.values.keys() - control.mask.keys()
    assert others
    for other in others:
        assert torch.equal(control.values[other], records[2].ticket.values[other])


def test_a_learned_mask_gives_its_random_mask_the_weights_it_was_learned_over() -> None:
    parts = {
        "search": make("search", {"use": "edge_popup", "density": 0.3}),
        "parametrization": make("parametrization", "top_k"),
    }
    desk = lab(replace(cell(), **parts))
    (record,) = played(desk)
    control = desk.control(make("control", "random_mask"), record)
    weights = record.trained.weights()
    for name, mask in control.mask.items():
        assert torch.equal(control.values[name][mask], weights[name][mask])


# The masks and values of single controls


def numbers(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.flatten().tolist()
    return values


def test_signs_only_keeps_signs_and_one_magnitude_for_each_layer() -> None:
    desk, records = of_cell("learning_rate")
    ticket = records[2].ticket
    control = desk.control(make("control", "signs_only"), records[2])
    magnitudes = set()
    for name, mask in ticket.mask.items():
        kept = numbers(ticket.values[name][mask])
        mean = sum(abs(value) for value in kept) / len(kept)
        expected = [mean if value > 0 else -mean for value in kept]
        assert numbers(control.values[name][mask]) == pytest.approx(expected, rel=1e-6)
        magnitudes.add(round(mean, 6))
    assert len(magnitudes) == len(ticket.mask)


def test_layer_shuffle_permutes_each_mask_and_draws_apart_from_random_mask() -> None:
    desk, records = of_cell("to_init")
    control = desk.control(make("control", "layer_shuffle"), records[2])
    other = desk.control(make("control", "random_mask"), records[2])
    for name, mask in records[2].ticket.mask.items():
        shuffled = control.mask[name]
        assert int(shuffled.sum()) == int(mask.sum())
        assert not torch.equal(shuffled, mask)
        assert not torch.equal(shuffled, other.mask[name])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_invert_overlaps_with_the_ticket_as_little_as_its_density_allows(level: int) -> None:
    scope = make("scope", {"use": "layerwise", "rate": 0.3})
    desk, records = of_cell("to_init", scope=scope)
    control = desk.control(make("control", "invert"), records[level])
    for name, mask in records[level].ticket.mask.items():
        kept, size = int(mask.sum()), mask.numel()
        inverted = control.mask[name]
        assert int(inverted.sum()) == kept
        assert int((inverted & mask).sum()) == max(0, 2 * kept - size)


def test_invert_draws_among_the_masked_weights() -> None:
    desk, records = of_cell("to_init")
    record = records[3]
    masks = []
    for seed in range(3):
        desk.context.seed = seed
        masks.append(desk.control(make("control", "invert"), record).mask)
    name = next(iter(masks[0]))
    assert len({tuple(numbers(mask[name].float())) for mask in masks}) == 3


# A control draws apart from its ticket


def test_reinit_draws_other_weights_than_a_ticket_that_was_drawn_anew() -> None:
    desk, records = of_cell("to_init", mask1=make("mask1", {"use": "reinit", "keep_sign": False}))
    ticket = records[2].ticket
    control = desk.control(make("control", "reinit"), records[2])
    again = desk.control(make("control", "reinit"), records[2])
    for name, mask in ticket.mask.items():
        drawn = control.values[name]
        assert not bool((drawn[mask] == ticket.values[name][mask]).any())
        assert torch.equal(drawn, again.values[name])


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_random_mask_draws_another_mask_than_a_random_ticket(scope: str) -> None:
    search = make("search", {"use": "random_pruning", "levels": 2})
    desk = lab(replace(cell(), search=search, scope=make("scope", scope)))
    records = played(desk)
    ticket = records[2].ticket
    control = desk.control(make("control", "random_mask"), records[2])
    other = desk.control(make("control", "random_mask_reinit"), records[2])
    for name, mask in ticket.mask.items():
        assert int(control.mask[name].sum()) == int(mask.sum())
        assert not torch.equal(control.mask[name], mask)
        # one random mask for all controls of a level
        assert torch.equal(control.mask[name], other.mask[name])


def test_random_masks_under_drawn_values_differ_from_those_drawn_anew() -> None:
    desk, records = of_cell("to_init", mask1=make("mask1", {"use": "reinit", "keep_sign": False}))
    kept = desk.control(make("control", "random_mask"), records[2])
    drawn = desk.control(make("control", "random_mask_reinit"), records[2])
    for name, mask in kept.mask.items():
        assert torch.equal(mask, drawn.mask[name])
        assert not bool((kept.values[name][mask] == drawn.values[name][mask]).any())
