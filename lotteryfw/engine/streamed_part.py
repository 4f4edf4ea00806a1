"""Streamed examples: threads read them while the device works on the batches before them.

They are threads, and not the processes of `torch.utils.data.DataLoader`, for three reasons. Pillow
and torch release the interpreter's lock while they decode and resize. A forked process would keep
the locks and the pipe of a killed worker open. And a `DataLoader` pins memory from a thread of its
own, which no CUDA graph can be recorded beside: here the thread that trains allocates each batch,
pinned, and the readers write its rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from lotteryfw.api.data import DrawBox, ExampleReader
from lotteryfw.api.errors import ContractError, naming
from lotteryfw.api.limits import Limit

_MOST_THREADS = 16
_ROWS = 4
"""Examples that a thread reads before it takes others: a task for each one costs more."""


def _usable_cores() -> int:
    # Not every system can restrict a process to some of its cores.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


READ_THREADS = Limit("LOTTERYFW_READ_THREADS", min(_MOST_THREADS, _usable_cores()))
"""Threads of a process that read streamed examples. No result depends on their number."""


@cache
def _readers() -> ThreadPoolExecutor:
    """Return the threads of this process, which all its trainings share."""
    return ThreadPoolExecutor(READ_THREADS.value, thread_name_prefix="lotteryfw-reader")


class BatchInReading:
    """A batch that threads are reading."""

    def __init__(
        self,
        part: StreamedPart,
        indices: Tensor,
        boxes: Callable[[int], DrawBox] | None,
    ):
        self.labels = part.labels_of(indices)
        self._part = part
        self._numbers = indices.tolist()
        self._boxes = boxes
        self._rows = part.empty(len(indices))
        self._cancelled = threading.Event()
        self._tasks: list[Future[None]] = []
        for start in range(0, len(indices), _ROWS):
            self._tasks.append(_readers().submit(self._read, start))

    def _read(self, start: int) -> None:
        for row in range(start, min(start + _ROWS, len(self._numbers))):
            if self.is_cancelled:
                return
            index = self._numbers[row]
            draw_box = None if self._boxes is None else self._boxes(index)
            self._rows[row] = self._part.read(index, draw_box)

    def wait(self) -> Tensor:
        """Return the inputs once all are read, on the CPU. Raises what reading has raised."""
        try:
            for task in self._tasks:
                task.result()
        except BaseException:
            self.cancel()
            raise
        return self._rows

    @property
    def is_cancelled(self) -> bool:
        """True where the rest is left unread."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Leave the rest unread."""
        self._cancelled.set()


class StreamedPart:
    """One part of a streamed data set."""

    def __init__(
        self, name: str, reader: ExampleReader, labels: Tensor, shape: Sequence[int], device: str
    ):
        self._name = name
        self._reader = reader
        self._host_labels = labels.cpu()
        self.labels = labels.to(device)
        self._shape = tuple(shape)
        self._device = device
        # Copies from pinned memory do not wait for the device.
        self._is_pinned = device == "cuda"
        # The first example stands for all: each is compared with it as it is read.
        self.dtype = self._checked(0, None).dtype

    def __len__(self) -> int:
        return len(self.labels)

    def empty(self, count: int) -> Tensor:
        """Return memory for `count` inputs."""
        # torch keeps pinned memory for the next batch, once the device has copied this one.
        return torch.empty((count, *self._shape), dtype=self.dtype, pin_memory=self._is_pinned)

    def labels_of(self, indices: Tensor) -> Tensor:
        """Return the labels of a batch, in the host's memory as its inputs are."""
        labels = self._host_labels[indices]
        return labels.pin_memory() if self._is_pinned else labels

    def read(self, index: int, draw_box: DrawBox | None) -> Tensor:
        """Return one input [*shape]. Raises DataError, and ContractError for anything else."""
        inputs = self._checked(index, draw_box)
        if inputs.dtype != self.dtype:
            raise ContractError(
                f"the {self._name} part: read({index}) returned {inputs.dtype}, and read(0) "
                f"{self.dtype}"
            )
        return inputs

    def _checked(self, index: int, draw_box: DrawBox | None) -> Tensor:
        with naming(f"the {self._name} part of the data", "read()"):
            inputs = self._reader.read(index, draw_box)
        if not isinstance(inputs, Tensor) or inputs.shape != self._shape:
            returned = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ContractError(
                f"the {self._name} part: read({index}) returned {returned}; its facts promise "
                f"{list(self._shape)}"
            )
        return inputs

    def begin(
        self, indices: Tensor, boxes: Callable[[int], DrawBox] | None = None
    ) -> BatchInReading:
        """Begin to read a batch of examples. `boxes` returns by index how to crop one."""
        return BatchInReading(self, indices, boxes)

    def to_device(self, batch: BatchInReading) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of a batch on the device, once they are read."""
        inputs, labels = batch.wait(), batch.labels
        # The host does not wait for the copies, and so for the steps before them.
        return (
            inputs.to(self._device, non_blocking=True),
            labels.to(self._device, non_blocking=True),
        )

    def take(self, indices: Tensor) -> Tensor:
        """Return the inputs [*indices, *shape], as evaluations see them."""
        inputs, _ = self.to_device(self.begin(indices))
        return inputs

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Yield all inputs in order, `size` at a time, the next ones being read meanwhile."""
        everything = torch.arange(len(self))
        following = self.begin(everything[:size])
        try:
            for start in range(size, len(self) + size, size):
                batch, following = following, self.begin(everything[start : start + size])
                inputs, _ = self.to_device(batch)
                yield inputs
        finally:
            # Whoever takes no more chunks does not wait for the next.
            following.cancel()
