"""A further rank of a training, started as workers are (see `runtime.python_command`).

Its argument is its end of a pipe to rank 0, which says what to do (see
`lotteryfw.engine.messages`). It makes the same updates as rank 0, on its share of each batch. At
the end of the pipe it ends at once, whatever it is doing: rank 0 is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue

from lotteryfw.api.errors import LotteryError
from lotteryfw.engine.component_errors import exit_error, naming_components
from lotteryfw.engine.gpus import use_gpu
from lotteryfw.engine.messages import (
    EXCHANGE_FAILED,
    Alive,
    BeginTraining,
    CompareWeights,
    FromRank,
    MakeUpdate,
    RankFailed,
    RankReady,
    ToRank,
)
from lotteryfw.engine.runtime import EngineContext, configure_torch
from lotteryfw.engine.worker import patience
from lotteryfw.engine.worker_pipe import open_pipe
from lotteryfw.registry import Registry
from lotteryfw.store import Store

_ALIVE_SECONDS = 5.0
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Signals that rank 0 acts on: it stops at a safe point, and then ends the others."""


class RankChannel:
    """The rank's end of the pipe. A thread receives, so that its end is noticed at any time."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._received: SimpleQueue[ToRank] = SimpleQueue()
        # The thread that sends `Alive` must not send into the middle of another message.
        self._sending = threading.Lock()
        for target in (self._receive, self._send_alive):
            threading.Thread(target=target, daemon=True).start()

    def next(self) -> ToRank:
        """Wait for the next message, and return it."""
        return self._received.get()

    def send(self, message: FromRank) -> None:
        """Send a message. Where rank 0 is gone, this process ends."""
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(0)

    def _receive(self) -> None:
        while True:
            try:
                self._received.put(self._connection.recv())
            except (EOFError, OSError):
                # Without a word to the others, which end in the same way.
                os._exit(0)

    def _send_alive(self) -> None:
        while True:
            self.send(Alive())
            time.sleep(min(_ALIVE_SECONDS, patience() / 6))


def main() -> None:
    """Follow rank 0 until it is gone."""
    for name in _SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    channel = RankChannel(open_pipe(int(sys.argv[1])))
    configure_torch()
    from lotteryfw.engine.ranks.exchange import LostRank

    try:
        _follow(channel)
    except LostRank:
        os._exit(EXCHANGE_FAILED)
    except (Exception, SystemExit) as raised:
        error = exit_error(raised) if isinstance(raised, SystemExit) else raised
        text = str(error) if isinstance(error, LotteryError) else f"{type(error).__name__}: {error}"
        traceback.print_exc()
        channel.send(RankFailed(text))
        # Rank 0 ends this process when it has read the message.
        threading.Event().wait()


def _follow(channel: RankChannel) -> None:
    """Make the network of a training, and its updates as rank 0 says."""
    from lotteryfw.engine.arithmetic import algorithms_of
    from lotteryfw.engine.kernels.distributed import rank_training

    begin = channel.next()
    assert isinstance(begin, BeginTraining)
    if begin.gpu is not None:
        use_gpu(f"cuda:{begin.gpu}")
    context = EngineContext(
        Registry.load(list(begin.trust)), begin.data_folder, begin.device, Store(begin.store)
    )
    training = rank_training(begin, context)
    channel.send(RankReady())
    training.join(begin.rank, begin.rendezvous)
    with naming_components(training.job, context), algorithms_of(training.job):
        while True:
            match channel.next():
                case MakeUpdate(step, factor):
                    training.update(step, factor)
                case CompareWeights():
                    training.differing_ranks()


if __name__ == "__main__":
    main()
