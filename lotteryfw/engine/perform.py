"""From a job to its object in the store, and back to an outcome: every process that runs jobs does it here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import LotteryError, StoreError, TrainingDiverged
from lotteryfw.api.metrics import Metrics
from lotteryfw.engine.kernels.lockstep import together
from lotteryfw.engine.measure import gradient
from lotteryfw.engine.work import (
    CheckpointRefused,
    Done,
    Stopped,
    Tick,
    Work,
    train,
    train_together,
    write_json,
)
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Gradient, Job, Train, from_plain, state_key
from lotteryfw.store import Busy, Damaged, Store, check_seal, seal, tensors
from lotteryfw.store.files import explained, own_name

if TYPE_CHECKING:
    from torch import Tensor


class StoredOutcome:
    """The outcome of a job, read from the store when it is looked at."""

    def __init__(self, store: Store, key: str):
        self._store = store
        self.key = key

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the object says of itself: its job, figures and seconds."""
        text = self._store.read(self.key, "outcome.json")
        if text is None:
            raise _lost(self._store, self.key)
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
        return Metrics.of(self.record["metrics"])

    def tensors(self) -> Mapping[str, Tensor]:
        """Every parameter and buffer at the end; of a gradient every layer's."""
        return tensors.load(_file(self._store, self.key, "tensors.safetensors"))[0]

    def mask(self) -> Mapping[str, Tensor]:
        """By layer, bool: the weights that the training had; of learning a mask, the edges that it could keep."""
        return tensors.load(_file(self._store, self.key, "tensors.safetensors"))[1]

    def state(self, step: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Parameters and buffers, and the optimizer's state, after `step` steps of the schedule."""
        key = state_key(self.key, step)
        values = tensors.load(_file(self._store, key, "values.safetensors", "state"))[0]
        state = tensors.load(_file(self._store, key, "optimizer.safetensors", "state"))[0]
        return values, state


class DamagedJob(LotteryError):
    """A job that was left in the store for a worker, or for later, is not what was written. It is not trained from."""


class ObjectLost(StoreError):
    """An object that was there is damaged or gone. What waits for it can be asked for again."""


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
    """True when everything that the job was asked for is there."""
    snapshots = job.snapshots if isinstance(job, Train) else ()
    return is_complete(store, job.key, _kind(job), snapshots)


def is_complete(store: Store, key: str, kind: str, snapshots: Iterable[int]) -> bool:
    """True when the result of a training or gradient is there, with the states after these steps.

    What is in their files is checked when they are read.
    """
    if not store.is_sealed(key, kind):
        return False
    return all(store.is_sealed(state_key(key, step), "state") for step in snapshots)


def _kind(job: Job) -> str:
    """The kind of the object that a job's result is."""
    return "training" if isinstance(job, Train) else "gradient"


def perform(
    job: Job, store: Store, shop: Workshop, tick: Tick, checkpoint_seconds: float = 60.0
) -> str | None:
    """`perform_all` for one job; returns its warning or None."""
    said: dict[str, str | None] = {}
    perform_all([job], store, shop, tick, said.__setitem__, checkpoint_seconds)
    return said[job.key]


def perform_all(
    jobs: Sequence[Job],
    store: Store,
    shop: Workshop,
    tick: Tick,
    done: Done,
    checkpoint_seconds: float = 60.0,
    on_stored: Callable[[str], None] = lambda key: None,
) -> None:
    """Runs one job, or several that go `together`, but for those that the store has, and writes what came out.

    One process at a time works on a key; a second one waits and then finds the result. `done` is told of each job once
    its result is there, after `on_stored` where another process had computed it. Raises Stopped, and whatever a
    component raises. A training that diverges is an outcome, too, and leaves the others as they are.
    """
    with ExitStack() as held:
        for job in sorted(
            jobs, key=lambda job: job.key
        ):  # in one order everywhere, or two groups wait for each other
            held.enter_context(_locked(job, store, tick))
        works: list[Work] = []
        for job in jobs:
            if is_stored(job, store):
                on_stored(job.key)
                done(job.key, None)
            elif isinstance(job, Gradient):
                with store.write(job.key, _kind(job), job.source) as folder:
                    tensors.save(folder / "tensors.safetensors", gradient(job, shop), flush=False)
                    write_json(folder / "outcome.json", {"job": job.plain()})
                done(job.key, None)
            else:
                works.append(Work(job, store, checkpoint_seconds, done))
        while works:
            step = min(
                work.reached for work in works
            )  # a process that died may have left them at several
            group = [work for work in works if work.reached == step]
            alone = together(group[0].job) is None
            group = group[:1] if alone else group
            with suppress(
                CheckpointRefused
            ):  # then a work of the group has another step, and another group
                if alone:
                    train(group[0], shop, tick)
                else:
                    train_together(group, shop, tick)
                works = [work for work in works if work not in group]


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


def post(job: Job, store: Store) -> str:
    """Leaves a job in the store for another process, or a later moment, to `pick_up`; the name to do it by.

    The name is nobody else's, so that several runs may post one job; whoever posted it drops it (`drop_scratch`).
    """
    name = store.new_post()
    aside, target = store.scratch(f"{name}.part"), store.scratch(name)
    state = job.optimizer_state if isinstance(job, Train) else None
    with store.computing(), explained(aside, "written"):
        tensors.save(aside / "start.safetensors", job.values, job.mask, flush=False)
        if state is not None:
            tensors.save(aside / "optimizer.safetensors", state, flush=False)
        write_json(aside / "job.json", {**job.plain(), "has_optimizer": state is not None})
        seal(aside, name, "post", flush=False, job=job.key, posted_by=own_name())
        aside.rename(target)
    return name


def pick_up(name: str, store: Store) -> Job:
    """The job that was posted under a name. Raises DamagedJob where it is not what was posted."""
    folder = store.scratch(name)
    try:
        description = check_seal(folder, name, "post")
        plain = json.loads((folder / "job.json").read_text())
        values, mask = tensors.load(folder / "start.safetensors")
        state = (
            tensors.load(folder / "optimizer.safetensors")[0]
            if plain.pop("has_optimizer")
            else None
        )
        job = from_plain(plain, values=values, mask=mask, optimizer_state=state)
        if job.key != description["job"]:
            raise Damaged("its tensors and settings are not those of the job that was posted")
    except (Damaged, OSError, StoreError, ValueError, KeyError, TypeError) as error:
        raise DamagedJob(
            f"{folder}: a job that waited there for its training is damaged ({error}), and was not trained from: "
            "run the same command again, which makes the job anew"
        ) from error
    return job
