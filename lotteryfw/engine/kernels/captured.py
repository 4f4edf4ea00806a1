"""Updates that are recorded once, as a CUDA graph, and replayed: one launch instead of a hundred.

The step of a small network on a GPU is mostly the cost of launching its operations. A recorded
update reads its batch and its learning rate from device tensors that stay in one place, so that the
host only has to change those and to replay. The evaluations of the curve are recorded likewise.
Where a device has no recorder (see `RECORDERS`), kernels take their plain path; where recording
fails, the same work runs operation by operation, with the same results, and a warning says why.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from lotteryfw.engine.device_dataset import DeviceDataset
from lotteryfw.engine.kernels.optimizer_rules import has_step_hooks

T = TypeVar("T")

WARM_UP = 3
"""Updates before the recording, in which libraries set up and optimizers make their state."""
Body = Callable[[], None]
"""Does everything of an update, or of an evaluation, that happens on the device."""
Pool = Any
"""Memory that a recorder has the recordings of one training share."""
DeviceStep = Callable[[Tensor, Tensor], Tensor]
"""Makes an update with the inputs and labels of a batch, and returns its losses."""


class Recorder(Protocol):
    """Records work on one type of device."""

    def pool(self) -> Pool:
        """Return memory for the recordings of one training, which are never replayed at once."""
        ...

    def warm_up(self, body: Body) -> None:
        """Run `body` as it should be run before it is recorded."""
        ...

    def record(self, body: Body, pool: Pool) -> Body:
        """Return a function that does what `body` does, which is not executed now.

        Raises where that fails.
        """
        ...


class CudaGraphs:
    """Records CUDA graphs, as the section "CUDA Graphs" of torch's documentation describes."""

    def __init__(self) -> None:
        # One for the process: cuBLAS keeps 32 MiB for each stream that it was ever called on, and
        # torch has 32 of them.
        self._stream: torch.cuda.Stream | None = None

    def pool(self) -> Pool:
        """Return a memory pool of its own; what one graph has released, another can take."""
        return torch.cuda.graph_pool_handle()

    def warm_up(self, body: Body) -> None:
        """Run `body` on another stream, since its set-up must not belong to the default stream."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # What was begun on the default stream is read here, and the other way round below.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            body()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, body: Body, pool: Pool) -> Body:
        """Return the replay of a graph. The memory is released with the last graph of its pool."""
        device, stream = torch.cuda.current_device(), torch.cuda.current_stream()
        # Dropout within a recording draws from it, and advances its offset at each replay.
        generator = torch.cuda.default_generators[device]
        state = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool):
                body()
        except Exception:
            # A recording that breaks off leaves the stream, the generator and the allocator in the
            # middle of it.
            torch.cuda.set_stream(stream)
            generator.graphsafe_set_state(state)
            # Where torch has put the allocator right itself, the first call raises.
            with suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(device, pool)
                torch._C._cuda_releasePool(device, pool)
            raise
        return graph.replay


RECORDERS: dict[str, Recorder] = {"cuda": CudaGraphs()}
"""By the type of the device. Empty it to have every update made operation by operation."""


def recorder_for(optimizer: torch.optim.Optimizer, device: str) -> Recorder | None:
    """Return the recorder of updates with this optimizer on a device; None where there is none.

    An optimizer must take its learning rate from the device, as torch's fused ones do.
    """
    # Others read the rate as a Python number, which would be frozen into the recording.
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    # A hook of Python would be called while the update is recorded, and never again.
    if type(optimizer) in (SGD, Adam, AdamW) and is_fused and not has_step_hooks(optimizer):
        return RECORDERS.get(device)
    return None


class LearningRates:
    """The learning rates of an optimizer's groups, as tensors that a recorded update reads."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: str):
        self._optimizer = optimizer
        self._factor = 1.0
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self.tensors = [
            torch.tensor(rate, dtype=torch.float32, device=device) for rate in self._base
        ]
        self.bind()

    def bind(self) -> None:
        """Make the optimizer read the tensors; call it again after its state was loaded."""
        for group, tensor in zip(self._optimizer.param_groups, self.tensors, strict=True):
            group["lr"] = tensor

    def set(self, factor: float) -> None:
        """Set every rate to `factor` times its first value."""
        # Most schedules hold the rate for many steps, and a fill costs a launch.
        if factor != self._factor:
            for tensor, rate in zip(self.tensors, self._base, strict=True):
                tensor.fill_(rate * factor)
            self._factor = factor

    @contextmanager
    def capturable(self) -> Iterator[None]:
        """Tell the optimizer that it is recorded: without this, Adam warns."""
        groups = [group for group in self._optimizer.param_groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        try:
            yield
        finally:
            for group in groups:
                group["capturable"] = False


class Batches(Protocol):
    """The batches of a training, read from tensors that stay in one place."""

    def seek(self, step: int) -> None:
        """Prepare the batch of the update from `step` to `step + 1`."""
        ...

    def read(self) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of the prepared batch; a part of the recorded update."""
        ...


class GatheredBatches:
    """Batches that are gathered on the device, by an order of the examples that lies there too."""

    def __init__(
        self,
        dataset: DeviceDataset,
        order: Callable[[int], Tensor],
        size: int,
        steps_per_epoch: int,
        device: str,
    ):
        """`order`: a method that returns the order of an epoch, [..., examples] int64, on the CPU.

        Its entries are indices in the training part.
        """
        self._dataset = dataset
        self._steps_per_epoch = steps_per_epoch
        self._size = size
        self._draw = _weak(order)
        self._epoch = 0
        self._order = order(0).to(device)
        self._columns = torch.arange(min(size, dataset.examples), device=device)
        self._start = torch.zeros((), dtype=torch.int64, device=device)
        # The value of `_start`, known without asking the device.
        self._next = 0

    def seek(self, step: int) -> None:
        """Move to the epoch and to the batch in it."""
        epoch, batch = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            # Into the same memory, which the recording reads.
            self._order.copy_(self._draw(epoch))
            self._epoch = epoch
        start = batch * self._size
        # After a resumption or a gap; in ascending order `read` has moved on already.
        if start != self._next:
            self._start.fill_(start)
        self._next = start + self._size

    def read(self) -> tuple[Tensor, Tensor]:
        """Gather the batch, and move on to the next."""
        indices = self._order.index_select(-1, self._columns + self._start)
        self._start.add_(self._size)
        return self._dataset.at(indices)


class LoadedBatches:
    """Batches that are made before the recorded update.

    They are augmented, or come from the host's memory.
    """

    def __init__(self, load: Callable[[int], tuple[Tensor, Tensor]]):
        """`load`: a method that makes the inputs and labels of a step's batch."""
        self._load = _weak(load)
        self._batch: tuple[Tensor, Tensor] | None = None

    def seek(self, step: int) -> None:
        """Make the batch."""
        inputs, labels = self._load(step)
        if self._batch is None:
            # The recording reads these two tensors; later batches are copied into them.
            self._batch = inputs.clone(), labels.clone()
        else:
            self._batch[0].copy_(inputs)
            self._batch[1].copy_(labels)

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the batch."""
        assert self._batch is not None
        return self._batch


def _weak(method: Callable[[int], T]) -> Callable[[int], T]:
    """Return a function that calls a method and does not keep its object alive.

    In a cycle with it, a recording's memory on the device would outlive the training until Python
    looks for cycles.
    """
    reference = weakref.WeakMethod(method)

    def call(number: int) -> T:
        bound = reference()
        assert bound is not None
        return bound(number)

    return call


class SharedPool:
    """The memory that the recordings of one training share."""

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        # Weakly, since they refer to this: a cycle would keep the memory of a GPU.
        self._recordings: weakref.WeakSet[Recording] = weakref.WeakSet()
        self.current = recorder.pool()

    def add(self, recording: Recording) -> None:
        """Note a recording that lies in this memory."""
        self._recordings.add(recording)

    def replace(self) -> None:
        """Take other memory after a recording that broke off, which has released this.

        What was recorded before is recorded anew: the random numbers of such a recording are those
        of a generator that the device no longer seeds.
        """
        self.current = self._recorder.pool()
        for recording in list(self._recordings):
            if recording.is_made:
                recording.forget()


class Recording:
    """Work on the device that runs as it is the first few times, then from a recording."""

    def __init__(self, recorder: Recorder, pool: SharedPool, what: str, warm_up: int):
        """`what`: the work as a warning names it; `warm_up`: how often it runs before it is recorded."""
        self._recorder = recorder
        self._pool = pool
        self._what = what
        self._times = self._warm_up = warm_up
        self._replay: Body | None = None
        self.is_refused = False
        """Whether recording failed. One try is enough: what cannot be recorded once never can."""
        pool.add(self)

    @property
    def is_made(self) -> bool:
        """True from the recording on, until it is forgotten."""
        return self._replay is not None

    def run(self, body: Body, state: AbstractContextManager[None] | None = None) -> None:
        """Do what `body` does. It is the same at every call; `state` is entered to record it."""
        if not (self.is_made or self.is_refused or self._warm_up):
            self._record(body, state or nullcontext())

        if self._replay is not None:
            self._replay()
        elif self._warm_up:
            # Its result counts all the same: nothing is computed for the warm-up alone.
            self._warm_up -= 1
            self._recorder.warm_up(body)
        else:
            body()

    def forget(self) -> None:
        """Record anew, since what the recording reads lies elsewhere now."""
        self._replay = None
        self._warm_up = self._times

    def _record(self, body: Body, state: AbstractContextManager[None]) -> None:
        try:
            with state:
                self._replay = self._recorder.record(body, self._pool.current)
        except Exception as error:
            self.is_refused = True
            self._pool.replace()
            # The end of a recording that broke off raises, too.
            reason = error.__context__ or error
            first_line = str(reason).partition("\n")[0]
            text = f"{self._what} cannot be recorded as a graph and run step by step: {first_line}"
            warnings.warn(text, RuntimeWarning, stacklevel=5)


class RecordedUpdates:
    """The updates of one training: the first few as they are, then from a recording."""

    def __init__(self, recorder: Recorder, batches: Batches, rates: LearningRates, losses: Tensor):
        """`losses`: where each update leaves its losses."""
        self.rates = rates
        self._batches = batches
        self._losses = losses
        pool = SharedPool(recorder)
        self._recording = Recording(recorder, pool, "a training's updates", WARM_UP)
        self.evaluation = RecordedEvaluation(recorder, pool, self._recording)
        """The evaluation of the training's curve, in the memory of the updates."""

    def update(self, step: int, factor: float, device_step: DeviceStep) -> Tensor:
        """Make the update from `step` to `step + 1` at `factor` times the learning rate.

        Returns its losses, which the next update overwrites. `device_step` is the same at every
        call.
        """
        # Not a part of the recording: it depends on the number of the step.
        self._batches.seek(step)
        self.rates.set(factor)
        batches, losses = self._batches, self._losses

        def body() -> None:
            losses.copy_(device_step(*batches.read()))

        self._recording.run(body, self.rates.capturable())
        return self._losses

    def forget(self) -> None:
        """Record anew, since the optimizer's state lies elsewhere now."""
        self._recording.forget()
        self.rates.bind()


class RecordedEvaluation:
    """The evaluation of one part of the data: the first two as they are, then from a recording.

    The part lies on the device, and so do the weights, in tensors that stay in one place. Where the
    `updates` could not be recorded, none is tried: the network's forward pass is in both.
    """

    def __init__(self, recorder: Recorder, pool: SharedPool, updates: Recording):
        self._recording = Recording(recorder, pool, "a training's evaluations", 1)
        self._updates = updates
        self._sums: Tensor | None = None

    def sums(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returns, of one shape at every call; the next call overwrites it."""
        if self._updates.is_refused:
            return compute()
        if self._sums is None:
            # What it is copied to must not belong to the recording.
            self._sums = compute()
            return self._sums
        sums = self._sums

        def body() -> None:
            sums.copy_(compute())

        self._recording.run(body)
        return sums
