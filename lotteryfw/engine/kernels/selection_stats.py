"""Counts which edges a search has ever selected while it learned a mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.tickets import SELECTED

CURVE_UNITS: Mapping[str, FigureUnit] = {"dying_ratio": "share", "turnover": "share"}
_LAST = "last"


class SelectionStats:
    """One bit for each edge, set once the mask of a step has it.

    It costs one pass over the masks at each step.
    """

    def __init__(self, allowed: Mapping[str, Tensor]):
        self._allowed = sum(int(mask.sum()) for mask in allowed.values())
        self._ever = {name: torch.zeros_like(mask) for name, mask in allowed.items()}
        self._last: Mapping[str, Tensor] = {}

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Count the masks of a step."""
        for name, ever in self._ever.items():
            ever.logical_or_(masks[name])

    def figures(self, masks: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the dying ratio and the turnover.

        They are the share of the allowed edges that no step so far has selected, and the share of
        the edges selected at the last call that `masks` no longer has (0 at the first call).
        """
        lost_masks = {name: mask & ~masks[name] for name, mask in self._last.items()}
        # The three counts in one transfer.
        ever, kept, lost = _counts(self._ever, self._last, lost_masks)
        self._last = {name: mask.clone() for name, mask in masks.items()}
        return {"dying_ratio": 1 - ever / max(1, self._allowed), "turnover": lost / max(1, kept)}

    def extra(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the bits, as further tensors of a `NetworkState`."""
        return {SELECTED: self._ever, _LAST: self._last}

    def restore(self, extra: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go back to tensors that `extra()` returned."""
        for name, ever in self._ever.items():
            ever.copy_(extra[SELECTED][name])
        last = extra.get(_LAST, {})
        self._last = {name: mask.clone() for name, mask in last.items()}


def _counts(*groups: Mapping[str, Tensor]) -> list[int]:
    """Return how many edges the masks of each group have together, in one wait for the device."""
    sums = []
    for masks in groups:
        sums += [mask.sum() for mask in masks.values()]
    counts = torch.stack(sums).tolist() if sums else []

    totals, start = [], 0
    for masks in groups:
        stop = start + len(masks)
        totals.append(sum(counts[start:stop]))
        start = stop
    return totals
