"""Jobs as a search asks for them: named by how they come about, built when they have to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lotteryfw.api.errors import UsageError
from lotteryfw.api.layers import LATEST, Need
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.context import SearchContext
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import NO_KERNEL, Job, KernelSpec, ProbeJob, Train, without_tensors

if TYPE_CHECKING:
    from torch import Tensor

RECALIBRATION_BATCHES = 100
"""The batches that statistics of batch normalisation are computed over, if nobody says how many.

A mean over 100 batches of 128 is one over 12,800 images, a quarter of CIFAR-10."""

ChooseKernel = Callable[[Train, str, float | None], KernelSpec]
"""A function of the engine that chooses the kernel of a job.

It is given the job, and the `kernel` and `sparse_below` that the recipe asks for.
"""

BuildJob = Callable[["JobRequest"], Job]
"""A function that builds the job of a request, with its tensors."""

_NONE: frozenset[int] = frozenset()


def recalibration_batches(context: SearchContext) -> int:
    """Return the number of batches that a ticket's statistics are computed anew over."""
    # An epoch has no more batches to offer.
    return min(RECALIBRATION_BATCHES, context.clock.steps_per_epoch)


def has_statistics(values: Mapping[str, Tensor]) -> bool:
    """Return whether a network with these values has statistics of batch normalisation."""
    return any(name.endswith("running_mean") for name in values)


def no_kernel(job: Train, wanted: str, sparse_below: float | None) -> KernelSpec:
    """Return no kernel: for jobs that are not to be trained."""
    return NO_KERNEL


class JobRequest:
    """A job that a search asks for.

    `origin` says how the job comes about, as a digest; `steps` is its length in optimizer updates;
    `snapshots` are the steps whose state is to be kept; `kind` is that of its result in the store:
    "training", "probe" or "evaluation". None of them needs a tensor. `job` is computed when it is
    first asked for.
    """

    __slots__ = (
        "_build",
        "_job",
        "_known_key",
        "decides",
        "kind",
        "origin",
        "snapshots",
        "steps",
        "ticket",
    )

    def __init__(
        self,
        kind: str,
        build: BuildJob,
        ticket: Ticket,
        origin: str,
        steps: int = 0,
        snapshots: frozenset[int] = _NONE,
        decides: bool = False,
    ):
        """`decides` is True where equal origins are equal keys."""
        self.kind, self.origin, self.ticket = kind, origin, ticket
        self.steps, self.snapshots, self.decides = steps, snapshots, decides
        self._build: BuildJob | None = build
        self._job: Job | None = None
        self._known_key = ""

    @property
    def job(self) -> Job:
        """The job with its tensors."""
        if self._job is None:
            assert self._build is not None
            self._job = self._build(self)
            # It may hold tensors of its own.
            self._build = None
        return self._job

    @property
    def key(self) -> str:
        """The job's key. Without one from an earlier run, the job is built to compute it."""
        return self._known_key or self.job.key

    def know(self, key: str) -> None:
        """Note the key that the origin stands for."""
        self._known_key = key

    def drop_tensors(self, ticket: Ticket) -> None:
        """Release the tensors of the job. `ticket` is the request's own without its tensors."""
        # The key is of the tensors, so it is computed while they are here.
        if self._job is not None:
            self._known_key = self._job.key
            self._job = without_tensors(self._job)
        self.ticket = ticket


