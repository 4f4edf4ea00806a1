"""The parts of a kernel: its description, the step that it makes, the networks that it trains.

A kernel is one module of this package with a `KERNEL`, its `KernelDescription`; the modules are
listed in `lotteryfw.search.kernel_list`. The arithmetic is the kernel's; everything that is kept
about a training is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.kinds import Objective
from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.engine.penalties import has_penalty
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.trained_parameters import weights_and_scores
from lotteryfw.search.built_optimizer import build_optimizer
from lotteryfw.search.jobs import KernelSpec, Train

T = TypeVar("T")

GROUP_BYTES = 4 << 30
"""Bytes that the jobs of a group take together at most, which any GPU of today has."""


class Member(Protocol):
    """One of the networks that a kernel trains."""

    @property
    def curve_units(self) -> Mapping[str, FigureUnit]:
        """The further curves of this network, with their units (see `lotteryfw.api.metrics`)."""
        ...

    def evaluate(self, part: str) -> tuple[float, float]:
        """Return mean loss (nats) and accuracy in [0, 1] now, over "validation" or "test"."""
        ...

    def curve_figures(self) -> Mapping[str, float]:
        """Return the figures of `curve_units`; called once at each evaluation."""
        ...

    def state(self) -> NetworkState:
        """Return the network now, dense, in the shapes of its parameters.

        The tensors must not be written to, and may change at the next update.
        """
        ...

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer's state now, in the form of `lotteryfw.engine.checkpoint`."""
        ...

    def restore(self, state: NetworkState, optimizer_state: Mapping[str, Tensor]) -> None:
        """Go back to a state that `state` and `optimizer_state` returned."""
        ...


class Kernel(Protocol):
    """Trains one masked network, or a group of them in step.

    After every update, masked weights are at their mask-0 values, bit for bit.
    """

    @property
    def members(self) -> Sequence[Member]:
        """The networks, in the order of the jobs."""
        ...

    @property
    def loss_dtype(self) -> torch.dtype:
        """The type that the losses of several updates are summed in."""
        ...

    def update(self, step: int, factor: float) -> Tensor | float:
        """Make the update from `step` to `step + 1` at `factor` times the learning rate.

        Returns the losses of the batch, [members] or, of one member, 0-d; the next update may
        overwrite them.
        """
        ...


class NetworkFacts:
    """Facts about the networks of a study, computed once for each model, data and objective."""

    def __init__(self, context: EngineContext):
        self._context = context
        self._facts: dict[tuple[str, Callable[..., Any]], Any] = {}
        self._infos: dict[str, DatasetInfo] = {}

    def info(self, job: Train) -> DatasetInfo:
        """Return the facts of a job's data, which its source may have to look up in its files."""
        key = job.data.digest
        if key not in self._infos:
            source = self._context.component(job.data)
            self._infos[key] = source.facts(self._context.data_folder)
        return self._infos[key]

    def get(self, job: Train, analyse: Callable[[nn.Module, Sequence[int]], T]) -> T:
        """Return `analyse(network, shape)` for the network of a job and the shape of one input."""
        key = (f"{job.model.digest} {job.data.digest} {job.objective.digest}", analyse)
        if key not in self._facts:
            info = self.info(job)
            network = self._context.network(job.model, info, job.objective)
            self._facts[key] = analyse(network, info.shape)
        fact: T = self._facts[key]
        return fact


@dataclass(frozen=True)
class Candidate:
    """A job that a kernel is sought for, as descriptions of kernels see it.

    `sparse_below` is the density below which the recipe wants sparse products, if it says so.
    """

    job: Train
    context: EngineContext
    facts: NetworkFacts = field(repr=False)
    sparse_below: float | None = None

    def network_fact(self, analyse: Callable[[nn.Module, Sequence[int]], T]) -> T:
        """Return `analyse(network, shape)` for the job's network and the shape of one input."""
        return self.facts.get(self.job, analyse)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The job's optimizer, over a parameter of its own: for its type and options."""
        return sample_optimizer(self.job, self.context)

    def why_not_weights_alone(self) -> str | None:
        """Return why no kernel that trains weights applies, or None."""
        if self.job.parametrization is not None:
            return "it trains weights, and here masks are learned"
        return None

    def why_no_weights(self) -> str | None:
        """Return why no kernel that trains weights under one mask applies, or None."""
        if self.job.mask_update is not None:
            return (
                "it trains under one mask, and here the mask update "
                f"'{self.job.mask_update.use}' changes it"
            )
        return self.why_not_loss_alone() or self.why_not_weights_alone()

    def why_not_loss_alone(self) -> str | None:
        """Return why no kernel that trains by the loss of a batch alone applies, or None."""
        objective: Objective = self.context.component(self.job.objective)
        if has_penalty(objective) or objective.needs_teacher:
            return (
                "it trains by the loss of a batch alone, and the objective "
                f"'{self.job.objective.use}' has a penalty or a teacher"
            )
        return None

    def why_no_examples_by_index(self) -> str | None:
        """Return why no kernel that gathers its batches from memory applies, or None."""
        if self.facts.info(self.job).streamed:
            return f"it takes examples from memory, and the data '{self.job.data.use}' is streamed"
        return None

    def why_no_cross_entropy(self) -> str | None:
        """Return why no kernel that has the cross-entropy built in applies, or None."""
        if self.context.component(self.job.objective).closed_form() != "cross_entropy":
            return f"it has cross-entropy built in, and the objective is '{self.job.objective.use}'"
        return None


