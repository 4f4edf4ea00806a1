"""The outcomes of jobs in the store. Needs no torch to import."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import LotteryError, StoreError, TrainingDiverged
from lotteryfw.api.metrics import Evaluation, Metrics
from lotteryfw.api.network_state import NetworkState
from lotteryfw.search.jobs import Job, Train, state_key
from lotteryfw.store import Store
from lotteryfw.store import tensors as tensor_files

if TYPE_CHECKING:
    from torch import Tensor

OnStep = Callable[[int, int], bool]
"""Called with (steps done, steps in all) after each update; returns True to stop at a safe point."""
OnDone = Callable[[str, str | None], None]
"""Called with (key, warning or None) of a job once its result is in the store."""


class Stopped(LotteryError):
    """A training was asked to stop; its checkpoint is written and it will go on from there."""


class ObjectLost(StoreError):
    """An object that was there is damaged or gone. The cells that need it can begin again."""


class StoredOutcome:
    """The outcome of a job, read from the store when it is looked at."""

    def __init__(self, store: Store, key: str):
        self._store = store
        self.key = key

    @cached_property
    def record(self) -> dict[str, Any]:
        """The plain data of the object: its job, figures and seconds."""
        text = self._store.read(self.key, "outcome.json")
        if text is None:
            raise _lost(self._store, self.key)
        record: dict[str, Any] = json.loads(text)
        return record

    @property
    def diverged_at(self) -> int | None:
        """The step at which the training was found to have diverged, or None."""
        step: int | None = self.record.get("diverged_at")
        return step

    @cached_property
    def metrics(self) -> Metrics:
        """The figures of the training. Raises TrainingDiverged for one that has none."""
        if self.diverged_at is not None:
            raise TrainingDiverged(self.diverged_at)
        return Metrics.of(self.record["metrics"])

    @cached_property
    def evaluation(self) -> Evaluation:
        """The figures of an evaluation."""
        return Evaluation.of(self.record["evaluation"])

    def tensors(self) -> NetworkState:
        """Return the network at the end of a training; of a probe, a tensor for each layer."""
        return NetworkState.decoded(self._tensors("tensors.safetensors")[0])

    def mask(self) -> Mapping[str, Tensor]:
        """Return by layer, bool: the mask after a training; of a learned one, the allowed edges."""
        return self._tensors("tensors.safetensors")[1]

    def state(self, step: int) -> tuple[NetworkState, Mapping[str, Tensor]]:
        """Return the network, and the optimizer's state, after `step` steps of the schedule."""
        key = state_key(self.key, step)
        values = tensor_files.load(_file(self._store, key, "values.safetensors", "state"))[0]
        optimizer = tensor_files.load(_file(self._store, key, "optimizer.safetensors", "state"))[0]
        return NetworkState.decoded(values), optimizer

    def _tensors(self, name: str) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return tensor_files.load(_file(self._store, self.key, name))


def _file(store: Store, key: str, name: str, kind: str | None = None) -> Path:
    path = store.file(key, name, kind)
    if path is None:
        raise _lost(store, key)
    return path


def _lost(store: Store, key: str) -> ObjectLost:
    return ObjectLost(
        f"the object {key} of the store {store.root} is damaged or gone; run the same command again"
    )


def is_stored(job: Job, store: Store) -> bool:
    """Return True when everything that the job was asked for is there."""
    snapshots = job.snapshots if isinstance(job, Train) else ()
    return is_complete(store, job.key, job.kind, snapshots)


def is_complete(store: Store, key: str, kind: str, snapshots: Iterable[int]) -> bool:
    """Return True when the result of a job is there, with the states after these steps.

    A training that diverged has no states from the step on at which that was found. The content of
    the files is checked when they are read.
    """
    # A seal without a look at the content: a rerun asks this of a hundred thousand jobs.
    if not store.is_sealed(key, kind):
        return False
    missing = [step for step in snapshots if not store.is_sealed(state_key(key, step), "state")]
    if not missing:
        return True
    try:
        diverged_at = StoredOutcome(store, key).diverged_at
    except ObjectLost:
        return False
    return diverged_at is not None and min(missing) >= diverged_at


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write plain data into a file of an object that is being written."""
    path.write_text(json.dumps(value, sort_keys=True))
