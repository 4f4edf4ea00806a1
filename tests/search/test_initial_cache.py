"""Cells with one seed share the drawing of their network, and none of its tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.small import cell, lab

from lotteryfw.search import initial_cache


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the networks that are drawn, beginning with an empty cache."""
    seeds: list[int] = []
    draw = initial_cache.initial_state

    def counted(parts: Any, specs: Any, facts: Any, seed: int) -> Any:
        seeds.append(seed)
        return draw(parts, specs, facts, seed)

    monkeypatch.setattr(initial_cache, "initial_state", counted)
    initial_cache._states.clear()
    return seeds


def values(**changes: Any) -> dict[str, torch.Tensor]:
    return dict(lab(cell(**changes)).dense().values)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_network_is_drawn_once_for_all_cells_with_its_seed(drawn: list[int]) -> None:
    first, other = values(), values(seed=1)
    again = values(criterion="random")
    assert drawn == [0, 1]
    assert equal(first, again)
    assert not equal(first, other)


def test_another_model_or_initialiser_is_drawn_anew(drawn: list[int]) -> None:
    values()
    values(model={"use": "mlp", "hidden": [8, 5]})
    values(initialiser="kaiming_normal")
    assert drawn == [0, 0, 0]


def test_a_cell_that_changes_its_values_changes_no_other_cell(drawn: list[int]) -> None:
    first = values()
    before = {name: value.clone() for name, value in first.items()}
    for value in first.values():
        value.zero_()
    assert equal(values(), before)
    assert len(drawn) == 1


def test_the_oldest_are_dropped_and_large_networks_are_never_kept(
    drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial_cache, "_MAX_STATES", 2)
    for seed in (0, 1, 2, 1, 0):
        values(seed=seed)
    assert drawn == [0, 1, 2, 0]
    monkeypatch.setattr(initial_cache, "_MAX_BYTES", 10)
    for _ in range(2):
        values(seed=9)
    assert drawn[4:] == [9, 9]
