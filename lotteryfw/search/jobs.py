"""The jobs that can be asked for, as plain data with a content key.

Two jobs with one key are the same work. The key is the hash of everything that decides the result,
and of nothing else: components by name, options and distribution version, tensors by the hash of
their content, lengths in steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lotteryfw.api.digests import digest as digest
from lotteryfw.api.digests import tensors_digest as tensors_digest
from lotteryfw.search.numerics import numerics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """A component as a job names it: enough to build it again in another process."""

    kind: str
    use: str
    provider: str
    options: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical form."""
        return digest(self.canonical())

    def canonical(self) -> dict[str, Any]:
        """Return plain data that is equal for equal specs."""
        return {
            "kind": self.kind,
            "use": self.use,
            "provider": self.provider,
            "options": dict(self.options),
        }


@dataclass(frozen=True)
class KernelSpec:
    """The kernel that trains a job, as the job names it.

    `revision` is raised when the kernel's results change in any bit. `options` hold whatever else
    decides these bits, as JSON-able data.
    """

    name: str
    revision: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def canonical(self) -> dict[str, Any]:
        """Return plain data that is equal for equal specs."""
        return {"name": self.name, "revision": self.revision, "options": dict(self.options)}

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}/{self.revision}" + (f" ({options})" if options else "")


NO_KERNEL = KernelSpec("", 0)
"""The kernel of a job that no engine has chosen one for: it has a key, and cannot be trained."""


def _canonical(value: Any) -> Any:
    if isinstance(value, Spec | KernelSpec):
        return value.canonical()
    if isinstance(value, tuple):
        return [_canonical(item) for item in value]
    # Every mapping of a job that is neither a spec nor options has tensors.
    if isinstance(value, Mapping):
        return tensors_digest(value)
    return value


class KeyedJob:
    """The methods that all jobs have."""

    known_key: str

    @cached_property
    def source(self) -> dict[str, Any]:
        """The data that the key is the digest of (see `key_source`)."""
        return key_source(cast(Job, self))

    @cached_property
    def key(self) -> str:
        """The content key (see `job_key`)."""
        return self.known_key or job_key(cast(Job, self))

    def plain(self) -> dict[str, Any]:
        """Return everything but the tensors, as JSON-able data."""
        return _plain(cast(Job, self))


@dataclass(frozen=True, eq=False)
class Train(KeyedJob):
    """Train a masked network for `steps` steps from `start` on; zero steps only measure it.

    `values`: every parameter and buffer at the start, masked weights at what they are frozen at.
    `mask`: by layer, bool. `optimizer_state`: None for a fresh optimizer. `total` and
    `steps_per_epoch` are the schedule's clock. `kernel` is part of the key, since a faster kernel
    need not round as the reference does.

    With a `parametrization`, `scores` are trained, by layer, and `mask` has the edges that may be
    kept. `budgets` are (layers, number to keep);
    `initialiser` and `mask_seed` are for the draws of masks and weights during the training.

    `precision` and `memory_format` say how the network is computed (see `Arithmetic`), and
    `deterministic` by which algorithms (see `algorithms_of`). `compiled` asks for compiled forward
    passes (see `CompiledForward`). `accumulate` is the number of parts
    that a batch is computed in, one after the other. `activation_checkpointing` asks that
    activations be computed twice instead of kept; it is no part of the key, since it does not
    change the training. `devices` is the number of processes that train the network together, and
    with `sync_batch_norm` batch normalisation uses the statistics of all of them.

    With a `mask_update`, `mask` is the one that the training begins with, and `initialiser` and
    `mask_seed` are for the draws of the update.

    `teacher` is the key of the training whose network the objective compares with; empty for none.

    `recalibrate` is the number of training batches that the statistics of batch normalisation are
    computed anew over before the network is measured: only where there are no steps, since a
    training makes statistics of its own.

    `snapshots` asks that the state after those steps be kept, too; it is no part of the key, since
    it does not change the training. `origin` says how the job came about (see `Ticket.origin`).
    """

    kind: ClassVar[str] = "training"

    model: Spec
    data: Spec
    fingerprint: str
    objective: Spec
    optimizer: Spec
    schedule: Spec
    augment: tuple[Spec, ...]
    batch: int
    total: int
    steps_per_epoch: int
    start: int
    steps: int
    evaluate_every: int
    order_seed: int
    augment_seed: int
    device: str
    kernel: KernelSpec
    values: Mapping[str, Tensor] = field(repr=False)
    mask: Mapping[str, Tensor] = field(repr=False)
    optimizer_state: Mapping[str, Tensor] | None = field(default=None, repr=False)
    scores: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    parametrization: Spec | None = None
    initialiser: Spec | None = None
    budgets: tuple[tuple[tuple[str, ...], int], ...] = ()
    mask_seed: int | None = None
    precision: str = "float32"
    memory_format: str = "contiguous"
    accumulate: int = 1
    devices: int = 1
    sync_batch_norm: bool = False
    activation_checkpointing: bool = False
    deterministic: bool = True
    compiled: bool = False
    mask_update: Spec | None = None
    teacher: str = ""
    recalibrate: int = 0
    snapshots: frozenset[int] = frozenset()
    origin: str = ""
    known_key: str = field(default="", repr=False)
    """The key of a job whose tensors were left out (see `without_tensors`)."""


