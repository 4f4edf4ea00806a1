"""The jobs that searches ask for, and what they are answered with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from lotteryfw.api.metrics import Evaluation, Metrics
from lotteryfw.api.network_state import NetworkState

if TYPE_CHECKING:
    from torch import Tensor


class Request(Protocol):
    """A job that a search asks for. The lab makes them: `yield from lab.train(ticket)`."""

    @property
    def origin(self) -> str:
        """The digest of how the job comes about."""
        ...

    @property
    def steps(self) -> int:
        """Its length in optimizer updates."""
        ...


class Outcome(Protocol):
    """The result of a job in the store. Tensors are read when they are first used."""

    @property
    def key(self) -> str:
        """The key of the job."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The figures of a training. Raises TrainingDiverged for one that has none."""
        ...

    @property
    def evaluation(self) -> Evaluation:
        """The figures of a network that was measured as it is."""
        ...

    @property
    def diverged_at(self) -> int | None:
        """The step at which a training was found to have diverged, or None."""
        ...

    def tensors(self) -> NetworkState:
        """Return the network after a training; of a probe, a tensor for each layer."""
        ...

    def mask(self) -> Mapping[str, Tensor]:
        """Return by layer, bool: the weights trained; of a learned mask, the allowed edges."""
        ...

    def state(self, step: int) -> tuple[NetworkState, Mapping[str, Tensor]]:
        """Return the network, and the optimizer's state, after `step` steps."""
        ...