def no_options(candidate: Candidate) -> Mapping[str, Any]:
    """Return no options."""
    return {}


def always_available(options: Mapping[str, Any]) -> str | None:
    """Return None: the kernel needs nothing that may be missing."""
    return None


def nothing_to_close(kernel: Kernel) -> None:
    """Do nothing: the kernel holds nothing but memory."""


@dataclass(frozen=True)
class KernelDescription:
    """All that the dispatcher knows of a kernel."""

    name: str
    """The name of its module, and of the kernel in jobs."""
    revision: int
    """Raised when its results change in any bit: it is part of the key of every job it trains."""
    why_not: Callable[[Candidate], str | None]
    """Returns the reason why it cannot train a job, as a clause; None where it can."""
    gain: Callable[[Candidate], float]
    """Returns about how many times faster a step is than the reference's.

    It is 0 where the kernel should not be chosen unless it is asked for. It must depend on the job
    and on whether numba is installed, and on nothing else of the machine, so that a recipe gives
    the same keys everywhere."""
    make: Callable[[Sequence[Train], EngineContext], Kernel]
    """Returns the kernel of one job, or of several that form a group."""
    options: Callable[[Candidate], Mapping[str, Any]] = no_options
    """Returns what else decides the bits, for the job's `KernelSpec`."""
    why_unavailable: Callable[[Mapping[str, Any]], str | None] = always_available
    """Returns how to get what options of a job need and this machine lacks, or None."""
    any_arithmetic: bool = False
    """True where it trains in any precision and memory format, not in plain float32 alone, with
    batches in parts and with checkpointed activations."""
    several_devices: bool = False
    """True where it trains one network on several devices."""
    close: Callable[[Any], None] = nothing_to_close
    """Releases what a kernel that `make` returned holds beside memory, at the end of a training."""
    group_sizes: Mapping[str, int] = field(default_factory=dict)
    """By device, how many jobs it trains in step at most; empty where it trains one at a time."""
    member_bytes: Callable[[Train], int] = lambda job: 0
    """Returns about how many bytes one job takes in a group: together they stay below GROUP_BYTES.

    It must depend on the job alone, so that groups are of one size on every machine."""

    def why_unfit(self, candidate: Candidate) -> str | None:
        """Return why it cannot train a job, its arithmetic included, as a clause, or None."""
        job = candidate.job
        if not self.several_devices and job.devices > 1:
            return f"it trains on one device, and engine.devices is {job.devices}"
        if not self.any_arithmetic and job.precision != "float32":
            return f"it computes in float32, and train.precision is '{job.precision}'"
        if not self.any_arithmetic and job.compiled:
            return "it computes without torch.compile, and engine.compile is true"
        if not self.any_arithmetic and job.memory_format != "contiguous":
            return f"it has no memory format '{job.memory_format}'"
        if not self.any_arithmetic and job.accumulate > 1:
            return f"it computes batches as a whole, and train.accumulate is {job.accumulate}"
        if not self.any_arithmetic and job.activation_checkpointing:
            return "it keeps all activations, and engine.activation_checkpointing is true"
        return self.why_not(candidate)

    def spec(self, candidate: Candidate) -> KernelSpec:
        """Return the kernel as the job names it."""
        return KernelSpec(self.name, self.revision, self.options(candidate))


def sample_optimizer(job: Train, context: EngineContext) -> torch.optim.Optimizer:
    """Return the job's optimizer over parameters of its own, for its type, options and groups.

    They have the names and shapes of the job's and no memory, since only their groups count.
    """
    trained = job.scores or job.values
    if job.parametrization and context.component(job.parametrization).trains_weights:
        trained = weights_and_scores(job.values, job.scores)
    parameters = {}
    for name, value in trained.items():
        if value.is_floating_point():
            parameters[name] = torch.zeros(()).expand(value.shape).requires_grad_()
    return build_optimizer(context.component(job.optimizer), job.optimizer, parameters)
