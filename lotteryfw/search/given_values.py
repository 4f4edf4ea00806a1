"""Derivations of networks at other weights: those that somebody gives, or between two trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.digests import tensors_digest
from lotteryfw.api.errors import UsageError, nearest
from lotteryfw.api.tickets import Derivation, Ticket, TicketState, Trained
from lotteryfw.search.context import SearchContext, digest_of
from lotteryfw.search.derivations import kept_by_budgets
from lotteryfw.search.round_layers import merge

if TYPE_CHECKING:
    from torch import Tensor


class AtValues(Derivation):
    """A ticket's network at weights that somebody gives.

    Masked weights stay at the values that the ticket froze them at, and parameters and buffers that
    are not given at the ticket's own.
    """

    def __init__(self, context: SearchContext, ticket: Ticket, values: Mapping[str, Tensor]):
        self._values = {name: value.detach().cpu().clone() for name, value in values.items()}
        self.parent: Ticket = ticket
        content = tensors_digest(self._values)
        self.digest = digest_of("at values", ticket.origin, context.dense_digest, content)

    def materialise(self) -> TicketState:
        ticket = self.parent
        values = dict(ticket.values)
        for name, value in self._values.items():
            if name not in values:
                raise UsageError(
                    f"lab.at: the network has no parameter or buffer '{name}' "
                    f"({nearest(name, values)})"
                )
            shape, dtype = values[name].shape, values[name].dtype
            if value.shape != shape:
                raise UsageError(
                    f"lab.at: {name} has the shape {list(shape)}, not {list(value.shape)}"
                )
            values[name] = value.to(dtype)
        # A kernel must never see a masked weight move, whatever the caller interpolated.
        for name, mask in ticket.mask.items():
            values[name] = merge(mask, values[name], ticket.values[name])
        return TicketState(ticket.mask, values, ticket.cut)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return kept_by_budgets(self.parent)


class Interpolated(Derivation):
    """The network on the straight line between the ends of two trainings.

    `alpha` is 0 at the first and 1 at the second. What either of them keeps is kept.
    """

    def __init__(self, context: SearchContext, first: Trained, second: Trained, alpha: float):
        self._context = context
        self._first = first
        self._second = second
        self._alpha = alpha
        jobs = (context.training_digest(first), context.training_digest(second))
        self.digest = digest_of("between", *jobs, float(alpha))

    def materialise(self) -> TicketState:
        first, second = self._first.weights(), self._second.weights()
        if self._first.scores() or self._second.scores():
            raise UsageError(
                "lab.interpolate: a training that learned a mask left its weights as they were; "
                "interpolate between trainings of the tickets that the masks make"
            )
        if first.keys() != second.keys():
            raise UsageError("lab.interpolate: the two networks have other parameters")
        values = {}
        for name, value in first.items():
            values[name] = between(value, second[name], self._alpha)

        masks: dict[str, Tensor] = {}
        others = _mask_of(self._second)
        for name, mask in _mask_of(self._first).items():
            masks[name] = mask | others[name]
        kept = float(sum(int(mask.sum()) for mask in masks.values()))
        return TicketState(masks, values, self._context.pruner.stats(masks, kept))

    def kept_by_budgets(self) -> Mapping[str, int]:
        return kept_by_budgets(self._first.ticket)


def _mask_of(trained: Trained) -> Mapping[str, Tensor]:
    """Return the mask at the end of a training, which a mask update may have changed."""
    return trained.outcome.tensors().masks or trained.outcome.mask()


def between(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """Return (1 - alpha) first + alpha second; at the ends, and between equals, exactly these.

    Counts, such as the number of batches that batch normalisation saw, are those of the nearer end.
    """
    import torch

    if alpha in (0, 1) or not first.is_floating_point():
        return first if alpha < 0.5 else second
    return torch.lerp(first, second, alpha)
