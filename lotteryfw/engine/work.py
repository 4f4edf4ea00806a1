"""Taking trainings to their end: checkpoints, states kept on the way, what comes out, alone or in a lockstep group."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lotteryfw.api.errors import LotteryError, TrainingDiverged
from lotteryfw.engine.checkpoint import Checkpoints
from lotteryfw.engine.kernels.lockstep import Group
from lotteryfw.engine.train import Training
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train, state_key, state_source
from lotteryfw.store import Store, tensors

Tick = Callable[[int, int], bool]
"""Told (steps done, steps in all) now and then; answers whether to stop at the next safe point."""
Done = Callable[[str, str | None], None]
"""Told (key, warning or None) of a job whose result is in the store."""


class Stopped(LotteryError):
    """A training was asked to stop; its checkpoint is written and it will go on from there."""


class CheckpointRefused(Exception):
    """A training could not go on from a checkpoint, which was dropped. Its work now starts from an earlier one."""


class Work:
    """A training on its way into the store. `until` is the step it has to be taken to, `reached` the one before."""

    training: Training

    def __init__(self, job: Train, store: Store, checkpoint_seconds: float, done: Done):
        self.job, self._store, self._done = job, store, done
        self.checkpoints = Checkpoints(store.scratch(job.key), job.key, checkpoint_seconds)
        self._find_checkpoint()
        # A training that is stored, but for states that nobody asked for then, is only repeated up to the last of them.
        self._stored = store.path(job.key, "training") is not None
        self.until = max(job.snapshots) if self._stored else job.start + job.steps

    def _find_checkpoint(self) -> None:
        self._checkpoint = self.checkpoints.load()
        self.reached: int = self._checkpoint[1]["step"] if self._checkpoint else self.job.start

    def begin(self, training: Training) -> None:
        """Goes on from the checkpoint, if there is one.

        Raises CheckpointRefused where that fails, whatever the reason: `reached` is another step then, and the training
        must be made anew, since it may have taken over a part of the checkpoint.
        """
        self.training = training
        if self._checkpoint is None:
            return
        try:
            training.restore(*self._checkpoint)
        except Exception as error:
            if _is_out_of_memory(error):  # which says nothing about the checkpoint
                raise
            self.checkpoints.drop(self.reached, f"{type(error).__name__}: {error}")
            self._find_checkpoint()
            raise CheckpointRefused from error

    @property
    def warning(self) -> str | None:
        """What the user should be told of checkpoints that were dropped, or None."""
        if not self.checkpoints.warnings:
            return None
        again = (
            f"goes on from step {self.reached}"
            if self._checkpoint
            else "starts again from its beginning"
        )
        return "; ".join([*self.checkpoints.warnings, f"the training {again}"])

    def keep(self) -> None:
        """Stores the state of this step where it was asked for."""
        now = self.training
        if now.step not in self.job.snapshots:
            return
        key = state_key(self.job.key, now.step)
        if self._store.path(key, "state") is None:
            with self._store.write(key, "state", state_source(self.job.key, now.step)) as folder:
                tensors.save(folder / "values.safetensors", now.kernel.values(), flush=False)
                tensors.save(
                    folder / "optimizer.safetensors", now.kernel.optimizer_state(), flush=False
                )

    def save(self) -> None:
        """Writes a checkpoint."""
        self.checkpoints.save(*self.training.state())

    @property
    def next_event(self) -> int:
        """The next step at which there is something to measure or to keep, or at which it is over."""
        asked = [step for step in self.job.snapshots if step > self.training.step]
        return min(self.training.next_point, self.until, *asked)

    def finish(self, seconds: float, diverged: TrainingDiverged | None = None) -> None:
        """Stores the outcome of a training that has come to its end."""
        job = self.job
        outcome: dict[str, Any] = {"job": job.plain()}
        outcome["timing"] = {
            "seconds": round(seconds, 3),
            "steps": self.training.step - self.reached,
        }
        if diverged:
            outcome["diverged_at"] = diverged.step
        elif not self._stored:
            outcome["metrics"] = self.training.metrics().plain()
        if not self._stored:
            with self._store.write(job.key, "training", job.source) as folder:
                write_json(folder / "outcome.json", outcome)
                if not diverged:
                    tensors.save(
                        folder / "tensors.safetensors",
                        self.training.kernel.values(),
                        job.mask,
                        flush=False,
                    )
        self._store.drop_scratch(job.key)
        self._done(job.key, self.warning)


def train(work: Work, shop: Workshop, tick: Tick) -> None:
    """One training on its own. Raises CheckpointRefused before its first step."""
    started, job = time.monotonic(), work.job
    work.begin(Training(job, shop))

    def at_step(now: Training) -> None:
        work.keep()
        stop = tick(now.step - job.start, job.steps)
        if stop or work.checkpoints.due:
            work.save()
        if stop:
            raise Stopped(f"stopped at step {now.step}")

    diverged = None
    try:
        work.training.run(work.until, at_step)
    except TrainingDiverged as error:
        diverged = error
    work.finish(time.monotonic() - started, diverged)


def train_together(works: Sequence[Work], shop: Workshop, tick: Tick) -> None:
    """The members of a lockstep group, all at one step, up to the next event of any of them at a time.

    Raises CheckpointRefused before their first step.
    """
    started, job, step = time.monotonic(), works[0].job, works[0].reached
    group = Group([work.job for work in works], shop)
    for work, member in zip(works, group.members, strict=True):
        work.begin(Training(work.job, shop, member))
    factor = works[0].training.factor
    going, updates, stop, due = list(works), 0, False, False
    while going:
        for work in list(going):
            diverged = None
            try:
                work.training.take(updates)
            except TrainingDiverged as error:
                diverged = error
            else:
                work.keep()
            if diverged or work.training.step >= work.until:
                going.remove(work)
                work.finish((time.monotonic() - started) / len(works), diverged)
        if stop or due:
            for work in going:
                work.save()
        if stop and going:
            raise Stopped(f"stopped at step {step}")
        event, updates = min((work.next_event for work in going), default=step), 0
        while step < event:
            group.losses += group.update(step, factor(step))
            step, updates = step + 1, updates + 1
            stop, due = tick(step - job.start, job.steps), going[-1].checkpoints.due
            if stop or due:
                break


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def write_json(path: Any, value: Mapping[str, Any]) -> None:
    """Plain data into a file of an object that is being written."""
    path.write_text(json.dumps(value, sort_keys=True))
