"""Random numbers for a device, drawn on the CPU for many steps at once.

A step on a GPU then does not wait for its numbers to be copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SPAN = 64
"""Steps that are drawn for at once."""
MOST_NUMBERS = 1 << 24
"""Numbers that are drawn at once: 64 MB of float32 on the device."""


class PrefetchedDraws:
    """The random numbers that `draw` gives for a step, by name, on the device.

    `draw` must depend on the step alone and give tensors of the same names, shapes and dtypes for
    all of them. Steps may come in any order; ascending ones cost one copy of each name for up to
    SPAN steps.
    """

    def __init__(self, draw: Callable[[int], Mapping[str, Tensor]], device: str):
        self._draw = draw
        self._device = device
        self._first = 0
        self._steps = 0
        self._drawn: dict[str, Tensor] = {}

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Return the numbers of a step. They must not be written to."""
        if not self._first <= step < self._first + self._steps:
            self._refill(step)
        return {name: numbers[step - self._first] for name, numbers in self._drawn.items()}

    def _refill(self, step: int) -> None:
        rows = [self._draw(step)]
        size = sum(numbers.numel() for numbers in rows[0].values())
        self._first = step
        # Fewer steps at once for large tensors, so that the memory stays bounded.
        self._steps = max(1, min(SPAN, MOST_NUMBERS // max(1, size)))
        for later in range(step + 1, step + self._steps):
            rows.append(self._draw(later))

        self._drawn = {}
        for name in rows[0]:
            stacked = torch.stack([row[name] for row in rows])
            self._drawn[name] = stacked.to(self._device)
