"""Data sets as trainings use them: tensors on the device, mapped ones on the CPU, or streamed.

Batches are gathered by index, or read, and normalised when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lotteryfw.api.data import Dataset, DatasetInfo, StreamedDataset, StreamedSubset, Subset
from lotteryfw.api.rng import Stream, stream
from lotteryfw.engine.streamed_part import StreamedPart

EVALUATION_CHUNK = 1000
"""Examples in one forward pass of an evaluation.

Large enough to be fast, small enough for the activations of convolutional networks."""
STREAMED_CHUNK = 250
"""The same for streamed examples, which are photographs and not icons."""


class WholePart:
    """One part of a data set that is held, or mapped, as a whole."""

    def __init__(self, inputs: Tensor, labels: Tensor):
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Tensor:
        """Return the inputs [*indices, *shape], where they are stored."""
        # Whole rows are copied: of bytes on a CPU, indexing with brackets takes 10 to 20 times as
        # long.
        chosen = indices.to(self.inputs.device).flatten()
        rows = self.inputs.index_select(0, chosen)
        return rows.reshape(*indices.shape, *self.inputs.shape[1:])

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Yield all inputs in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.inputs[start : start + size]


class DeviceDataset:
    """A data set on its device.

    Inputs leave it as float32, in [0, 1] for uint8 data, then as (x - mean) / std; tokens as int64.
    """

    def __init__(self, dataset: Dataset | StreamedDataset, info: DatasetInfo, device: str):
        self._parts: dict[str, WholePart | StreamedPart] = {}
        for name in ("train", "validation", "test"):
            self._parts[name] = _part(name, dataset, info, device)

        self.info = info
        self.shape = info.shape
        self.classes = info.classes
        self.examples = len(self._parts["train"])
        self._device = device
        # Streamed examples are read by threads of the host, which needs their numbers.
        self._order_device = "cpu" if info.streamed else device
        self._moments: list[Tensor] | None = None
        if set(dataset.mean) != {0.0} or set(dataset.std) != {1.0}:
            per_channel = (-1, *[1] * (len(info.shape) - 1))
            self._moments = []
            for moments in (dataset.mean, dataset.std):
                self._moments.append(torch.tensor(moments, device=device).reshape(per_channel))
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._nonzero_share: float | None = None

    def normalised(self, inputs: Tensor) -> Tensor:
        """Return inputs as networks see them, on the device."""
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
        return self.examples_at("train", indices)

    def examples_at(self, part: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs [*indices, *shape] float32 and labels [*indices] of any part."""
        inputs = self.normalised(self._parts[part].take(indices))
        return inputs, self.labels(part)[indices.to(self._device)]

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
        return self.drawn_order(epoch, seed).to(self._order_device)

    def drawn_order(self, epoch: int, seed: int) -> Tensor:
        """Return `order` on the CPU, where it is drawn."""
        return torch.randperm(self.examples, generator=stream(seed, Stream.ORDER, epoch))

    def labels(self, part: str) -> Tensor:
        """Return all labels of a part, on the device."""
        return self._parts[part].labels

    def raw(self, part: str) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of a part as they are stored.

        They are neither divided by 255 nor normalised. Of a streamed data set there are none.
        """
        whole = self._parts[part]
        assert isinstance(whole, WholePart)
        return whole.inputs, whole.labels

    @property
    def streamed(self) -> StreamedPart | None:
        """The training part of a streamed data set, for a training to read ahead; else None."""
        part = self._parts["train"]
        return part if isinstance(part, StreamedPart) else None

    @property
    def is_on_device(self) -> bool:
        """True where the training inputs are in the device's memory, False where in the host's."""
        if self.streamed:
            return False
        inputs, labels = self.raw("train")
        return bool(inputs.device == labels.device)

    @property
    def is_normalised(self) -> bool:
        """True where inputs are not just taken in [0, 1], but have mean and deviation changed."""
        return self._moments is not None

    def nonzero_share(self) -> float:
        """Return the share, in [0, 1], of the training inputs' numbers that networks see as not 0.

        The inputs must not be streamed.
        """
        # What is normalised is 0 nowhere, or by chance.
        if self.is_normalised:
            return 1.0
        if self._nonzero_share is None:
            count = numbers = 0
            for chunk in self._parts["train"].chunks(EVALUATION_CHUNK):
                count += int(torch.count_nonzero(chunk))
                numbers += chunk.numel()
            self._nonzero_share = count / numbers
        return self._nonzero_share

    def batches(self, part: str, size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all examples of a part in order, `size` at a time; the last batch may be smaller.

        `size` is by default what an evaluation computes at once.
        """
        size = size or (STREAMED_CHUNK if self.streamed else EVALUATION_CHUNK)
        labels = self.labels(part)
        for number, inputs in enumerate(self._parts[part].chunks(size)):
            x = self.normalised(inputs)
            # A network may change its inputs in place, and these would be the data set's.
            x = x.clone() if x is inputs else x
            yield x, labels[number * size : (number + 1) * size]


def _part(
    name: str, dataset: Dataset | StreamedDataset, info: DatasetInfo, device: str
) -> WholePart | StreamedPart:
    """Return a part of a data set, its labels on the device."""
    if isinstance(dataset, StreamedDataset):
        streamed: StreamedSubset = getattr(dataset, name)
        return StreamedPart(name, streamed.inputs, streamed.labels, info.shape, device)
    whole: Subset = getattr(dataset, name)
    # The inputs of a mapped data set may not fit into the device's memory.
    inputs_device = "cpu" if dataset.mapped else device
    return WholePart(whole.inputs.to(inputs_device), whole.labels.to(device))
