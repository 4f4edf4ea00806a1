"""The kernel that trains one network on several devices: a process for each, a share of each batch.

It wraps the kernel that would train the job on one device. Every rank runs that kernel on its share
of the batch; before each update the gradients are added up over all ranks (see `StepExchange`), so
that all make the same update, that of the whole batch. Rank 0 is the process that was given the
job: it alone evaluates and writes checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from lotteryfw.api.errors import LotteryError
from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.kernels import mask_training, reference
from lotteryfw.engine.kernels.kernel import Candidate, KernelDescription
from lotteryfw.engine.messages import BeginTraining, CompareWeights, MakeUpdate, ToRank
from lotteryfw.engine.ranks.exchange import LostRank, Ranks
from lotteryfw.engine.ranks.processes import RankProcesses
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.spool import spool, unspool
from lotteryfw.search.jobs import Spec, Train
from lotteryfw.store import tensors as tensor_files

_WRAPPED = (reference.KERNEL, mask_training.KERNEL)
_STATE, _OPTIMIZER = "state.safetensors", "optimizer.safetensors"


class RankTraining:
    """The part of a training that one rank makes."""

    def __init__(self, job: Train, context: EngineContext):
        self.job = job
        self._device = context.device
        self.kernel: reference.Reference | mask_training.MaskTraining
        if job.parametrization is None:
            self.kernel = reference.Reference(job, context)
        else:
            self.kernel = mask_training.MaskTraining(job, context)
        self._ranks: Ranks | None = None

    def join(self, rank: int, rendezvous: Path) -> None:
        """Join the other ranks. Raises LostRank."""
        self._ranks = Ranks(rank, self.job.devices, self._device, rendezvous)
        self.kernel.network.join(self._ranks)

    def leave(self) -> None:
        """Leave the other ranks, if they were joined."""
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None

    def abort(self) -> None:
        """Break off the exchange that waits for a rank which is gone."""
        if self._ranks is not None:
            self._ranks.abort()

    def update(self, step: int, factor: float) -> Tensor:
        """Make an update together with the other ranks, and return the loss of the whole batch."""
        return self.kernel.update(step, factor)

    def differing_ranks(self) -> list[int]:
        """Return the ranks whose network has other bits than that of rank 0."""
        assert self._ranks is not None
        state = self.kernel.members[0].state()
        return self._ranks.differing([*state.values.values(), *state.scores.values()])


def rank_training(begin: BeginTraining, context: EngineContext) -> RankTraining:
    """Return the training of a rank that rank 0 has started, at the state that rank 0 is in."""
    assert context.store is not None
    job = unspool(begin.job, context.store)
    assert isinstance(job, Train)
    training = RankTraining(job, context)
    state = {}
    for name, tensor in tensor_files.load(begin.start / _STATE)[0].items():
        state[name] = tensor.to(context.device)
    optimizer_state = tensor_files.load(begin.start / _OPTIMIZER)[0]
    training.kernel.members[0].restore(NetworkState.decoded(state), optimizer_state)
    return training


class Distributed:
    """Trains a network together with other processes. It is its own and only `Member`.

    The processes are started at the first update, so that a network which is only evaluated needs
    none.
    """

    loss_dtype = torch.float32

    def __init__(self, job: Train, context: EngineContext):
        self._job = job
        self._context = context
        # Before the other ranks start: they map the decoded data that this one leaves in the store.
        self._training = RankTraining(job, context)
        self._member = self._training.kernel.members[0]
        self._processes: RankProcesses | None = None
        self._folder: Path | None = None
        self._spooled: str | None = None
        self._step = job.start

    @property
    def members(self) -> Sequence[Distributed]:
        """The network."""
        return (self,)

    @property
    def curve_units(self) -> Mapping[str, FigureUnit]:
        """The further curves of the wrapped kernel."""
        return self._member.curve_units

    def update(self, step: int, factor: float) -> Tensor:
        """Make one update on all ranks, and return the loss of the whole batch.

        Raises LotteryError, which names the rank, where one is lost.
        """
        self._step = step
        if self._processes is None:
            self._start()
        self._send(MakeUpdate(step, factor))
        try:
            return self._training.update(step, factor)
        except LostRank as error:
            raise self._lost(error) from error

    def _start(self) -> None:
        """Start the other ranks at the state that this one is in."""
        context, job = self._context, self._job
        if context.store is None:
            raise LotteryError(
                "the other ranks read their job from a store, and there is none here"
            )
        self._folder = context.store.scratch(job.key) / f"ranks-{uuid4().hex}"
        tensor_files.save(self._folder / _STATE, self._member.state().encoded(), flush=False)
        optimizer_state = self._member.optimizer_state()
        tensor_files.save(self._folder / _OPTIMIZER, optimizer_state, flush=False)
        self._spooled = spool(job, context.store)
        self._processes = RankProcesses(job.devices, self._training.abort)
        rendezvous = self._folder / "rendezvous"
        begin = BeginTraining(
            rank=0,
            job=self._spooled,
            start=self._folder,
            rendezvous=rendezvous,
            store=context.store.root,
            data_folder=context.data_folder,
            device=context.device,
            gpu=None,
            trust=context.registry.trust,
        )
        first = torch.cuda.current_device() if context.device == "cuda" else None

        def begin_as(rank: int) -> BeginTraining:
            return replace(begin, rank=rank, gpu=None if first is None else first + rank)

        self._processes.begin(begin_as)
        try:
            self._training.join(0, rendezvous)
        except LostRank as error:
            raise self._lost(error) from error

    def _send(self, message: ToRank) -> None:
        assert self._processes is not None
        self._processes.send(message)

    def _lost(self, error: LostRank) -> LotteryError:
        assert self._processes is not None
        return self._loss_error(self._processes.why_failed(error))

    def _loss_error(self, reason: str) -> LotteryError:
        return LotteryError(
            f"{reason}; this ended the training in the update from step {self._step}, and the same "
            "command goes on from its last checkpoint"
        )

    def _check(self) -> None:
        """Raise LotteryError where a rank was lost, and with it what the device computes now."""
        if self._processes is None:
            return
        if self._context.device == "cuda":
            # An exchange of nccl that broke off leaves numbers behind, and an error that comes late.
            torch.cuda.synchronize()
        if self._processes.loss is not None:
            raise self._loss_error(self._processes.loss)

    def close(self) -> None:
        """End the other ranks."""
        # In this order: a rank that ends while the group is left in order would be missed there.
        try:
            if self._processes is not None:
                self._processes.close()
            self._training.leave()
        except LostRank:
            # The others have ended, and that is what was wanted.
            pass
        finally:
            self._processes = None
            if self._spooled is not None and self._context.store is not None:
                self._context.store.drop_spooled(self._spooled)
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    # As a member

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss and accuracy over a part of the data, computed by this rank alone.

        Raises LotteryError where the ranks have come apart.
        """
        if self._processes is not None:
            self._compare()
        return self._member.evaluate(part)

    def _compare(self) -> None:
        self._send(CompareWeights())
        try:
            differing = self._training.differing_ranks()
        except LostRank as error:
            raise self._lost(error) from error
        self._check()
        if differing:
            raise LotteryError(
                f"rank {differing[0]} of {self._job.devices} has other weights than rank 0 after "
                f"the update from step {self._step}: a component of this training computes, or "
                "draws, something else in each process; train it with engine.devices = 1"
            )

    def curve_figures(self) -> Mapping[str, float]:
        """Return the figures of the further curves."""
        return self._member.curve_figures()

    def state(self) -> NetworkState:
        """Return the network now, which is the same on all ranks. Raises LotteryError."""
        self._check()
        return self._member.state()

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, which is the same on all ranks. Raises LotteryError."""
        self._check()
        return self._member.optimizer_state()

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that this kernel returned; the next update starts the others there."""
        self.close()
        self._member.restore(state, optimizer_state)


