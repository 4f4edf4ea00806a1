"""Chooses the kernel that trains a job: a function of the job and of what the recipe asks for.

Importing this module does not import torch, nor a kernel; the modules of kernels are imported when
a job is to be trained.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Job, KernelSpec, Train, digest
from lotteryfw.search.kernel_list import KERNEL_LIST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lotteryfw.engine.kernels.kernel import Candidate, Kernel, KernelDescription, NetworkFacts

_DECIDING_PACKAGES = ("numba", "numpy", "torchvision")
"""Packages, where they are installed, that decide bits of results, beside torch."""
_OF_A_MEMBER = ("order_seed", "augment_seed", "snapshots", "origin")
"""The fields in which the jobs of a group may differ, beside their tensors."""


@cache
def descriptions(choice: str | None = None) -> tuple[KernelDescription, ...]:
    """Return the kernels that a recipe means by a name, or all kernels."""
    modules: list[str] = []
    for name, names in KERNEL_LIST.items():
        if choice in (None, name):
            modules += names
    kernels: list[KernelDescription] = []
    for module in modules:
        kernels.append(import_module(f"lotteryfw.engine.kernels.{module}").KERNEL)
    return tuple(kernels)


class KernelDispatcher:
    """Chooses the kernel for every job of a study. Remembers the networks that it has seen."""

    def __init__(self, context: EngineContext):
        self._context = context
        self._facts: NetworkFacts | None = None

    def __call__(self, job: Train, choice: str, sparse_below: float | None = None) -> KernelSpec:
        """Return the kernel as the job is to name it.

        `choice` is what the recipe says: "auto" or the name of a kernel. `sparse_below` is the
        density below which a layer is worth sparse products; None for the kernel's own figure.
        Raises UsageError for a kernel that cannot train the job.
        """
        from lotteryfw.engine.kernels.kernel import Candidate, NetworkFacts

        if self._facts is None:
            self._facts = NetworkFacts(self._context)
        candidate = Candidate(job, self._context, self._facts, sparse_below)
        # One kernel alone trains on several devices. Tried by name, the reason can be told.
        if choice == "auto" and job.devices > 1:
            choice = "distributed"
        if choice == "auto":
            return self._fastest(candidate).spec(candidate)

        reasons = []
        for kernel in descriptions(choice):
            reason = kernel.why_unfit(candidate)
            if reason is None:
                return kernel.spec(candidate)
            reasons.append(reason)
        # Of two modules under a name, the first trains weights and the second learns masks.
        reason = reasons[0 if job.parametrization is None else -1]
        remedy = "auto or reference" if job.devices == 1 else "auto, or engine.devices = 1"
        raise UsageError(f"kernel '{choice}' cannot train this: {reason}; use {remedy}")

    def _fastest(self, candidate: Candidate) -> KernelDescription:
        """Return the kernel that gains most of those that can train the job."""
        gains = []
        for kernel in descriptions():
            gain = kernel.gain(candidate)
            if gain > 0:
                gains.append((gain, kernel))
        # The sort is stable: of equal gains, the kernel that is listed first is chosen.
        gains.sort(key=lambda pair: pair[0], reverse=True)
        for _, kernel in gains:
            if kernel.why_unfit(candidate) is None:
                return kernel
        raise AssertionError("some kernel trains every job")


def description_of(spec: KernelSpec) -> KernelDescription:
    """Return the kernel that a job names.

    Raises LotteryError for one that is not here, or not in that revision or with those options.
    """
    remedy = ""
    for kernel in descriptions():
        if kernel.name != spec.name:
            continue
        # The job may come from a machine with other packages, by a shared store.
        reason = kernel.why_unavailable(spec.options)
        if kernel.revision == spec.revision and reason is None:
            return kernel
        remedy = f"; for that one: {reason}" if reason else ""
    names = ", ".join(f"{kernel.name}/{kernel.revision}" for kernel in descriptions())
    raise LotteryError(f"the job was made for kernel {spec}; this lotteryfw has {names}{remedy}")


def make_kernel(jobs: Sequence[Train], context: EngineContext) -> Kernel:
    """Return the kernel that trains one job, or several that form a group.

    Raises LotteryError for a kernel, or a revision, that is not here.
    """
    return description_of(jobs[0].kernel).make(jobs, context)


class GroupKey(NamedTuple):
    """Equal for all jobs that one group may hold, which are `most` at a time."""

    digest: str
    most: int


def group_key(job: Job) -> GroupKey | None:
    """Return what jobs share that can be trained in step; None for a job that is trained alone."""
    if not isinstance(job, Train):
        return None
    # A device that is not named gains nothing from groups.
    kernel = description_of(job.kernel)
    most = kernel.group_sizes.get(job.device)
    if most is None:
        return None
    if member_bytes := kernel.member_bytes(job):
        from lotteryfw.engine.kernels.kernel import GROUP_BYTES

        most = max(1, min(most, GROUP_BYTES // member_bytes))
    shared = {name: value for name, value in job.plain().items() if name not in _OF_A_MEMBER}
    # Numbers in the optimizer's state, such as a count of steps, are the group's.
    counts = None
    if job.optimizer_state is not None:
        counts = {}
        for name, value in job.optimizer_state.items():
            if not value.dim():
                counts[name] = float(value)
    return GroupKey(digest([shared, counts]), most)


def engine_version(code: str) -> str:
    """Return, as text, all that decides which kernel trains a job and with which bits.

    A job and a recipe are not part of it. `code` tells states of lotteryfw's code apart, the
    revisions of kernels included; torch's version is in every key.
    """
    packages = [(name, version(name)) for name in _DECIDING_PACKAGES if find_spec(name)]
    return json.dumps([code, packages])
