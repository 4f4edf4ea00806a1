"""Segments of a training, each a job of its own that goes on exactly where the last one ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lotteryfw.api.tickets import Derivation, RewindPoint, Ticket, TicketState, Trained
from lotteryfw.search.context import digest_of
from lotteryfw.search.derivations import kept_by_budgets


def first_segment(ticket: Ticket, steps: int) -> Ticket:
    """Return a ticket whose training is the first `steps` steps of this ticket's."""
    return replace(ticket, point=replace(ticket.point, steps=steps), keeps_end=True)


def next_segment(ticket: Ticket, trained: Trained, step: int, steps: int) -> Ticket:
    """Return a ticket whose training goes on from a segment of `ticket` that ended at `step`."""
    # The optimizer's state is that which the segment ended with.
    point = RewindPoint(weights=step, schedule=step, steps=steps, optimizer="saved")
    return Ticket.derived(
        Continued(ticket, trained),
        ticket.level,
        point,
        root=trained,
        parent=ticket.parent,
        is_dense=ticket.is_dense,
        length=ticket.length,
        order=ticket.order,
        keeps_end=True,
    )


class Continued(Derivation):
    """A ticket in the middle of its training: its mask, at the weights that a segment ended with."""

    def __init__(self, ticket: Ticket, trained: Trained):
        self._trained = trained
        self.parent: Ticket = ticket
        self.digest = digest_of("continued", trained.origin)

    def materialise(self) -> TicketState:
        state = self.parent.source.state()
        return TicketState(state.mask, self._trained.weights(), state.stats)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return kept_by_budgets(self.parent)
