"""Whole data sets as tensors on the device, mapped ones on the CPU.

Batches are gathered by index and normalised when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lotteryfw.api.data import Dataset, DatasetInfo
from lotteryfw.api.rng import Stream, stream

EVALUATION_CHUNK = 1000
"""Examples in one forward pass of an evaluation.

Large enough to be fast, small enough for the activations of convolutional networks."""


class DeviceDataset:
    """A data set on its device.

    Inputs leave it as float32, in [0, 1] for uint8 data, then as (x - mean) / std; tokens as int64.
    """

    def __init__(self, dataset: Dataset, info: DatasetInfo, device: str):
        # The inputs of a mapped data set may not fit into the device's memory.
        inputs_device = "cpu" if dataset.mapped else device
        self._parts: dict[str, tuple[Tensor, Tensor]] = {}
        for part in ("train", "validation", "test"):
            subset = getattr(dataset, part)
            self._parts[part] = (subset.inputs.to(inputs_device), subset.labels.to(device))

        inputs, labels = self._parts["train"]
        self.info = info
        self.shape = info.shape
        self.classes = info.classes
        self.examples = len(labels)
        self._device = device
        self._moments: list[Tensor] | None = None
        if set(dataset.mean) != {0.0} or set(dataset.std) != {1.0}:
            per_channel = (-1, *[1] * (inputs.dim() - 2))
            self._moments = []
            for moments in (dataset.mean, dataset.std):
                self._moments.append(torch.tensor(moments, device=device).reshape(per_channel))
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def _normalised(self, inputs: Tensor) -> Tensor:
        if inputs.dtype == torch.int64:
            # tokens are names, not numbers
            return inputs.to(self._device)
        x = inputs.to(self._device).to(torch.float32)
        if inputs.dtype == torch.uint8:
            x = x.div_(255.0)
        if self._moments is None:
            return x
        mean, std = self._moments
        return (x - mean) / std

    def batch(self, step: int, size: int, steps_per_epoch: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return the batch of the update from `step` to `step + 1`.

        It has inputs [size, *shape] float32 and labels [size] int64.
        """
        return self.at(self.batch_indices(step, size, steps_per_epoch, seed))

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs [*indices, *shape] float32 and labels [*indices] of the training part."""
        inputs, labels = self.raw("train")
        return self._normalised(inputs[indices.to(inputs.device)]), labels[indices]

    def examples_at(self, part: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs [*indices, *shape] float32 and labels [*indices] of any part."""
        inputs, labels = self.raw(part)
        return self._normalised(inputs[indices.to(inputs.device)]), labels[
            indices.to(labels.device)
        ]

    def batch_indices(self, step: int, size: int, steps_per_epoch: int, seed: int) -> Tensor:
        """Return the indices [size] int64, in the training part, of a step's examples.

        Each epoch is divided into whole batches; the few examples left over at its end wait for
        the next. What a step sees so depends on its number alone.
        """
        epoch, batch = divmod(step, steps_per_epoch)
        # Drawn once an epoch: a permutation of 50,000 examples takes longer than a small step.
        if self._order is None or self._order[0] != (seed, epoch):
            self._order = ((seed, epoch), self.order(epoch, seed))
        return self._order[1][batch * size : (batch + 1) * size]

    def order(self, epoch: int, seed: int) -> Tensor:
        """Return the order [examples] int64 of an epoch, drawn from (seed, epoch)."""
        return self.drawn_order(epoch, seed).to(self._device)

    def drawn_order(self, epoch: int, seed: int) -> Tensor:
        """Return `order` on the CPU, where it is drawn."""
        return torch.randperm(self.examples, generator=stream(seed, Stream.ORDER, epoch))

    def raw(self, part: str) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of a part as they are stored.

        They are neither divided by 255 nor normalised.
        """
        return self._parts[part]

    @property
    def is_on_device(self) -> bool:
        """True where the training inputs are in the device's memory, False where in the host's."""
        inputs, labels = self._parts["train"]
        return bool(inputs.device == labels.device)

    @property
    def is_normalised(self) -> bool:
        """True where inputs are not just taken in [0, 1], but have mean and deviation changed."""
        return self._moments is not None

    def batches(self, part: str, size: int = EVALUATION_CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all examples of a part in order, `size` at a time; the last batch may be smaller."""
        inputs, labels = self._parts[part]
        for start in range(0, len(labels), size):
            yield self._normalised(inputs[start : start + size]), labels[start : start + size]