def _make(jobs: Sequence[Train], context: EngineContext) -> Distributed:
    (job,) = jobs
    return Distributed(job, context)


def _wrapped(candidate: Candidate) -> KernelDescription:
    """Return the kernel that makes the updates on each rank."""
    by_weights, by_scores = _WRAPPED
    return by_weights if candidate.job.parametrization is None else by_scores


def _options(candidate: Candidate) -> dict[str, Any]:
    # A change in the wrapped kernel's results is one in this kernel's.
    wrapped = _wrapped(candidate)
    return {
        **wrapped.options(candidate),
        "kernel": wrapped.name,
        "kernel_revision": wrapped.revision,
    }


def _why_not(candidate: Candidate) -> str | None:
    job = candidate.job
    if job.devices == 1:
        return "it trains one network on several devices, and engine.devices is 1"
    for name, value in vars(job).items():
        # A job has several augmentations.
        for spec in value if isinstance(value, tuple) else (value,):
            if isinstance(spec, Spec) and spec.use.startswith("session/"):
                return (
                    f"the {name} '{spec.use}' is defined in this session, and other processes "
                    "cannot import it; put it into a plugin file"
                )
    return _why_unavailable({})


def _why_unavailable(options: Mapping[str, Any]) -> str | None:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        return "this torch is built without torch.distributed and gloo"
    return None


KERNEL = KernelDescription(
    name="distributed",
    revision=1,
    why_not=_why_not,
    gain=lambda candidate: float(candidate.job.devices > 1),
    make=_make,
    close=Distributed.close,
    options=_options,
    why_unavailable=_why_unavailable,
    any_arithmetic=True,
    several_devices=True,
)
