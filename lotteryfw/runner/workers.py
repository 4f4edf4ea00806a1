"""Worker processes that run jobs, of one thread each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import BinaryIO

from lotteryfw.api.events import TrainingProgress
from lotteryfw.engine import DamagedJob, spool, worker_pipe
from lotteryfw.engine.gpus import VISIBLE
from lotteryfw.engine.messages import (
    FromWorker,
    GpuFailed,
    JobDone,
    JobFailed,
    JobStopped,
    Progress,
    Setup,
    Stop,
    ToWorker,
    Work,
)
from lotteryfw.engine.runtime import python_command
from lotteryfw.engine.worker import patience
from lotteryfw.runner.device_slots import MAX_FAILURES, DeviceSlot
from lotteryfw.runner.executors import ENDS_RUN, Finished
from lotteryfw.runner.reporter import Listener
from lotteryfw.search.jobs import Job, Spec
from lotteryfw.store import Store
from lotteryfw.store.files import explained

MAX_ATTEMPTS = 3
"""Workers that may die over a job, and damaged files that it may have, before it is given up."""
_POLL_SECONDS = 0.5
_START_SECONDS = 60.0
"""Seconds that a worker may at least take until its first message: it imports torch."""
_CLOSE_SECONDS = 30.0


@dataclass(eq=False)
class _Worker:
    """A worker process, its device, and the keys of the jobs that it runs."""

    process: subprocess.Popen[bytes]
    connection: Connection
    slot: DeviceSlot
    keys: list[str] = field(default_factory=list)
    # Seconds during which this process was there to listen, and no message came.
    silent: float = 0.0
    has_spoken: bool = False
    gpu_error: str = ""

    def send(self, message: ToWorker) -> None:
        """Send a message. Where the worker is dead, the end of its pipe shows it."""
        with contextlib.suppress(OSError):
            self.connection.send(message)


class Workers:
    """An executor of `capacity` worker processes on one or several devices.

    A process that dies, or is silent for too long, is replaced; what it had not finished goes on
    from its last checkpoint, on another device where one is free. A device that fails repeatedly
    gets no more jobs while there is another.
    """

    def __init__(
        self,
        slots: Sequence[DeviceSlot],
        store: Store,
        setup: Setup,
        listener: Listener,
        log: Path,
    ):
        """`log` takes what components print. `listener` receives progress and warnings."""
        self._slots = slots
        self.capacity = sum(slot.processes for slot in slots)
        self._store = store
        self._setup = setup
        self._listener = listener
        self._log = log
        self._patience = patience()
        self._queue: deque[list[str]] = deque()
        self._jobs: dict[str, Job] = {}
        self._spooled: dict[str, str] = {}
        self._workers: list[_Worker] = []
        self._failed_attempts: Counter[str] = Counter()
        self._finished: deque[Finished] = deque()
        self._stopping = False

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._jobs[job.key] = job
            self._spooled[job.key] = spool(job, self._store)
        self._queue.append([job.key for job in jobs])

    def wait(self) -> Finished:
        while not self._finished:
            if self._stopping:
                self._stop_all()
            self._assign()
            self._receive_all()
        finished = self._finished.popleft()
        self._store.drop_spooled(self._spooled.pop(finished.key))
        del self._jobs[finished.key]
        return finished

    def stop(self) -> None:
        # Acted on in `wait`, since a signal handler may be what calls this.
        self._stopping = True

    def close(self) -> None:
        for worker in self._workers:
            worker.send(Stop())
            worker.connection.close()
        for worker in self._workers:
            # A worker writes its checkpoints first, which takes a while for a large network.
            try:
                worker.process.wait(timeout=_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
        self._workers.clear()
        for name in self._spooled.values():
            self._store.drop_spooled(name)

    def _stop_all(self) -> None:
        for keys in self._queue:
            self._stopped(keys)
        self._queue.clear()
        # Again at each call: one message more does no harm, and saves a list of who has it.
        for worker in self._workers:
            worker.send(Stop())

    def _stopped(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._finished.append(Finished(key, stopped=True))

    # Processes

    def _assign(self) -> None:
        """Give each waiting group to a worker on the least loaded device, a new one if need be."""
        while self._queue:
            slot = self._least_loaded()
            if slot is None:
                return
            idle = [worker for worker in self._workers_on(slot) if not worker.keys]
            self._give(idle[0] if idle else self._spawn(slot), self._queue.popleft())

    def _least_loaded(self) -> DeviceSlot | None:
        """Return the device with the fewest groups of those that can take one more, or None."""
        loads: list[tuple[int, bool, int]] = []
        for index, slot in enumerate(self._slots):
            workers = self._workers_on(slot)
            busy = sum(bool(worker.keys) for worker in workers)
            if slot.in_service and busy < slot.processes:
                # Of equal ones, a device with a process that is there already comes first.
                loads.append((busy, busy == len(workers), index))
        return self._slots[min(loads)[2]] if loads else None

    def _workers_on(self, slot: DeviceSlot) -> list[_Worker]:
        return [worker for worker in self._workers if worker.slot is slot]

    def _give(self, worker: _Worker, keys: list[str]) -> None:
        worker.keys = keys
        worker.send(Work({key: self._spooled[key] for key in keys}))

    def _spawn(self, slot: DeviceSlot) -> _Worker:
        """Start a worker process on a device, and send it its setup."""
        ours, theirs = Pipe()
        # As many processes as cores share the machine, so a second thread would only be in the way.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if slot.gpu is not None:
            # The process sees this GPU alone, so it can take no memory on another.
            environment[VISIBLE] = slot.gpu
        command = python_command("lotteryfw.engine.worker")
        # The pipe's other end must be open in the worker alone: its end is how a death shows.
        with theirs, self._opened_log() as log:
            process = worker_pipe.start(command, theirs, environment, log)
        worker = _Worker(process, ours, slot)
        self._workers.append(worker)
        worker.send(self._setup)
        return worker

    def _opened_log(self) -> BinaryIO:
        with explained(self._log, "written"):
            # Somebody may have deleted the run's folder meanwhile.
            self._log.parent.mkdir(parents=True, exist_ok=True)
            return self._log.open("ab")

    def _reap(self, worker: _Worker) -> None:
        """Take leave of a worker that ended, and try its jobs again."""
        self._workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        if self._stopping:
            self._stopped(worker.keys)
            return
        if worker.gpu_error:
            reason = worker.gpu_error
        elif self._is_hung(worker):
            reason = f"no sign of life for {worker.silent:.0f} s"
        elif code < 0:
            reason = f"signal {-code}"
        else:
            reason = f"exit code {code}"
        if worker.keys:
            self._note_failure(worker.slot, reason)
        again: list[str] = []
        for key in worker.keys:
            if self._may_try_again(key):
                again.append(key)
            else:
                self._finished.append(Finished(key, self._death_message(key, reason)))
        if again:
            # First, since searches wait for it longer than for anything else.
            self._queue.appendleft(again)
            # A training on several devices is in no group.
            devices = getattr(self._jobs[again[0]], "devices", 1)
            rank = f", rank 0 of {devices}," if devices > 1 else ""
            self._listener.warning(
                f"a worker process{rank} ended ({reason}); "
                "what it worked on goes on from its last checkpoint"
            )

    def _note_failure(self, slot: DeviceSlot, reason: str) -> None:
        """Count a failure of a device, and take it out of service where it fails repeatedly."""
        slot.failures += 1
        others = [other for other in self._slots if other.in_service and other is not slot]
        # Without another, the attempts at each job decide when to give up.
        if slot.failures < MAX_FAILURES or not others or not slot.in_service:
            return
        slot.in_service = False
        self.capacity -= slot.processes
        for worker in self._workers_on(slot):
            if not worker.keys:
                worker.send(Stop())
        self._listener.warning(
            f"{slot.name} gets no more jobs in this run, since its processes ended {slot.failures} "
            f"times in a row ({reason}); the others go on"
        )

    def _may_try_again(self, key: str) -> bool:
        """Count a failed attempt at a job, and return whether there may be another."""
        self._failed_attempts[key] += 1
        return self._failed_attempts[key] < MAX_ATTEMPTS

    def _is_hung(self, worker: _Worker) -> bool:
        allowed = self._patience
        if not worker.has_spoken:
            allowed = max(allowed, _START_SECONDS)
        return worker.silent > allowed

    def _death_message(self, key: str, reason: str) -> str:
        text = (
            f"its worker process ended {MAX_ATTEMPTS} times without an answer ({reason}); "
            f"see {self._log}"
        )
        parts = _plugin_parts(self._jobs[key])
        names = ", ".join(f"{spec.kind} '{spec.use}' of {spec.provider}" for spec in parts)
        if names:
            text += (
                f"; it used {names}: "
                "a component that ends the process (os._exit) or crashes it does this"
            )
        return text

    # Messages

    def _receive_all(self) -> None:
        """Receive messages, and replace workers that have sent none for too long."""
        started = time.monotonic()
        by_connection = {worker.connection: worker for worker in self._workers}
        ready = wait(list(by_connection), _POLL_SECONDS)
        # Never more than a moment: this process, or all of them, may have been stopped meanwhile.
        waited = min(time.monotonic() - started, 2 * _POLL_SECONDS)
        for worker in self._workers:
            worker.silent += waited
        for connection in ready:
            worker = by_connection[connection]  # type: ignore[index]
            worker.silent, worker.has_spoken = 0.0, True
            self._receive(worker)
        for worker in list(self._workers):
            if self._is_hung(worker):
                with contextlib.suppress(ProcessLookupError):
                    worker_pipe.kill(worker.process)
                self._reap(worker)

    def _receive(self, worker: _Worker) -> None:
        """Receive the messages of a worker that has sent some, or that ended."""
        try:
            while worker.connection.poll():
                self._handle(worker, worker.connection.recv())
        except (EOFError, OSError):
            self._reap(worker)

    def _handle(self, worker: _Worker, message: FromWorker) -> None:
        match message:
            case Progress(keys, done, of, points):
                for key in keys:
                    loss, accuracy = points.get(key, (None, None))
                    self._listener.progress(TrainingProgress(key, done, of, loss, accuracy))
            case JobDone(key, warning, stored):
                worker.keys.remove(key)
                worker.slot.failures = 0
                self._finished.append(Finished(key, warning=warning, stored=stored))
            case JobStopped(key) if self._stopping:
                worker.keys.remove(key)
                self._stopped([key])
            case JobStopped():
                # Somebody else stopped the worker: it ends now, and its jobs are tried again.
                pass
            case GpuFailed(error):
                # The end of its pipe follows, and with it the next attempt.
                worker.gpu_error = error
            case JobFailed(key, error, kind, trace):
                worker.keys.remove(key)
                if kind != DamagedJob.__name__ or not self._spool_again(key):
                    failed = Finished(key, error, trace=trace, ends_run=ENDS_RUN.get(kind))
                    self._finished.append(failed)

    def _spool_again(self, key: str) -> bool:
        """Write a job whose file was damaged anew, and return whether it was; else it is given up."""
        if self._stopping or not self._may_try_again(key):
            return False
        self._store.notices.append(
            f"a job left for a worker was damaged on the disk, and was made again: {key}"
        )
        self._store.drop_spooled(self._spooled[key])
        self._spooled[key] = spool(self._jobs[key], self._store)
        self._queue.appendleft([key])
        return True


def _plugin_parts(job: Job) -> list[Spec]:
    """Return the components of a job that do not come with lotteryfw."""
    parts: list[Spec] = []
    for part in vars(job).values():
        for item in part if isinstance(part, tuple) else (part,):
            if isinstance(item, Spec) and not item.use.startswith("lotteryfw/"):
                parts.append(item)
    return parts
