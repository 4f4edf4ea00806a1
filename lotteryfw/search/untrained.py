"""The outcome of a ticket that was not trained: what `lab.probe` returns is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from lotteryfw.api.errors import UsageError
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.tickets import Ticket

if TYPE_CHECKING:
    from torch import Tensor


class Untrained:
    """An `Outcome` that has the values and the mask of a ticket, and no figures."""

    key = ""
    diverged_at: int | None = None

    def __init__(self, ticket: Ticket):
        self._ticket: Ticket | None = ticket
        self._network = NetworkState({})
        self._mask: Mapping[str, Tensor] = {}

    @property
    def metrics(self) -> NoReturn:
        raise UsageError(
            "a network that lab.probe returned has no figures: nothing was trained or evaluated; "
            "ask lab.train(lab.as_is(ticket)) for those of a ticket as it is"
        )

    @property
    def evaluation(self) -> NoReturn:
        raise UsageError(
            "a network that lab.probe returned has no figures: nothing was trained or evaluated; "
            "ask lab.evaluate(ticket) for those of a ticket as it is"
        )

    def tensors(self) -> NetworkState:
        """Return the values that the ticket starts from."""
        self._take_tensors()
        return self._network

    def mask(self) -> Mapping[str, Tensor]:
        """Return by layer, bool: the ticket's mask."""
        self._take_tensors()
        return self._mask

    def state(self, step: int) -> NoReturn:
        raise UsageError(
            f"there is no step {step} to go back to: nothing was trained before lab.probe"
        )

    def _take_tensors(self) -> None:
        # With the ticket, the rounds of a search would keep the tensors of all their parents.
        if self._ticket is not None:
            self._network, self._mask = NetworkState(self._ticket.values), self._ticket.mask
            self._ticket = None
