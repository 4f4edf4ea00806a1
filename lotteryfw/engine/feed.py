"""Whole data sets as tensors on the device, mapped ones on the CPU: batches by index, normalised on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lotteryfw.api.data import Dataset, DatasetInfo
from lotteryfw.api.rng import stream

if TYPE_CHECKING:
    from torch import Tensor

EVALUATION_CHUNK = 1000
"""Examples in one forward pass of an evaluation: large enough to be fast, small enough for conv nets' activations."""


class Feed:
    """A data set on its device. Inputs leave it as float32, in [0, 1] for uint8 data, then (x - mean) / std."""

    def __init__(self, splits: Dataset, facts: DatasetInfo, device: str):
        import torch

        home = "cpu" if splits.mapped else device
        self._parts = {
            part: (getattr(splits, part).inputs.to(home), getattr(splits, part).labels.to(device))
            for part in ("train", "validation", "test")
        }
        inputs, labels = self._parts["train"]
        self.shape, self.classes = facts.shape, facts.classes
        self.examples = len(labels)
        self._device = device
        plain = set(splits.mean) == {0.0} and set(splits.std) == {1.0}
        spread = (-1, *[1] * (inputs.dim() - 2))
        moments = [
            torch.tensor(values, device=device).reshape(spread)
            for values in (splits.mean, splits.std)
        ]
        self._moments = None if plain else moments
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def _ready(self, inputs: Tensor) -> Tensor:
        import torch

        x = inputs.to(self._device).to(torch.float32)
        if inputs.dtype == torch.uint8:
            x = x.div_(255.0)
        if self._moments is None:
            return x
        mean, std = self._moments
        return (x - mean) / std

    def batch(self, step: int, size: int, steps_per_epoch: int, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs [size, *shape] float32 and labels [size] int64 of the update from `step` to `step + 1`."""
        return self.at(self.rows(step, size, steps_per_epoch, seed))

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [*rows, *shape] float32 and labels [*rows] int64 of places in the training part."""
        inputs, labels = self.raw("train")
        return self._ready(inputs[rows.to(inputs.device)]), labels[rows]

    def examples_at(self, part: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [*rows, *shape] float32 and labels [*rows] of places in any part."""
        inputs, labels = self.raw(part)
        return self._ready(inputs[rows.to(inputs.device)]), labels[rows.to(labels.device)]

    def rows(self, step: int, size: int, steps_per_epoch: int, seed: int) -> Tensor:
        """Places [size] int64 in the training part of the examples of the update from `step` to `step + 1`.

        Each epoch is cut into whole batches; the few examples left over at its end wait for the next. What a step sees
        so depends on its number alone.
        """
        epoch, place = divmod(step, steps_per_epoch)
        if self._order is None or self._order[0] != (seed, epoch):
            self._order = ((seed, epoch), self.order(epoch, seed))
        return self._order[1][place * size : (place + 1) * size]

    def order(self, epoch: int, seed: int) -> Tensor:
        """The places [examples] int64 in the training part in the order of an epoch, drawn from (seed, epoch)."""
        return self.drawn_order(epoch, seed).to(self._device)

    def drawn_order(self, epoch: int, seed: int) -> Tensor:
        """`order` on the CPU, where it is drawn."""
        import torch

        return torch.randperm(self.examples, generator=stream(seed, "order", epoch))

    def raw(self, part: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a part as they are stored: not divided by 255, not normalised."""
        return self._parts[part]

    @property
    def is_on_device(self) -> bool:
        """True where the training inputs are in the device's memory, False where they are mapped into the host's."""
        inputs, labels = self._parts["train"]
        return bool(inputs.device == labels.device)

    @property
    def is_normalised(self) -> bool:
        """True where inputs are not just taken in [0, 1], but have mean and deviation changed."""
        return self._moments is not None

    def sweep(self, part: str, size: int = EVALUATION_CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples of a part in order, `size` at a time; the last, smaller one counts too."""
        inputs, labels = self._parts[part]
        for start in range(0, len(labels), size):
            yield self._ready(inputs[start : start + size]), labels[start : start + size]
