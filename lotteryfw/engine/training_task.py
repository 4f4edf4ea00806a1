"""Takes trainings to their end: checkpoints, states kept on the way, what is stored."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import TrainingDiverged, says_memory_is_full
from lotteryfw.engine.checkpoint import Checkpoints
from lotteryfw.engine.outcomes import OnDone, OnStep, Stopped, write_json
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train, state_key, state_source
from lotteryfw.store import Store
from lotteryfw.store import tensors as tensor_files


class CheckpointRefused(Exception):
    """A training could not go on from a checkpoint, which was dropped.

    Its task now starts from an earlier one.
    """


class TrainingTask:
    """A training that is to be stored.

    `until` is the step it has to be taken to, `reached` the step of its checkpoint, or its first.
    """

    training: Training

    def __init__(self, job: Train, store: Store, checkpoint_seconds: float, on_done: OnDone):
        self.job = job
        self._store = store
        self._on_done = on_done
        self.checkpoints = Checkpoints(store.scratch(job.key), job.key, checkpoint_seconds)
        self._notes: list[str] = []
        self.is_finished = False
        self._find_checkpoint()
        # A stored training that lacks states which nobody wanted at its time is only repeated up to
        # the last of them, or to the step at which it diverges.
        self._is_stored = store.path(job.key, "training") is not None
        self.until = max(job.snapshots) if self._is_stored else job.start + job.steps

    def _find_checkpoint(self) -> None:
        self._checkpoint = self.checkpoints.load()
        self.reached: int = self._checkpoint[1]["step"] if self._checkpoint else self.job.start

    def begin_again(self) -> None:
        """Let go of the training, and go back to the last checkpoint, or to the first step."""
        if hasattr(self, "training"):
            del self.training
        self._find_checkpoint()

    def note(self, text: str) -> None:
        """Tell the user something about this training when it has ended."""
        self._notes.append(text)

    def begin(self, training: Training) -> None:
        """Go on from the checkpoint, if there is one.

        Raises CheckpointRefused where that fails, whatever the reason: `reached` is another step
        then, and the training must be made anew, since it may have taken over a part of the
        checkpoint.
        """
        self.training = training
        if self._checkpoint is None:
            return
        try:
            training.restore(*self._checkpoint)
        except Exception as error:
            # That memory is full says nothing about the checkpoint.
            if says_memory_is_full(error):
                raise
            self.checkpoints.drop(self.reached, f"{type(error).__name__}: {error}")
            self._find_checkpoint()
            raise CheckpointRefused from error

    @property
    def warning(self) -> str | None:
        """The message to the user: about checkpoints that were dropped, and other notes; or None."""
        if not self.checkpoints.warnings:
            return "; ".join(self._notes) or None
        resumed = "starts again from its beginning"
        if self._checkpoint:
            resumed = f"goes on from step {self.reached}"
        return "; ".join([*self._notes, *self.checkpoints.warnings, f"the training {resumed}"])

    def keep(self) -> None:
        """Store the state of this step if it was asked for."""
        step, member = self.training.step, self.training.member
        if step not in self.job.snapshots:
            return
        key = state_key(self.job.key, step)
        # Another job with the same key, or the training before a checkpoint, may have stored it.
        if self._store.path(key, "state") is None:
            with self._store.write(key, "state", state_source(self.job.key, step)) as folder:
                _save(folder, "values", member.state().encoded())
                _save(folder, "optimizer", member.optimizer_state())

    def save_checkpoint(self) -> None:
        """Write a checkpoint."""
        self.checkpoints.save(*self.training.checkpoint())

    @property
    def next_event(self) -> int:
        """The next step at which there is something to evaluate or to keep, or the last."""
        snapshots = [step for step in self.job.snapshots if step > self.training.step]
        return min(self.training.next_point, self.until, *snapshots)

    def finish(self, seconds: float, diverged: TrainingDiverged | None = None) -> None:
        """Store the outcome of a training that has come to its end."""
        job = self.job
        # Those of this process alone, which its seconds belong to.
        steps = self.training.step - self.reached
        outcome: dict[str, Any] = {
            "job": job.plain(),
            "timing": {"seconds": round(seconds, 3), "steps": steps},
        }
        if not self._is_stored:
            if diverged:
                outcome["diverged_at"] = diverged.step
            else:
                outcome["metrics"] = self.training.metrics().plain()
            with self._store.write(job.key, "training", job.source) as folder:
                write_json(folder / "outcome.json", outcome)
                if not diverged:
                    state = self.training.member.state()
                    # A mask update leaves another mask than the one that the training began with.
                    mask = state.masks if job.mask_update else job.mask
                    path = folder / "tensors.safetensors"
                    tensor_files.save(path, state.encoded(), mask, flush=False)
        # The checkpoints have served: the result itself is in the store now.
        self._store.drop_scratch(job.key)
        self.is_finished = True
        self._on_done(job.key, self.warning)


def train(tasks: Sequence[TrainingTask], context: EngineContext, on_step: OnStep) -> None:
    """Train the tasks of a group, all at one step, to their ends.

    The group is advanced to the next event of any of its members at a time. Raises Stopped, and
    CheckpointRefused before the first step.
    """
    started = time.monotonic()
    with closing(TrainingGroup([task.job for task in tasks], context)) as group:
        _train(group, tasks, context, on_step, started)


def _train(
    group: TrainingGroup,
    tasks: Sequence[TrainingTask],
    context: EngineContext,
    on_step: OnStep,
    started: float,
) -> None:
    job, step = tasks[0].job, tasks[0].reached
    for task, training in zip(tasks, group.trainings, strict=True):
        task.begin(training)

    running = list(tasks)
    stop = checkpoint_due = False

    def interrupt(step: int) -> bool:
        nonlocal stop, checkpoint_due
        stop = on_step(step - job.start, job.steps)
        # All of a group are saved together, so that they go on from one step.
        checkpoint_due = running[-1].checkpoints.due
        return stop or checkpoint_due

    # A stop may have been asked for while the data set was loaded.
    interrupt(step)
    updates = 0
    while True:
        # Members of one group may end, or diverge, at different steps.
        for task in list(running):
            diverged = _count(task, updates)
            if diverged or task.training.step >= task.until:
                running.remove(task)
                context.last_points.pop(task.job.key, None)
                task.finish((time.monotonic() - started) / len(tasks), diverged)
        if not running:
            return
        if stop or checkpoint_due:
            for task in running:
                task.save_checkpoint()
        if stop:
            raise Stopped(f"stopped at step {step}")
        updates = group.update(step, min(task.next_event for task in running), interrupt)
        step += updates


def _count(task: TrainingTask, updates: int) -> TrainingDiverged | None:
    """Count the updates of a task's training and keep its state; return its divergence, if any."""
    try:
        task.training.count(updates)
    except TrainingDiverged as error:
        return error
    task.keep()
    return None


def _save(folder: Path, name: str, tensors: Mapping[str, Any]) -> None:
    tensor_files.save(folder / f"{name}.safetensors", tensors, flush=False)
