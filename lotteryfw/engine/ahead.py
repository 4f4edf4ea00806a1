"""Random numbers for a device: drawn on the CPU for many steps at once, so that steps do not wait for copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import Augmentation
from lotteryfw.api.rng import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SPAN = 64
"""Steps that are drawn for at once."""
MOST_NUMBERS = 1 << 24
"""Numbers that are drawn at once: 64 MB of float32 on the device."""


class Ahead:
    """What `draw` gives for a step, by name, on the device.

    `draw` must depend on the step alone and give tensors of the same names, shapes and dtypes for all of them. Steps
    may come in any order; ascending ones cost one copy of each name for up to SPAN steps.
    """

    def __init__(self, draw: Callable[[int], Mapping[str, Tensor]], device: str):
        self._draw, self._device = draw, device
        self._first, self._steps = 0, 0
        self._drawn: dict[str, Tensor] = {}

    def __call__(self, step: int) -> dict[str, Tensor]:
        """The numbers of a step, not to be written to."""
        if not self._first <= step < self._first + self._steps:
            self._refill(step)
        return {name: numbers[step - self._first] for name, numbers in self._drawn.items()}

    def _refill(self, step: int) -> None:
        import torch

        rows = [self._draw(step)]
        size = sum(numbers.numel() for numbers in rows[0].values())
        self._first, self._steps = step, max(1, min(SPAN, MOST_NUMBERS // max(1, size)))
        for later in range(step + 1, step + self._steps):
            rows.append(self._draw(later))
        self._drawn = {
            name: torch.stack([row[name] for row in rows]).to(self._device) for name in rows[0]
        }


class Augmenter:
    """The augmentations of a training, in turn. The numbers of each step come from a stream of its own, so that
    drawing them ahead changes nothing."""

    def __init__(self, augmentations: Sequence[Augmentation], seed: int, device: str):
        self._augmentations, self._seed, self._device = augmentations, seed, device
        self._ahead: dict[tuple[int, tuple[int, ...]], Ahead] = {}

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """The images of the update from `step` to `step + 1`."""
        for position, augmentation in enumerate(self._augmentations):
            if self._device != "cpu" and type(augmentation).noise is not Augmentation.noise:
                noise = self._noise(position, tuple(images.shape))(step)
                images = augmentation.transform(images, noise)
            else:
                images = augmentation.apply(images, self._stream(position, step))
        return images

    def _stream(self, position: int, step: int) -> torch.Generator:
        return stream(self._seed, "augmentation", position, step)

    def _noise(self, position: int, shape: tuple[int, ...]) -> Ahead:
        place = position, shape
        if place not in self._ahead:
            augmentation = self._augmentations[position]
            self._ahead[place] = Ahead(
                lambda step: augmentation.noise(shape, self._stream(position, step)), self._device
            )
        return self._ahead[place]
