"""A worker process; its argument is its end of a pipe (see `runtime.python_command`).

It reads a `Setup`, then groups of jobs (`Work`), until a `Stop` or the end of the run's process,
and answers with the messages of `lotteryfw.engine.messages`. A thread sends `Alive` every few
seconds: only a process that was stopped, or hangs where no thread can run, is silent.

SIGTERM, SIGHUP and SIGUSR1 stop it at a safe point: what is under way is kept in a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import FrameType

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine.component_errors import exit_error
from lotteryfw.engine.execute import execute
from lotteryfw.engine.gpus import cuda_error, would_recur
from lotteryfw.engine.messages import (
    Alive,
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
from lotteryfw.engine.outcomes import Stopped
from lotteryfw.engine.runtime import EngineContext, configure_torch
from lotteryfw.engine.spool import DamagedJob, unspool
from lotteryfw.engine.worker_pipe import open_pipe
from lotteryfw.registry import Registry
from lotteryfw.search.jobs import Job
from lotteryfw.store import Store

SILENT_SECONDS = 60.0
"""Seconds without a message after which a worker is replaced, unless LOTTERYFW_HEARTBEAT is set."""
_PROGRESS_SECONDS = 0.5
_ALIVE_SECONDS = 5.0
_POLL_SECONDS = 1.0
"""Seconds at most until a worker without work notices a signal."""
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1")
"""Signals that schedulers of clusters may send to every process of a job."""


class Channel:
    """The worker's end of the pipe. `stopping` is True once the worker has to stop."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._received: deque[ToWorker] = deque()
        # The thread that sends `Alive` must not send into the middle of another message.
        self._sending = threading.Lock()
        self.stopping = False

    def start_heartbeat(self, seconds: float) -> None:
        """Start the thread that sends `Alive` every `seconds`."""

        def repeat() -> None:
            # A daemon thread: it ends with the process, whatever that is doing.
            while not self._connection.closed:
                time.sleep(seconds)
                self.send(Alive())

        threading.Thread(target=repeat, name="heartbeat", daemon=True).start()

    def send(self, message: FromWorker) -> None:
        """Send a message. Where the run's process is gone, `receive` notices."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.send(message)

    def receive(self, seconds: float) -> None:
        """Take in the messages that have come, waiting up to `seconds` for the first."""
        try:
            while not self.stopping and self._connection.poll(seconds):
                message: ToWorker = self._connection.recv()
                if isinstance(message, Stop):
                    self.stopping = True
                else:
                    self._received.append(message)
                seconds = 0.0
        except (EOFError, OSError):  # the run's process is gone
            self.stopping = True

    def next(self) -> ToWorker | None:
        """Wait for the next message, and return it; None once the worker has to stop."""
        while not self._received and not self.stopping:
            self.receive(_POLL_SECONDS)
        return None if self.stopping else self._received.popleft()


def patience() -> float:
    """Return the seconds for which a worker may be silent. Raises UsageError for a bad setting."""
    text = os.environ.get("LOTTERYFW_HEARTBEAT") or str(SILENT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"LOTTERYFW_HEARTBEAT: must be a number of seconds above 0, not {text!r}")
    return seconds


def main() -> None:
    """Run jobs until a `Stop` comes or the run's process is gone."""
    channel = Channel(open_pipe(int(sys.argv[1])))

    def stop(number: int, frame: FrameType | None) -> None:
        channel.stopping = True

    for name in _SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    # Before torch is set up, which may take longer than the run waits.
    channel.start_heartbeat(min(_ALIVE_SECONDS, patience() / 6))
    configure_torch()

    setup = channel.next()
    if not isinstance(setup, Setup):
        return
    registry = Registry.load(list(setup.trust))
    store = Store(setup.store)
    workshop = EngineContext(registry, setup.data_folder, setup.device, store)
    channel.send(Alive())  # ready: importing and loading may have taken long
    while isinstance(work := channel.next(), Work):
        # Another process takes over from one that its GPU no longer serves.
        if not _run_group(work.spooled, store, workshop, channel, setup.checkpoint_seconds):
            return


def _run_group(
    spooled: Mapping[str, str],
    store: Store,
    workshop: EngineContext,
    channel: Channel,
    checkpoint_seconds: float,
) -> bool:
    """Run the jobs with these keys, and send how each ended.

    Returns whether the process can run others.
    """
    unfinished = list(spooled)
    stored: set[str] = set()
    last_progress = 0.0

    def on_step(done: int, of: int) -> bool:
        nonlocal last_progress
        now = time.monotonic()
        if now - last_progress >= _PROGRESS_SECONDS:
            last_progress = now
            # A `Stop` comes by the pipe, so it is looked at from time to time within a training,
            # too.
            channel.receive(0)
            points = dict(workshop.last_points)
            channel.send(Progress(tuple(unfinished), done, of, points))
        return channel.stopping

    def on_done(key: str, warning: str | None) -> None:
        unfinished.remove(key)
        channel.send(JobDone(key, warning, stored=key in stored))

    try:
        jobs: list[Job] = []
        for key, name in spooled.items():
            try:
                jobs.append(unspool(name, store))
            except DamagedJob as damaged:  # the others of its group are sound
                unfinished.remove(key)
                channel.send(JobFailed(key, str(damaged), DamagedJob.__name__, trace=""))
        execute(jobs, store, workshop, on_step, on_done, checkpoint_seconds, stored.add)
    except Stopped:
        for key in unfinished:
            channel.send(JobStopped(key))
    except (Exception, SystemExit) as raised:
        # A component that calls sys.exit fails its jobs, and not the worker without a word.
        error = exit_error(raised) if isinstance(raised, SystemExit) else raised
        kind, trace = type(error).__name__, traceback.format_exc()
        text = str(error) if isinstance(error, LotteryError) else f"{kind}: {error}"
        broken = cuda_error(error)
        if broken is not None and not would_recur(broken):
            print(trace, file=sys.stderr, flush=True)
            channel.send(GpuFailed(broken))
            return False
        for key in unfinished:
            channel.send(JobFailed(key, text, kind, trace))
        return broken is None
    return True


if __name__ == "__main__":
    main()
    # Without taking torch apart module by module: a second for which the run would wait.
    os._exit(0)
