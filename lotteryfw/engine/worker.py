"""A worker process: `python -m lotteryfw.engine.worker`. Takes groups of posted jobs on stdin, answers on stdout.

One JSON object a line. In: {"setup": …} once, {"posts": {key: name, …}}, {"stop": true}. Out: {"ready": true},
{"progress": [done, of], "keys": […]}, and for each job {"done": key, "warning": …, "stored": …}, {"stopped": key} or
{"failed": key, "error": …, "kind": …, "trace": …}. A thread sends {"alive": true} every few seconds, however long a
step takes: only a process that was stopped, or hangs where no thread can run, is silent.

SIGTERM, SIGHUP and SIGUSR1 stop it at a safe point: what is under way is kept in a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine.execute import execute
from lotteryfw.engine.exits import exit_error
from lotteryfw.engine.outcomes import DamagedJob, Stopped, pick_up
from lotteryfw.engine.runtime import EngineContext, configure_torch
from lotteryfw.registry import Registry
from lotteryfw.store import Store

_PROGRESS_SECONDS = 0.5
SILENT_SECONDS = 60.0
"""How long a worker may say nothing before it is replaced; LOTTERYFW_HEARTBEAT sets another time."""
_ALIVE_SECONDS = 5.0
_LOOK_SECONDS = 1.0
"""How long at most a signal waits to be noticed by a worker without work."""


class Conversation:
    """The two ends of the conversation, and whether a stop was asked for."""

    def __init__(self, inbox: int, outbox: TextIO):
        self._inbox = inbox
        self._outbox = outbox
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(inbox, selectors.EVENT_READ)
        self._waiting: list[dict[str, Any]] = []
        self._saying = threading.Lock()
        self.stopping = False

    def beat(self, seconds: float) -> None:
        """Start the thread that says every `seconds` that the process is alive."""

        def repeat() -> None:
            while True:
                time.sleep(seconds)
                self.say(alive=True)

        threading.Thread(target=repeat, name="heartbeat", daemon=True).start()

    def say(self, **message: Any) -> None:
        """Sends one message."""
        with (
            self._saying,
            contextlib.suppress(BrokenPipeError),
        ):  # the runner is gone: `listen` notices
            self._outbox.write(json.dumps(message) + "\n")
            self._outbox.flush()

    def listen(self, seconds: float) -> None:
        """Reads what has come, waiting up to `seconds` for it."""
        if not self._selector.select(seconds):
            return
        text = os.read(self._inbox, 1 << 16)
        if not text:
            self.stopping = True  # the runner is gone
        *lines, self._rest = (self._rest + text).split(b"\n")
        for message in map(json.loads, lines):
            self.stopping |= bool(message.get("stop"))
            self._waiting.append(message)

    def next(self) -> dict[str, Any] | None:
        """The next message; None once a stop was asked for."""
        while not self._waiting and not self.stopping:
            self.listen(_LOOK_SECONDS)
        return None if self.stopping else self._waiting.pop(0)


def patience() -> float:
    """Return how many seconds a worker may say nothing. Raises UsageError where that is set to no number."""
    text = os.environ.get("LOTTERYFW_HEARTBEAT") or str(SILENT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"LOTTERYFW_HEARTBEAT: must be a number of seconds above 0, not {text!r}")
    return seconds


def main() -> None:
    """Works until told to stop or until the runner is gone."""
    outbox = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what plugins print must not mix with the conversation
    line = Conversation(0, outbox)

    def stop(number: int, frame: Any) -> None:
        line.stopping = True

    for name in (
        "SIGTERM",
        "SIGHUP",
        "SIGUSR1",
    ):  # a scheduler may send them to every process of a job
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)
    line.beat(min(_ALIVE_SECONDS, patience() / 6))
    configure_torch()
    first = line.next()
    if first is None:
        return
    setup = first["setup"]
    registry = Registry.load([Path(path) for path in setup["trust"]])
    store = Store(Path(setup["store"]))
    shop = EngineContext(registry, Path(setup["data_folder"]), setup["device"], store)
    line.say(ready=True)
    while message := line.next():
        _work(message["posts"], store, shop, line, setup["checkpoint_seconds"])


def _work(
    posts: dict[str, str],
    store: Store,
    shop: EngineContext,
    line: Conversation,
    checkpoint_seconds: float,
) -> None:
    said, left = 0.0, list(posts)

    def tick(done: int, of: int) -> bool:
        nonlocal said
        now = time.monotonic()
        if now - said >= _PROGRESS_SECONDS:
            said = now
            line.listen(0)
            line.say(progress=[done, of], keys=left)
        return line.stopping

    stored: set[str] = set()

    def done(key: str, warning: str | None) -> None:
        left.remove(key)
        line.say(done=key, warning=warning, stored=key in stored)

    try:
        jobs = []
        for key, post in posts.items():
            try:
                jobs.append(pick_up(post, store))
            except DamagedJob as damaged:  # the others of its group are sound
                left.remove(key)
                line.say(failed=key, error=str(damaged), kind="DamagedJob", trace="")
        execute(jobs, store, shop, tick, done, checkpoint_seconds, stored.add)
    except Stopped:
        for key in left:
            line.say(stopped=key)
    except (Exception, SystemExit) as raised:
        error = exit_error(raised) if isinstance(raised, SystemExit) else raised
        text = str(error) if isinstance(error, LotteryError) else f"{type(error).__name__}: {error}"
        for key in left:
            line.say(
                failed=key, error=text, kind=type(error).__name__, trace=traceback.format_exc()
            )


if __name__ == "__main__":
    main()
    os._exit(
        0
    )  # without taking torch apart module by module: a second in which the runner would wait