@dataclass(frozen=True, eq=False)
class ProbeJob(KeyedJob):
    """Ask a component for tensors of a whole network, by layer, at given weights.

    `component` is a criterion, or a probe that the engine has itself (its kind is "probe").
    `layers` are the prunable layers in the order of the network, the output layer last.
    `stream_labels` name the streams that the component draws from and that its batches are drawn
    from; a component that draws nothing has none, and so one job for all seeds.
    """

    kind: ClassVar[str] = "probe"

    model: Spec
    data: Spec
    fingerprint: str
    objective: Spec
    component: Spec
    layers: tuple[str, ...]
    stream_labels: tuple[str | int, ...]
    device: str
    values: Mapping[str, Tensor] = field(repr=False)
    mask: Mapping[str, Tensor] = field(repr=False)
    origin: str = ""
    known_key: str = field(default="", repr=False)
    """The key of a job whose tensors were left out (see `without_tensors`)."""

    @property
    def steps(self) -> int:
        """The optimizer updates that it makes: none."""
        return 0


@dataclass(frozen=True, eq=False)
class Evaluate(KeyedJob):
    """Measure a network as it is over one part of a data set, forward only.

    `values`: every parameter and buffer. `mask` and `scores`, `parametrization`, `initialiser`,
    `budgets` and `mask_seed` are those of a learned mask, as in `Train`; without scores they are
    empty, since the values alone decide the result.

    `metrics` are measured beside the objective's loss and accuracy. `recalibrate` is the number of
    training batches that the statistics of batch normalisation are computed anew over; 0 leaves
    them as they are, and the fields that say how those batches are made are at their defaults.
    `precision`, `memory_format` and `deterministic` are as in `Train`.
    """

    kind: ClassVar[str] = "evaluation"

    model: Spec
    data: Spec
    fingerprint: str
    objective: Spec
    part: str
    metrics: tuple[Spec, ...]
    device: str
    values: Mapping[str, Tensor] = field(repr=False)
    mask: Mapping[str, Tensor] = field(repr=False)
    recalibrate: int = 0
    batch: int = 0
    steps_per_epoch: int = 0
    augment: tuple[Spec, ...] = ()
    order_seed: int = 0
    augment_seed: int = 0
    scores: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    parametrization: Spec | None = None
    initialiser: Spec | None = None
    budgets: tuple[tuple[tuple[str, ...], int], ...] = ()
    mask_seed: int | None = None
    precision: str = "float32"
    memory_format: str = "contiguous"
    deterministic: bool = True
    origin: str = ""
    known_key: str = field(default="", repr=False)
    """The key of a job whose tensors were left out (see `without_tensors`)."""

    @property
    def steps(self) -> int:
        """The optimizer updates that it makes: none."""
        return 0


