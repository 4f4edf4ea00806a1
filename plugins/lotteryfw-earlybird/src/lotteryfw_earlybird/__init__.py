"""Early-Bird tickets: drawn early in the dense training, when their masks no longer change."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import Component, Lab, Search, SearchAlgorithm, Step, Trained, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

DRAWN = "drawn"
"""The variant of the dense network at the moment when its ticket was drawn."""

Masks = Mapping[str, "Tensor"]


def mask_distance(one: Masks, other: Masks) -> float:
    """Return the share of the weights that one of two masks keeps and the other does not.

    It is the Hamming distance over all layers together, divided by the number of weights.
    """
    different = size = 0
    for name, mask in one.items():
        different += int((mask != other[name]).sum())
        size += mask.numel()
    return different / size


class SettledMasks:
    """The last masks of a training, and whether they have settled.

    They have where the newest of `window` masks differs from each of the others by `distance` at
    most. There are no fewer than `window` of them, so nothing is drawn in the first epochs.
    """

    def __init__(self, window: int, distance: float):
        self._masks: deque[Masks] = deque(maxlen=window)
        self._distance = distance

    def settled_with(self, masks: Masks) -> bool:
        """Add the masks of another epoch, and return whether they have settled."""
        self._masks.append(masks)
        if len(self._masks) < (self._masks.maxlen or 0):
            return False
        *earlier, newest = self._masks
        return all(mask_distance(newest, masks) <= self._distance for masks in earlier)


class EarlyBird(SearchAlgorithm):
    """Draws a ticket early in the dense training, when its masks settle, and trains the ticket.

    After every epoch the network is pruned to see its mask. Level 1 is the ticket that is drawn when
    the masks of the last epochs hardly differ, or at the end of the training; the variant "drawn"
    has the figures of the dense network at that moment. Level 0 is the dense network, trained to
    the end.
    """

    use = "early_bird"
    formula = "dense → train until the masks of 5 epochs differ by at most 0.1 → prune → train"
    source = "You et al. 2020, Drawing Early-Bird Tickets, algorithm 1"
    variants = (DRAWN,)

    density: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the prunable weights that the ticket keeps: 1 - p of the paper."""
    distance: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The largest distance between masks that have settled. The paper's epsilon."""
    window: Annotated[int, Field(ge=2)] = 5
    """The number of masks that are compared: the length of the paper's queue."""
    every: Step = Step.parse("1ep")
    """The length of training between two masks."""
    dense: bool = True
    """Also train the dense network to the end, as level 0, to compare with."""

    def search(self, lab: Lab) -> Search[None]:
        dense = lab.dense()
        if self.dense:
            trained = yield from lab.train(dense, probe=False)
            lab.record(0, dense, trained)

        masks = SettledMasks(self.window, self.distance)

        def has_settled(segments: Sequence[Trained]) -> bool:
            newest = segments[-1]
            # In a plan there are no weights yet: this ends it before a network is built.
            newest.weights()
            return masks.settled_with(lab.prune(dense, newest, density=self.density).mask)

        early = yield from lab.stop_when(dense, has_settled, every=str(self.every))
        lab.record(1, dense, early, DRAWN)
        ticket = lab.prune(dense, early, density=self.density)
        trained = yield from lab.train(ticket, probe=False)
        lab.record(1, ticket, trained)


@hookimpl
def register_components() -> list[type[Component]]:
    """Offer the search."""
    return [EarlyBird]
