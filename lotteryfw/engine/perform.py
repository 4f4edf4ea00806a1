"""From a job to its object in the store, and back to an outcome: every process that runs jobs does it here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lotteryfw.engine.checkpoint import Checkpoints
from lotteryfw.engine.measure import gradient
from lotteryfw.engine.train import Training
from lotteryfw.engine.workshop import Workshop
from lotteryfw.errors import LotteryError, StoreError, TrainingDiverged
from lotteryfw.jobs import Gradient, Job, Train, from_plain, state_key
from lotteryfw.store import Busy, Store, tensors
from lotteryfw.views import Curve, Metrics

if TYPE_CHECKING:
    from torch import Tensor

Tick = Callable[[int, int], bool]
"""Told (steps done, steps in all) now and then; answers whether to stop at the next safe point."""


class Stopped(LotteryError):
    """A training was asked to stop; its checkpoint is written and it will go on from there."""


class StoredOutcome:
    """The outcome of a job, read from the store when it is looked at."""

    def __init__(self, store: Store, key: str):
        self._store = store
        self.key = key

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the object says of itself: its job, figures and seconds."""
        text = (_open(self._store, self.key) / "outcome.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

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
        said = dict(self.record["metrics"])
        said["curve"] = Curve(**{name: tuple(values) for name, values in said["curve"].items()})
        return Metrics(**said)

    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer at the end; of a gradient every leaf's."""
        return tensors.load(_open(self._store, self.key) / "tensors.safetensors")[0]

    def state(self, step: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Parameters and buffers, and the optimizer's state, after `step` steps of the schedule."""
        folder = _open(self._store, state_key(self.key, step))
        return tensors.load(folder / "values.safetensors")[0], tensors.load(folder / "optimizer.safetensors")[0]


def _open(store: Store, key: str) -> Any:
    path = store.path(key)
    if path is None:
        raise StoreError(f"the object {key} of the store {store.root} is damaged or gone; run the same command again")
    return path


def is_stored(job: Job, store: Store) -> bool:
    """True when everything that the job was asked for is there."""
    wanted = [state_key(job.key, step) for step in job.snapshots] if isinstance(job, Train) else []
    return all(store.path(key) is not None for key in [job.key, *wanted])


def perform(job: Job, store: Store, shop: Workshop, tick: Tick, checkpoint_seconds: float = 60.0) -> str | None:
    """Runs a job unless the store has it, writes what came out, and returns a warning or None.

    One process at a time works on a key; a second one waits and then finds the result. Raises Stopped, and whatever a
    component raises. A training that diverges is an outcome, too.
    """
    with _locked(job, store, tick):
        if is_stored(job, store):
            return None
        if isinstance(job, Gradient):
            with store.write(job.key) as folder:
                tensors.save(folder / "tensors.safetensors", gradient(job, shop))
                _write_json(folder / "outcome.json", {"job": job.plain()})
            return None
        warning = _train(job, store, shop, tick, Checkpoints(store.scratch(job.key), checkpoint_seconds))
        store.drop_scratch(job.key)
        return warning


@contextmanager
def _locked(job: Job, store: Store, tick: Tick) -> Iterator[None]:
    """Holds the job's lock; while another process has it, a stop is still answered."""
    lock = store.lock(job.key, timeout=0.5)
    while True:
        try:
            lock.__enter__()
            break
        except Busy:
            if tick(0, 1):
                raise Stopped("stopped while another process trains this") from None
            lock = store.lock(job.key, timeout=0.5)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _train(job: Train, store: Store, shop: Workshop, tick: Tick, checkpoints: Checkpoints) -> str | None:
    started, warning = time.monotonic(), None
    training = Training(job, shop)
    try:
        if found := checkpoints.load():
            training.restore(*found)
    except LotteryError as error:
        warning = f"{error}; the training starts again from its beginning"
    resumed_at = training.step

    def at_step(now: Training) -> None:
        if now.step in job.snapshots and store.path(state_key(job.key, now.step)) is None:
            with store.write(state_key(job.key, now.step)) as folder:
                tensors.save(folder / "values.safetensors", now.kernel.values())
                tensors.save(folder / "optimizer.safetensors", now.kernel.optimizer_state())
        stop = tick(now.step - job.start, job.steps)
        if stop or checkpoints.due:
            checkpoints.save(*now.state())
        if stop:
            raise Stopped(f"stopped at step {now.step}")

    # A training that is stored, but for states that nobody asked for then, is only repeated up to the last of them.
    stored = store.path(job.key) is not None
    until = max(job.snapshots) if stored else training.end
    outcome: dict[str, Any] = {"job": job.plain()}
    try:
        training.run(until, at_step)
        if stored:
            return warning
        outcome["metrics"] = asdict(training.metrics())
    except TrainingDiverged as diverged:
        outcome["diverged_at"] = diverged.step
    seconds = time.monotonic() - started
    outcome["timing"] = {"seconds": round(seconds, 3), "steps": training.step - resumed_at}
    with store.write(job.key) as folder:
        _write_json(folder / "outcome.json", outcome)
        if "metrics" in outcome:
            tensors.save(folder / "tensors.safetensors", training.kernel.values(), job.mask)
    return warning


def post(job: Job, store: Store) -> str:
    """Leaves a job in the store for another process, or a later moment, to `pick_up`; the name to do it by.

    The name is nobody else's, so that several runs may post one job; whoever posted it drops it (`drop_scratch`).
    """
    name = f"post-{uuid4().hex}"
    folder = store.scratch(name)
    tensors.save(folder / "start.safetensors", job.values, job.mask, flush=False)
    state = job.optimizer_state if isinstance(job, Train) else None
    if state is not None:
        tensors.save(folder / "optimizer.safetensors", state, flush=False)
    _write_json(folder / "job.json", {**job.plain(), "has_optimizer": state is not None})
    return name


def pick_up(name: str, store: Store) -> Job:
    """The job that was posted under a name."""
    folder = store.scratch(name)
    plain = json.loads((folder / "job.json").read_text())
    values, mask = tensors.load(folder / "start.safetensors")
    state = tensors.load(folder / "optimizer.safetensors")[0] if plain.pop("has_optimizer") else None
    return from_plain(plain, values=values, mask=mask, optimizer_state=state)


def _write_json(path: Any, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, sort_keys=True))
