"""Where jobs run: in this process, or in worker processes of one thread each."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from lotteryfw.api.errors import DataError, LotteryError, StoreError
from lotteryfw.engine import DamagedJob, EngineContext, Stopped, execute, exit_error, post
from lotteryfw.engine.worker import patience
from lotteryfw.search.jobs import Job, Spec
from lotteryfw.store import Store

_LIVES = 3
"""Workers that may die over a job before it is given up."""
_POLL_SECONDS = 0.5
_START_SECONDS = 60.0
"""How long at least a worker may take until it says the first thing."""


@dataclass(frozen=True)
class Finished:
    """A job that ended. `error` is None when its result is in the store; `ends_run` marks faults beyond the job.

    `stored` is True where another process had computed it while this one waited for it.
    """

    key: str
    error: str | None = None
    warning: str | None = None
    trace: str = ""
    ends_run: type[LotteryError] | None = None
    stopped: bool = False
    stored: bool = False


Progress = Callable[[str, int, int], None]
"""Told (key, steps done, steps in all) now and then."""


class Executor(Protocol):
    """Takes groups of jobs that go `together`, of one job mostly, and gives back what finished, one job at a time."""

    capacity: int

    def submit(self, jobs: Sequence[Job]) -> None:
        """Accepts a group; at most `capacity` are at work at once, the others wait their turn."""
        ...

    def wait(self) -> Finished:
        """The next job to end; blocks until there is one."""
        ...

    def stop(self) -> None:
        """Asks all running jobs to stop at a safe point; `wait` then reports them as stopped."""
        ...

    def close(self) -> None:
        """Lets go of everything; jobs still running are stopped."""
        ...


_ENDS_RUN = {error.__name__: error for error in (StoreError, DataError)}


class InProcess:
    """Runs one job after another here. A stop is noticed at the next step."""

    capacity = 1

    def __init__(
        self, store: Store, shop: EngineContext, progress: Progress, checkpoint_seconds: float
    ):
        self._store, self._shop, self._progress = store, shop, progress
        self._checkpoint_seconds = checkpoint_seconds
        self._queue: deque[Sequence[Job]] = deque()
        self._finished: deque[Finished] = deque()
        self._stopping = False

    def submit(self, jobs: Sequence[Job]) -> None:
        self._queue.append(jobs)

    def wait(self) -> Finished:
        if not self._finished:
            self._work(self._queue.popleft())
        return self._finished.popleft()

    def _work(self, jobs: Sequence[Job]) -> None:
        left = [job.key for job in jobs]

        def tick(done: int, of: int) -> bool:
            self._progress(left[done % len(left)], done, of)
            return self._stopping

        stored: set[str] = set()

        def done(key: str, warning: str | None) -> None:
            left.remove(key)
            self._finished.append(Finished(key, warning=warning, stored=key in stored))

        try:
            execute(jobs, self._store, self._shop, tick, done, self._checkpoint_seconds, stored.add)
        except Stopped:
            self._finished += [Finished(key, stopped=True) for key in left]
        except (Exception, SystemExit) as raised:
            error = exit_error(raised) if isinstance(raised, SystemExit) else raised
            kind, trace = type(error).__name__, traceback.format_exc()
            text = str(error) if isinstance(error, LotteryError) else f"{kind}: {error}"
            self._finished += [
                Finished(key, text, trace=trace, ends_run=_ENDS_RUN.get(kind)) for key in left
            ]

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._queue.clear()


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    inbox: IO[bytes]
    outbox: IO[bytes]
    rest: bytes = b""
    keys: list[str] = field(default_factory=list)
    silent: float = 0.0
    """Seconds in which this process was there to listen and nothing came."""
    has_spoken: bool = False

    def say(self, **message: Any) -> None:
        """Sends a message; nothing where the worker is dead, whose silence tells of it."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.inbox.write(json.dumps(message).encode() + b"\n")
            self.inbox.flush()

    def hang_up(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # unsent messages to a dead worker
            self.inbox.close()


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker must know to be ready for jobs."""

    store: Path
    data_folder: Path
    device: str
    trust: tuple[Path, ...] = ()
    checkpoint_seconds: float = 60.0

    def plain(self) -> dict[str, Any]:
        return {
            "store": str(self.store),
            "data_folder": str(self.data_folder),
            "device": self.device,
            "trust": [str(path) for path in self.trust],
            "checkpoint_seconds": self.checkpoint_seconds,
        }


@dataclass
class Workers:
    """`capacity` worker processes. One that dies, or is silent for too long, is replaced; what it had not finished is
    tried again from its last checkpoint."""

    capacity: int
    store: Store
    setup: WorkerSetup
    progress: Progress
    log: Path
    trouble: Callable[[str], None] = lambda message: None
    patience: float = field(default_factory=patience)
    _queue: deque[list[str]] = field(default_factory=deque)
    _jobs: dict[str, Job] = field(default_factory=dict)
    _posts: dict[str, str] = field(default_factory=dict)
    _parts: dict[str, tuple[Spec, ...]] = field(default_factory=dict)
    _workers: list[_Worker] = field(default_factory=list)
    _deaths: dict[str, int] = field(default_factory=dict)
    _finished: deque[Finished] = field(default_factory=deque)
    _stopping: bool = False
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._jobs |= {job.key: job for job in jobs}
        self._posts |= {job.key: post(job, self.store) for job in jobs}
        self._parts |= {job.key: _plugin_parts(job) for job in jobs}
        self._queue.append([job.key for job in jobs])

    def wait(self) -> Finished:
        while not self._finished:
            if self._stopping:
                self._halt()
            self._hand_out()
            self._look()
        finished = self._finished.popleft()
        self.store.drop_scratch(self._posts.pop(finished.key))
        self._parts.pop(finished.key)
        del self._jobs[finished.key]
        return finished

    def _look(self) -> None:
        """Hear what workers say, and replace those that have said nothing for too long."""
        started = time.monotonic()
        talking = [ready.data for ready, _ in self._selector.select(_POLL_SECONDS)]
        # Never more than a moment at a time: this process, or all of them, may have been stopped in between.
        waited = min(time.monotonic() - started, 2 * _POLL_SECONDS)
        for worker in self._workers:
            worker.silent += waited
        for worker in talking:
            worker.silent, worker.has_spoken = 0.0, True
            self._listen(worker)
        for worker in list(self._workers):
            if self._is_hung(worker):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.process.pid, signal.SIGKILL)  # it leads a session of its own
                self._bury(worker)

    def _is_hung(self, worker: _Worker) -> bool:
        allowed = self.patience if worker.has_spoken else max(self.patience, _START_SECONDS)
        return worker.silent > allowed

    def stop(self) -> None:
        self._stopping = True  # acted on in wait: a signal handler may be what calls this

    def close(self) -> None:
        for worker in self._workers:
            worker.say(stop=True)
            worker.hang_up()
        for worker in self._workers:
            try:
                worker.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                worker.process.kill()
            worker.outbox.close()
        self._workers.clear()
        self._selector.close()
        for name in self._posts.values():
            self.store.drop_scratch(name)

    def _halt(self) -> None:
        while self._queue:
            self._finished += [Finished(key, stopped=True) for key in self._queue.popleft()]
        for worker in self._workers:
            worker.say(stop=True)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if not worker.keys and self._queue:
                self._give(worker, self._queue.popleft())
        while self._queue and len(self._workers) < self.capacity:
            self._give(self._hire(), self._queue.popleft())

    def _give(self, worker: _Worker, keys: list[str]) -> None:
        worker.keys = keys
        worker.say(posts={key: self._posts[key] for key in keys})

    def _hire(self) -> _Worker:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lotteryfw.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which tells the workers to stop
            )
        assert process.stdin is not None
        assert process.stdout is not None
        worker = _Worker(process, process.stdin, process.stdout)
        self._workers.append(worker)
        self._selector.register(worker.outbox, selectors.EVENT_READ, worker)
        worker.say(setup=self.setup.plain())
        return worker

    def _listen(self, worker: _Worker) -> None:
        text = os.read(worker.outbox.fileno(), 1 << 16)
        if not text:
            self._bury(worker)
            return
        *lines, worker.rest = (worker.rest + text).split(b"\n")
        for message in map(json.loads, lines):
            if "progress" in message:
                for key in message["keys"]:
                    self.progress(key, *message["progress"])
            elif message.keys() & {"ready", "alive"}:
                continue
            elif "stopped" in message and not self._stopping:
                continue  # somebody else stopped the worker: it ends now, and its jobs go back to the queue
            else:
                finished = _finished(message)
                worker.keys.remove(finished.key)
                if message.get("kind") != DamagedJob.__name__ or not self._post_again(finished.key):
                    self._finished.append(finished)

    def _post_again(self, key: str) -> bool:
        """Posts a job anew whose post was damaged, and says whether it did: it is given up after `_LIVES` times."""
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._stopping or self._deaths[key] >= _LIVES:
            return False
        self.store.notices.append(
            f"a job left for a worker was damaged on the disk, and was made again: {key}"
        )
        self.store.drop_scratch(self._posts[key])
        self._posts[key] = post(self._jobs[key], self.store)
        self._queue.appendleft([key])
        return True

    def _bury(self, worker: _Worker) -> None:
        self._selector.unregister(worker.outbox)
        self._workers.remove(worker)
        worker.hang_up()
        worker.outbox.close()
        code = worker.process.wait()
        if self._stopping:
            self._finished += [Finished(key, stopped=True) for key in worker.keys]
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._is_hung(worker):
            how = f"no sign of life for {worker.silent:.0f} s"
        again = []
        for key in worker.keys:
            deaths = self._deaths[key] = self._deaths.get(key, 0) + 1
            if deaths < _LIVES:
                again.append(key)
            else:
                self._finished.append(Finished(key, self._given_up(key, how)))
        if again:
            self._queue.appendleft(again)
            self.trouble(
                f"a worker process ended ({how}); what it worked on goes on from its last checkpoint"
            )

    def _given_up(self, key: str, how: str) -> str:
        parts = self._parts.get(key, ())
        names = ", ".join(f"{spec.kind} '{spec.use}' of {spec.provider}" for spec in parts)
        suspects = f"; it used {names}: a component that ends the process (os._exit) or crashes it does this"
        return (
            f"its worker process ended {_LIVES} times without an answer ({how}); see {self.log}"
            f"{suspects if names else ''}"
        )


def _plugin_parts(job: Job) -> tuple[Spec, ...]:
    """The components of a job that do not come with lotteryfw."""
    parts: list[Spec] = []
    for part in vars(job).values():
        parts += [part] if isinstance(part, Spec) else []
        parts += (
            [item for item in part if isinstance(item, Spec)] if isinstance(part, tuple) else []
        )
    return tuple(part for part in parts if not part.use.startswith("lotteryfw/"))


def _finished(message: dict[str, Any]) -> Finished:
    if "done" in message:
        return Finished(message["done"], warning=message["warning"], stored=message["stored"])
    if "stopped" in message:
        return Finished(message["stopped"], stopped=True)
    return Finished(
        message["failed"],
        message["error"],
        trace=message["trace"],
        ends_run=_ENDS_RUN.get(message["kind"]),
    )
