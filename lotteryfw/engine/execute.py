"""Runs jobs into the store: every process that runs jobs does it here.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lotteryfw.engine.component_errors import naming_components
from lotteryfw.engine.kernels.dispatch import group_key
from lotteryfw.engine.memory_errors import (
    DeviceMemoryError,
    free_memory,
    lack_of_memory,
    memory_advice,
)
from lotteryfw.engine.outcomes import (
    OnDone,
    OnStep,
    Stopped,
    is_stored,
    write_json,
)
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.jobs import Evaluate, Job, ProbeJob, Train, likeness
from lotteryfw.store import Busy, Store
from lotteryfw.store import tensors as tensor_files

if TYPE_CHECKING:
    from lotteryfw.engine.training_task import TrainingTask


def execute(
    jobs: Sequence[Job],
    store: Store,
    context: EngineContext,
    on_step: OnStep,
    on_done: OnDone,
    checkpoint_seconds: float = 60.0,
    on_stored: Callable[[str], None] = lambda key: None,
) -> None:
    """Run one job, or several with one `group_key`, and store their results.

    Jobs whose result the store has are not run. One process at a time works on a key; a second one
    waits and then finds the result. `on_done` is called for each job once its result is there,
    after `on_stored` where another process had computed it. Raises Stopped, and PluginError, which
    names the component, where one breaks. A training that diverges is an outcome, too, and leaves
    the others as they are.
    """
    from torch import OutOfMemoryError

    from lotteryfw.engine.arithmetic import algorithms_of
    from lotteryfw.engine.training_task import CheckpointRefused, TrainingTask, train

    if not jobs:
        return
    with ExitStack() as locks:
        locks.enter_context(naming_components(jobs[0], context))
        # In one order everywhere, or two groups would wait for each other.
        for job in sorted(jobs, key=lambda job: job.key):
            locks.enter_context(_locked(job, store, on_step))

        tasks: list[TrainingTask] = []
        for job in jobs:
            # Asked again under the lock: another process may have stored it meanwhile.
            if is_stored(job, store):
                on_stored(job.key)
                on_done(job.key, None)
            elif isinstance(job, Train):
                tasks.append(TrainingTask(job, store, checkpoint_seconds, on_done))
            else:
                _store_result(job, store, context)
                on_done(job.key, None)

        while tasks:
            group = _next_group(tasks, context)
            shortage = ""
            # A task whose checkpoint is refused goes on from another step, in another group.
            with suppress(CheckpointRefused), algorithms_of(group[0].job):
                try:
                    train(group, context, on_step)
                except OutOfMemoryError as error:
                    shortage = lack_of_memory(error)
                    if len(group) == 1:
                        raise DeviceMemoryError(memory_advice(group[0].job, shortage)) from error
                else:
                    tasks = [task for task in tasks if task not in group]
            if shortage:
                # Here and not above: the error keeps the group, and its memory, alive.
                tasks = _halved(tasks, group, context, shortage)


def _next_group(tasks: Sequence[TrainingTask], context: EngineContext) -> list[TrainingTask]:
    """Return the tasks that are furthest behind, if they can be trained in step, or one of them.

    A process that died may have left the tasks at several steps.
    """
    step = min(task.reached for task in tasks)
    group = [task for task in tasks if task.reached == step]
    if group_key(group[0].job) is None:
        return group[:1]
    return group[: context.group_limits.get(likeness(group[0].job))]


def _halved(
    tasks: Sequence[TrainingTask],
    group: Sequence[TrainingTask],
    context: EngineContext,
    shortage: str,
) -> list[TrainingTask]:
    """Return the tasks that are left after a group did not fit into the device's memory.

    Groups of such trainings have half as many members from now on, in this process.
    """
    most = len(group) // 2
    context.group_limits[likeness(group[0].job)] = most
    unfinished = [task for task in tasks if not task.is_finished]
    for task in group:
        # Each refers to the whole group. A checkpoint that it wrote meanwhile is where it goes on.
        task.begin_again()
    free_memory(context.device)
    if unfinished:
        unfinished[0].note(
            f"{len(group)} trainings in step did not fit into the device's memory ({shortage}), "
            f"and go on {most} at a time"
        )
    return unfinished


def _store_result(job: ProbeJob | Evaluate, store: Store, context: EngineContext) -> None:
    """Run a job that has no steps, and store the tensors or figures that it results in."""
    from torch import OutOfMemoryError

    from lotteryfw.engine.arithmetic import algorithms_of
    from lotteryfw.engine.evaluation_job import evaluate_network
    from lotteryfw.engine.probe_job import run_probe

    outcome: dict[str, Any] = {"job": job.plain()}
    # The folder appears as a whole or not at all, so a process that is killed leaves nothing.
    with store.write(job.key, job.kind, job.source) as folder:
        try:
            with algorithms_of(job):
                if isinstance(job, Evaluate):
                    outcome["evaluation"] = evaluate_network(job, context).plain()
                else:
                    tensors = run_probe(job, context)
                    tensor_files.save(folder / "tensors.safetensors", tensors, flush=False)
        except OutOfMemoryError as error:
            raise DeviceMemoryError(memory_advice(job, lack_of_memory(error))) from error
        write_json(folder / "outcome.json", outcome)


@contextmanager
def _locked(job: Job, store: Store, on_step: OnStep) -> Iterator[None]:
    """Hold the job's lock; while another process has it, a stop is still noticed."""
    # A short wait, so that a stop is noticed while another process has the lock.
    lock = store.lock(job.key, timeout=0.5)
    while True:
        try:
            lock.__enter__()
            break
        except Busy:
            if on_step(0, 1):
                raise Stopped("stopped while another process trains this") from None
            lock = store.lock(job.key, timeout=0.5)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
