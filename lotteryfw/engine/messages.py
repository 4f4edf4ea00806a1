"""The messages between a run and its worker processes (see `lotteryfw.engine.worker`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# From the run to a worker


@dataclass(frozen=True)
class Setup:
    """The first message to a worker: where the store and the data are, and what it may import."""

    store: Path
    data_folder: Path
    device: str
    trust: tuple[Path, ...] = ()
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class Work:
    """A group of jobs to run: the keys, and the names under which `unspool` finds the jobs."""

    spooled: Mapping[str, str]


@dataclass(frozen=True)
class Stop:
    """Stop at the next safe point, and end."""


# From a worker to the run


@dataclass(frozen=True)
class Alive:
    """Sent every few seconds by a thread of its own, however long a step takes."""


@dataclass(frozen=True)
class Progress:
    """The trainings `keys` have done `done` of `of` steps.

    `points` has loss and accuracy of their last evaluation, where there was one.
    """

    keys: tuple[str, ...]
    done: int
    of: int
    points: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class JobDone:
    """The result of a job is in the store; `stored` where another process had computed it."""

    key: str
    warning: str | None
    stored: bool


@dataclass(frozen=True)
class JobStopped:
    """A job stopped at a safe point; its checkpoint is written."""

    key: str


@dataclass(frozen=True)
class JobFailed:
    """A job ended with an error of the type called `kind`."""

    key: str
    error: str
    kind: str
    trace: str


@dataclass(frozen=True)
class GpuFailed:
    """The worker ends, since its GPU failed; its jobs may be tried again elsewhere."""

    error: str


ToWorker = Setup | Work | Stop
FromWorker = Alive | Progress | JobDone | JobStopped | JobFailed | GpuFailed


# Between rank 0 of a training on several devices and the others (see `lotteryfw.engine.ranks.main`)

EXCHANGE_FAILED = 75
"""The exit code of a rank that lost another one, which is what went wrong."""


@dataclass(frozen=True)
class BeginTraining:
    """Make the network of the spooled job `job` as rank `rank`, at the state in the folder `start`.

    The ranks meet by the file `rendezvous`.
    """

    rank: int
    job: str
    start: Path
    rendezvous: Path
    store: Path
    data_folder: Path
    device: str
    gpu: int | None
    """The number of its GPU, among those that are visible; None on the CPU."""
    trust: tuple[Path, ...]


@dataclass(frozen=True)
class MakeUpdate:
    """Make the update from `step` to `step + 1` at `factor` times the learning rate."""

    step: int
    factor: float


@dataclass(frozen=True)
class CompareWeights:
    """Take part in a comparison of the weights of all ranks."""


@dataclass(frozen=True)
class RankReady:
    """The rank has made its network."""


@dataclass(frozen=True)
class RankFailed:
    """The rank cannot go on."""

    error: str


ToRank = BeginTraining | MakeUpdate | CompareWeights
FromRank = Alive | RankReady | RankFailed
