"""Tickets whose tensors are elsewhere: in a file, or nowhere any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lotteryfw.api.errors import StoreError
from lotteryfw.api.tickets import (
    Derivation,
    Ticket,
    TicketSource,
    TicketState,
    Trained,
)


class Loaded(Derivation):
    """A ticket whose tensors are read from a file, or are at hand, when they are needed."""

    def __init__(self, digest: str, load: Callable[[], TicketState]):
        self.digest = digest
        self._load = load

    def materialise(self) -> TicketState:
        return self._load()

    def kept_by_budgets(self) -> Mapping[str, int]:
        return self._load().stats.kept


def without_state(ticket: Ticket) -> Ticket:
    """Return the ticket without its tensors, and without those of the training it goes back to."""

    def gone() -> TicketState:
        raise StoreError(f"the tensors of the ticket {ticket.origin[:12]} are not kept in memory")

    root = ticket.root
    # The root of a chain is a ticket with tensors, too.
    if root is not None:
        root = replace(root, ticket=without_state(root.ticket))
    return replace(ticket, source=TicketSource(Loaded(ticket.origin, gone)), root=root)


def without_ticket_state(trained: Trained) -> Trained:
    return replace(trained, ticket=without_state(trained.ticket))
