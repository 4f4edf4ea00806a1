"""The last initial states of this process: cells with one seed start from the same network."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lotteryfw.api.data import DatasetInfo
from lotteryfw.search.initial_state import InitialState, NetworkParts, Specs, initial_state

if TYPE_CHECKING:
    from torch import Tensor

_MAX_STATES = 16
_MAX_BYTES = 64 << 20
"""Larger networks are drawn again, which takes little time beside training them."""

_states: OrderedDict[tuple[Any, ...], InitialState] = OrderedDict()


def cached_initial_state(
    parts: NetworkParts, specs: Specs, facts: DatasetInfo, seed: int
) -> InitialState:
    """Return what `initial_state` returns, from memory where this process has drawn it lately.

    The tensors are the caller's own: a component that changes them changes no other cell's.
    """
    key = (
        (specs["model"].digest, specs["objective"].digest, specs["initialiser"].digest),
        # A class that was defined again, as in a notebook, may have the same digest.
        (type(parts.model), type(parts.objective), type(parts.initialiser)),
        (facts.shape, facts.classes, facts.vocabulary, seed),
    )
    state = _states.get(key)
    if state is None:
        state = initial_state(parts, specs, facts, seed)
        if _size(state) > _MAX_BYTES:
            return state
        _states[key] = state
        while len(_states) > 1 and not _fits():
            _states.popitem(last=False)
    # The one that was not asked for the longest is dropped first.
    _states.move_to_end(key)
    values: dict[str, Tensor] = {}
    for name, value in state.values.items():
        values[name] = value.clone()
    return replace(state, values=values)


def _fits() -> bool:
    return len(_states) <= _MAX_STATES and sum(map(_size, _states.values())) <= _MAX_BYTES


def _size(state: InitialState) -> int:
    size = 0
    for value in state.values.values():
        size += value.numel() * value.element_size()
    return size
