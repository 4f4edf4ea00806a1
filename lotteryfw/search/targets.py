"""Tickets that were found in one cell and are trained on other data, or in another training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from lotteryfw.api.errors import UsageError
from lotteryfw.api.rng import Stream, seed_of
from lotteryfw.api.tickets import Derivation, MaskStats, RewindPoint, Ticket, TicketState
from lotteryfw.search.context import SearchContext, digest_of
from lotteryfw.search.derivations import kept_by_budgets
from lotteryfw.search.initial_state import InitialState
from lotteryfw.search.rewinding import whole_masks

_FROM_THE_START = RewindPoint(weights=0, schedule=0)


def transferred(source: SearchContext, target: SearchContext, ticket: Ticket) -> Ticket:
    """Return a ticket of `source` in the network of `target`, which is trained from its step 0."""
    # Step 0 of the target's schedule: the step that the study rewinds to is one of another training.
    derivation = Transferred(source, target, ticket)
    return Ticket.derived(derivation, ticket.level, _FROM_THE_START, parent=ticket.parent)


class Transferred(Derivation):
    """A ticket in the network of a target: its values and masks, with a head of its own.

    Where the number of outputs differs, the parameters of the output layer are drawn afresh, from
    one stream for all levels, and none of its weights is masked.
    """

    def __init__(self, source: SearchContext, target: SearchContext, ticket: Ticket):
        self._source = source
        self._target = target
        self.parent: Ticket = ticket
        self.digest = digest_of("transferred", ticket.origin, target.dense_digest)

    def materialise(self) -> TicketState:
        ticket = self.parent
        network = self._target.initial
        values = dict(ticket.values)
        masks = dict(ticket.mask)
        if self._new_head:
            fresh, whole = self._target.initial_of(self._head_seed), whole_masks(self._target)
            for name in self._new_head:
                values[name] = fresh.values[name]
                if name in masks:
                    masks[name] = whole[name]
        # In the order of the target's network, which is that of its parameters.
        values = {name: values[name] for name in network.values}
        return TicketState(masks, values, self._stats(ticket.cut))

    @property
    def _head_seed(self) -> int:
        return seed_of(self._target.seeds.init, Stream.TARGET)

    @cached_property
    def _new_head(self) -> frozenset[str]:
        """The parameters and buffers that do not fit and are drawn. Raises UsageError for others."""
        return new_head(self._source.initial, self._target.initial)

    def _stats(self, cut: MaskStats) -> MaskStats:
        requested, kept, sizes = cut.requested, dict(cut.kept), dict(cut.sizes)
        for layer in self._target.layers:
            if layer.name in self._new_head:
                requested += layer.size - kept[layer.name]
                kept[layer.name] = sizes[layer.name] = layer.size
        return MaskStats(requested, kept, sizes)

    def kept_by_budgets(self) -> Mapping[str, int]:
        kept = dict(kept_by_budgets(self.parent))
        for layer in self._target.layers:
            if layer.name in self._new_head:
                kept[layer.name] = layer.size
        return kept


def new_head(source: InitialState, target: InitialState) -> frozenset[str]:
    """Return the parameters of the output layer, if they differ in shape; else none.

    Raises UsageError where anything else differs, such as the layer that reads the inputs.
    """
    head = {layer.name.rpartition(".")[0] for layer in target.layers if layer.is_output}
    different, faults = set(), []
    for name in source.values.keys() | target.values.keys():
        here, there = source.values.get(name), target.values.get(name)
        if here is not None and there is not None and here.shape == there.shape:
            continue
        if name.rpartition(".")[0] in head and here is not None and there is not None:
            different.add(name)
            continue
        shapes = [None if value is None else list(value.shape) for value in (here, there)]
        faults.append(f"'{name}' is {shapes[0]} in the study's network and {shapes[1]} here")
    if faults:
        raise UsageError(
            "tickets of the study do not fit: " + "; ".join(sorted(faults)) + ". Only the output "
            "layer may differ: choose data of the same input shape, or a model that reads both"
        )
    # A bias of a layer whose weight is drawn anew belongs to that weight.
    return frozenset(name for name in target.values if _shares_layer(name, different))


def _shares_layer(name: str, different: set[str]) -> bool:
    return any(name.rpartition(".")[0] == other.rpartition(".")[0] for other in different)