Job = Train | ProbeJob | Evaluate
_JOBS: Mapping[str, type[Job]] = {"Train": Train, "ProbeJob": ProbeJob, "Evaluate": Evaluate}
_NO_TENSORS: Mapping[str, Any] = {"values": {}, "mask": {}, "optimizer_state": None, "scores": {}}
"""The tensors of jobs by field, each with the value that stands for none."""
_NOT_IN_KEY = ("snapshots", "origin", "known_key", "activation_checkpointing")
_NOT_IN_KEY_AT_DEFAULT = (
    "precision", "memory_format", "deterministic", "compiled", "accumulate", "devices",
    "sync_batch_norm", "mask_update", "teacher",
)  # fmt: skip
"""Fields that the key has only where they are not at their default."""
_NOT_IN_KEY_OF_TRAINING_AT_DEFAULT = ("recalibrate",)
"""Further ones of a training. An evaluation had such a field from the start, always in its key."""
_SPECS = (
    "model", "data", "objective", "optimizer", "schedule", "parametrization", "initialiser",
    "component", "mask_update",
)  # fmt: skip
_TUPLES = ("layers", "stream_labels")


def key_source(job: Job) -> dict[str, Any]:
    """Return the data that a job's key is the digest of, tensors as their own digests."""
    source: dict[str, Any] = {"job": type(job).__name__}
    for part in fields(job):
        value = getattr(job, part.name)
        # A field that was added later must not change the keys of jobs that do not use it.
        was_added = part.name in _NOT_IN_KEY_AT_DEFAULT
        if isinstance(job, Train):
            was_added |= part.name in _NOT_IN_KEY_OF_TRAINING_AT_DEFAULT
        is_left_out = was_added and value == part.default
        if part.name not in _NOT_IN_KEY and not is_left_out:
            source[part.name] = _canonical(value)
    return {**source, "numerics": numerics(job.device)}


def job_key(job: Job) -> str:
    """Return the content key of a job."""
    return digest(job.source)


def without_tensors(job: Job) -> Job:
    """Return the job under the same key without its tensors, light enough to keep in memory."""
    names = {part.name for part in fields(job)}
    # The key is computed first, while the tensors are here.
    emptied = {name: empty for name, empty in _NO_TENSORS.items() if name in names}
    return replace(job, known_key=job.key, **emptied)


def likeness(job: Train) -> str:
    """Return a digest that trainings of about the same cost a step share.

    Estimates of time and disk are made from it.
    """
    return like(job.model, job.data, job.optimizer, job.batch, job.device, job.parametrization)


def like(
    model: Spec,
    data: Spec,
    optimizer: Spec,
    batch: int,
    device: str,
    parametrization: Spec | None = None,
) -> str:
    """Return the likeness of trainings made of these; a mask is learned with a `parametrization`."""
    shared = ["like", model.digest, data.digest, optimizer.digest, batch, device]
    learned = [] if parametrization is None else [parametrization.digest]
    return digest(shared + learned)


def state_key(key: str, step: int) -> str:
    """Return the key of the state after `step` steps of the training `key`."""
    return digest(state_source(key, step))


def state_source(key: str, step: int) -> dict[str, Any]:
    """Return what `state_key` is the digest of."""
    return {"state_of": key, "step": step}


def _plain(job: Job) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Spec | KernelSpec):
            return value.canonical()
        if isinstance(value, tuple | frozenset):
            return [plain(item) for item in value]
        return value

    named: dict[str, Any] = {"job": type(job).__name__}
    for part in fields(job):
        if part.name not in (*_NO_TENSORS, "known_key"):
            named[part.name] = plain(getattr(job, part.name))
    return named


def from_plain(plain: Mapping[str, Any], **tensors: Mapping[str, Tensor] | None) -> Job:
    """Return the job that `plain()` and its tensors came from."""
    values: dict[str, Any] = dict(plain)
    cls = _JOBS[values.pop("job")]
    for name in _SPECS:
        if values.get(name):
            values[name] = Spec(**values[name])
    # JSON has lists for tuples and sets
    for name in _TUPLES:
        if name in values:
            values[name] = tuple(values[name])
    for name in ("augment", "metrics"):
        if name in values:
            values[name] = tuple(Spec(**spec) for spec in values[name])
    if "budgets" in values:
        values["budgets"] = tuple((tuple(layers), keep) for layers, keep in values["budgets"])
    # JSON knows no such classes.
    if cls is Train:
        values["kernel"] = KernelSpec(**values["kernel"])
        values["snapshots"] = frozenset(values["snapshots"])
    names = {part.name for part in fields(cls)}
    for name, value in tensors.items():
        # not every job has an optimizer state
        if name in names:
            values[name] = value
    return cls(**values)
