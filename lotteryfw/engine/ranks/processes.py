"""The other ranks of a training, as rank 0 sees them: processes at the ends of pipes.

Rank 0 is the process that was given the job. It starts the others, tells them which update to make,
and watches them: one that died, or is silent for too long, ends all of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO

from lotteryfw.api.errors import LotteryError
from lotteryfw.engine import worker_pipe
from lotteryfw.engine.messages import (
    EXCHANGE_FAILED,
    Alive,
    FromRank,
    RankFailed,
    RankReady,
    ToRank,
)
from lotteryfw.engine.runtime import python_command
from lotteryfw.engine.worker import patience

_POLL_SECONDS = 0.2
_CLOSE_SECONDS = 5.0
_GRACE_SECONDS = 3.0
"""Seconds within which the death of one rank, that others fail by, must show."""
_START_SECONDS = 120.0
"""Seconds that a rank may at least take until its first message: it imports torch."""


class _Rank:
    """One other rank: its process, and what is known of it."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], connection: Connection):
        self.number = number
        self.process = process
        self.connection = connection
        self.is_ready = False
        self.error: str | None = None
        # Seconds during which this process was there to listen, and no message came.
        self.silent = 0.0
        self.has_spoken = False

    def send(self, message: ToRank) -> None:
        """Send a message. Where the process is dead, the end of its pipe shows it."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    @property
    def why_lost(self) -> str | None:
        """The reason why this rank itself is gone; None where another's loss is it."""
        if self.error is not None:
            return self.error
        code = self.process.poll()
        if code is None or code == EXCHANGE_FAILED:
            return None
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process {self.process.pid} ended ({ended})"


class RankProcesses:
    """The processes of the ranks 1, 2, … of a training."""

    def __init__(self, size: int, on_loss: Callable[[], None]):
        """Start them; `size` is the number of all ranks.

        `on_loss` is called once one is lost and the others are ended, by the thread that watches.
        """
        self._size = size
        self._on_loss = on_loss
        self._ranks: list[_Rank] = []
        self._loss: str | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._patience = patience()
        # A daemon thread: it must not keep a process that ends otherwise.
        self._watcher = threading.Thread(target=self._watch, name="ranks", daemon=True)
        try:
            for number in range(1, size):
                self._ranks.append(_start(number))
        except BaseException:
            self.close()
            raise
        self._watcher.start()

    def send(self, message: ToRank) -> None:
        """Send a message to every rank."""
        for rank in self._ranks:
            rank.send(message)

    def begin(self, message_for: Callable[[int], ToRank]) -> None:
        """Send each rank the message for its number, and wait until all have made their network.

        Raises LotteryError where one is lost.
        """
        for rank in self._ranks:
            rank.send(message_for(rank.number))
        with self._changed:
            self._changed.wait_for(
                lambda: self._loss is not None or all(rank.is_ready for rank in self._ranks)
            )
        if self._loss is not None:
            raise LotteryError(self._loss)

    @property
    def loss(self) -> str | None:
        """The reason why this training cannot go on; None while all ranks are there."""
        return self._loss

    def why_failed(self, exchange_error: Exception) -> str:
        """Return why an exchange failed: the rank that was lost, and how."""
        with self._changed:
            self._changed.wait_for(lambda: self._loss is not None, timeout=2 * _GRACE_SECONDS)
        return self._loss or f"the ranks could not exchange tensors ({exchange_error})"

    def close(self) -> None:
        """End the processes, and wait until they are gone."""
        self._is_closing = True
        # Before the pipes are closed, since their numbers may be those of other files then.
        if self._watcher.ident is not None:
            self._watcher.join()
        for rank in self._ranks:
            # At the end of its pipe a rank ends, whatever it is doing.
            rank.connection.close()
        for rank in self._ranks:
            try:
                rank.process.wait(timeout=_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(rank)
        self._ranks.clear()

    # The thread that watches

    def _watch(self) -> None:
        """Receive messages until a rank is lost, and then end the others."""
        while not self._is_closing:
            if self._receive_all():
                continue
            if not self._is_closing:
                self._report_loss()
            return

    def _receive_all(self) -> bool:
        """Receive what the ranks send, and return False once one of them is lost."""
        started = time.monotonic()
        by_connection = {rank.connection: rank for rank in self._ranks}
        ready = wait(list(by_connection), _POLL_SECONDS)
        # Never more than a moment: this process, or all of them, may have been stopped meanwhile.
        waited = min(time.monotonic() - started, 2 * _POLL_SECONDS)
        for rank in self._ranks:
            rank.silent += waited
        are_there = True
        for connection in ready:
            are_there &= self._receive(by_connection[connection])  # type: ignore[index]
        for rank in self._ranks:
            allowed = self._patience if rank.has_spoken else max(self._patience, _START_SECONDS)
            if rank.silent > allowed:
                rank.error = f"no sign of life for {rank.silent:.0f} s"
                are_there = False
        return are_there

    def _receive(self, rank: _Rank) -> bool:
        """Receive the messages of a rank, and return False once it is lost."""
        try:
            while rank.connection.poll():
                rank.silent, rank.has_spoken = 0.0, True
                message: FromRank = rank.connection.recv()
                match message:
                    case RankReady():
                        rank.is_ready = True
                    case RankFailed(error):
                        rank.error = error
                        return False
                    case Alive():
                        pass
        except (EOFError, OSError):
            return False
        with self._changed:
            self._changed.notify_all()
        return True

    def _report_loss(self) -> None:
        """Find out which rank was lost first, end the others, and wake who waits."""
        reason = "a rank of this training is gone"
        for _ in range(round(_GRACE_SECONDS / _POLL_SECONDS)):
            causes = [rank for rank in self._ranks if rank.why_lost is not None]
            if causes:
                lost = causes[0]
                reason = f"rank {lost.number} of {self._size}: {lost.why_lost}"
                break
            # A rank whose exchange failed may end before the one that it failed by.
            time.sleep(_POLL_SECONDS)
        for rank in self._ranks:
            # An exchange with a rank that hangs would wait for it.
            _kill(rank)
        with self._changed:
            self._loss = reason
            self._changed.notify_all()
        self._on_loss()


def _start(number: int) -> _Rank:
    """Start the process of a rank."""
    ours, theirs = Pipe()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = python_command("lotteryfw.engine.ranks.main")
    with theirs, _standard_error() as log:
        process = worker_pipe.start(command, theirs, environment, log)
    return _Rank(number, process, ours)


@contextlib.contextmanager
def _standard_error() -> Iterator[IO[bytes]]:
    """Yield where this process's own errors go: the terminal, or the log of a worker."""
    try:
        number = os.dup(2)
    except OSError:  # a process without a standard error
        number = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(number, "wb") as stream:
        yield stream


def _kill(rank: _Rank) -> None:
    if rank.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            worker_pipe.kill(rank.process)
        rank.process.wait()
