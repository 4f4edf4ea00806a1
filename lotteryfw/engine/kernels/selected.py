"""Which edges a search has ever selected while it learned a mask, and how far its masks still move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.layers import SELECTED
from lotteryfw.api.metrics import FigureUnit

if TYPE_CHECKING:
    from torch import Tensor

_LAST = "last/"
UNITS: Mapping[str, FigureUnit] = {"dying_ratio": "share", "turnover": "share"}
"""The figures of a training that learns a mask, with their units (see `Selected.figures`)."""


class Selected:
    """One bit an edge, set once a step's mask has it. Costs one pass over the masks a step."""

    def __init__(self, allowed: Mapping[str, Tensor]):
        import torch

        self._allowed = sum(int(mask.sum()) for mask in allowed.values())
        self._ever = {name: torch.zeros_like(mask) for name, mask in allowed.items()}
        self._last: dict[str, Tensor] = {}

    def see(self, masks: Mapping[str, Tensor]) -> None:
        """Takes in the masks of a step."""
        for name, ever in self._ever.items():
            ever.logical_or_(masks[name])

    def figures(self, masks: Mapping[str, Tensor]) -> dict[str, float]:
        """The share of the allowed edges that no step so far has selected (dying_ratio), and the share of the edges
        selected at the last call that `masks` has not any more (turnover; 0 at the first call)."""
        lost_masks = {name: mask & ~masks[name] for name, mask in self._last.items()}
        ever, kept, lost = _counts(self._ever, self._last, lost_masks)
        self._last = {name: mask.clone() for name, mask in masks.items()}
        return {"dying_ratio": 1 - ever / max(1, self._allowed), "turnover": lost / max(1, kept)}

    def values(self) -> dict[str, Tensor]:
        """The bits, as tensors of a training."""
        ever = {SELECTED + name: mask for name, mask in self._ever.items()}
        return ever | {_LAST + name: mask for name, mask in self._last.items()}

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Goes back to values that `values()` gave."""
        for name, ever in self._ever.items():
            ever.copy_(values[SELECTED + name])
        self._last = {
            name.removeprefix(_LAST): mask.clone()
            for name, mask in values.items()
            if name.startswith(_LAST)
        }


def _counts(*groups: Mapping[str, Tensor]) -> list[int]:
    """How many edges the masks of each group have together; one wait for all of them."""
    import torch

    sizes = [len(masks) for masks in groups]
    sums = [mask.sum() for masks in groups for mask in masks.values()]
    counts = torch.stack(sums).tolist() if sums else []
    parts, start = [], 0
    for size in sizes:
        parts.append(sum(counts[start : start + size]))
        start += size
    return parts