class JobFactory:
    """Makes the jobs of one cell's tickets.

    `snapshots` names, by the origin of a training, further steps whose state other cells of the
    study will want.
    """

    def __init__(
        self,
        context: SearchContext,
        choose_kernel: ChooseKernel = no_kernel,
        snapshots: Mapping[str, frozenset[int]] | None = None,
    ):
        self._context = context
        self._choose_kernel = choose_kernel
        self._shared_snapshots = snapshots or {}
        # A plan asks for hundreds of thousands of trainings, most of them without a teacher.
        self._needs_teacher = context.cell.objective.needs_teacher

    def training(self, ticket: Ticket, states: frozenset[int] = _NONE) -> JobRequest:
        """Return the request for the training of a ticket, which keeps `states` as well.

        Raises UsageError.
        """
        if self._needs_teacher:
            self._check_teacher(ticket)
        context = self._context
        origin, steps = context.job_digest(ticket), self._steps(ticket)
        # A later round keeps no state unless a segment follows it: rewinding goes past it.
        may_keep = ticket.root is None or ticket.keeps_end
        snapshots = self._snapshots(ticket, origin, steps) if may_keep else _NONE
        if states:
            self._check_states(ticket, states, steps)
            snapshots |= states
        build, decides = self.build_training, context.origins_decide
        return JobRequest(Train.kind, build, ticket, origin, steps, snapshots, decides)

    def _check_states(self, ticket: Ticket, states: frozenset[int], steps: int) -> None:
        """Raise UsageError for a state that the training does not pass."""
        start = ticket.point.schedule
        for step in states:
            if type(step) is not int or not start < step <= start + steps:
                raise UsageError(
                    f"{describe(self._context.specs['search'])}: lab.train(states=…): the training "
                    f"passes the steps {start + 1} to {start + steps}, not {step!r}"
                )

    def probe(self, trained: Trained, need: Need) -> JobRequest:
        """Return the request for what the criterion needs of a network after its training."""
        context = self._context
        origin = context.probe_digest(trained, need)
        build = partial(self.build_probe, trained, need)
        decides = context.origins_decide
        return JobRequest(ProbeJob.kind, build, trained.ticket, origin, 0, _NONE, decides)

    def build_training(self, request: JobRequest) -> Train:
        """Return the training that a request asks for, with its tensors."""
        ticket = request.ticket
        context, cell, specs = self._context, self._context.cell, self._context.specs
        seeds = context.seeds.of_training(ticket, bool(context.augment))
        job = Train(
            model=specs["model"],
            data=specs["data"],
            fingerprint=context.fingerprint,
            objective=specs["objective"],
            optimizer=specs["optimizer"],
            schedule=specs["schedule"],
            augment=context.augment,
            batch=cell.batch,
            total=self._total(ticket),
            steps_per_epoch=context.clock.steps_per_epoch,
            start=ticket.point.schedule,
            steps=request.steps,
            evaluate_every=cell.evaluate_every,
            precision=cell.precision,
            memory_format=cell.memory_format,
            accumulate=cell.accumulate,
            devices=cell.devices,
            sync_batch_norm=cell.sync_batch_norm,
            activation_checkpointing=cell.activation_checkpointing,
            deterministic=cell.deterministic,
            compiled=cell.compiled,
            order_seed=seeds.order,
            augment_seed=seeds.augment,
            device=context.device,
            kernel=NO_KERNEL,
            values=ticket.values,
            mask=ticket.mask,
            optimizer_state=ticket.optimizer,
            teacher=self._teacher(ticket),
            snapshots=request.snapshots,
            origin=request.origin,
        )
        # Weights stay as they are in this case, unless the parametrization trains them, too.
        if ticket.learns_mask:
            job = replace(
                job,
                scores=ticket.scores or {},
                optimizer=specs.get("mask_optimizer", specs["optimizer"]),
                parametrization=specs["parametrization"],
                initialiser=specs["initialiser"],
                budgets=tuple((group.layers, group.keep) for group in ticket.budgets),
                mask_seed=seeds.masks,
            )
        if ticket.updates_mask:
            job = replace(
                job,
                mask_update=specs["mask_update"],
                initialiser=specs["initialiser"],
                mask_seed=context.seed,
            )
        if not request.steps:
            job = replace(job, recalibrate=self._recalibrate(job))
        return replace(job, kernel=self._choose_kernel(job, cell.kernel, cell.sparse_below))

    def _recalibrate(self, job: Train) -> int:
        """Return how many batches the statistics of a job without steps are computed anew over."""
        # The values of a ticket come from several networks, and no training made statistics for
        # them. Those of a learned mask were made while it was learned.
        if job.scores or not has_statistics(job.values):
            return 0
        return recalibration_batches(self._context)

    def _check_teacher(self, ticket: Ticket) -> None:
        """Raise UsageError where the objective needs a teacher and nothing was trained before."""
        if not self._learns_from_teacher(ticket):
            return
        root = ticket.root
        if root is None or not root.ticket.is_dense:
            cell = self._context.cell
            raise UsageError(
                f"objective '{cell.objective.use}' compares with the cell's dense training, and "
                f"the search '{cell.search.use}' trains a ticket at level {ticket.level} that does "
                "not come from one: use another objective, or a search that prunes what it trained"
            )

    def _learns_from_teacher(self, ticket: Ticket) -> bool:
        # A network that is only measured learns nothing.
        is_trained = ticket.point.steps != 0 and not ticket.is_dense
        return self._needs_teacher and is_trained

    def _teacher(self, ticket: Ticket) -> str:
        """Return the key of the dense training that a ticket learns from; empty for none.

        The ticket's origin has that of its root, so equal origins have one teacher.
        """
        if ticket.root is None or not self._learns_from_teacher(ticket):
            return ""
        return ticket.root.outcome.key

    def build_probe(self, trained: Trained, need: Need, request: JobRequest) -> ProbeJob:
        """Return the probe that a request asks for, with its tensors."""
        context, specs = self._context, self._context.specs
        return ProbeJob(
            model=specs["model"],
            data=specs["data"],
            fingerprint=context.fingerprint,
            objective=specs["objective"],
            component=context.all_probe_specs[need],
            layers=tuple(layer.name for layer in context.layers),
            stream_labels=context.probe_labels(need, request.ticket.level),
            device=context.device,
            values=trained.weights(),
            mask=request.ticket.mask,
            origin=request.origin,
        )

    def _total(self, ticket: Ticket) -> int:
        return self._context.clock.total if ticket.length is None else ticket.length

    def _steps(self, ticket: Ticket) -> int:
        point = ticket.point
        return point.steps if point.steps is not None else self._total(ticket) - point.schedule

    def _snapshots(self, ticket: Ticket, origin: str, steps: int) -> frozenset[int]:
        """Return the steps that later rounds go back to, kept by the training that begins a chain.

        A network that is measured as it is passes no step, so it keeps none. A segment of a
        training keeps its end, where the next one begins.
        """
        end = frozenset({ticket.point.schedule + steps}) if ticket.keeps_end else _NONE
        if (
            ticket.root is not None
            or ticket.point.steps == 0
            or not (ticket.is_dense or ticket.learns_mask or ticket.updates_mask)
        ):
            return end
        # The state at step 0 is the initialisation, and the latest is the training's end: both are kept
        # anyhow.
        step = self._context.point_at(ticket.length).weights
        shared = self._shared_snapshots.get(origin, _NONE) | end
        return shared if step == LATEST or step == 0 else shared | {step}
