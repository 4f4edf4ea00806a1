"""Signals that ask a command to stop.

These are Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1, by which a scheduler warns that it will take the
machine away. This file imports nothing slow, so that it works while everything else is imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GOES_ON = "the same command goes on from here"
"""The hint of a command that runs a recipe."""
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class StopNow(BaseException):
    """A signal ended the command at once, since no run had to come to a safe point first."""


class _State:
    """The state of the signal handler.

    `stop` asks the run to stop at a safe point; it is None if no run is under way.
    """

    stop: Callable[[], None] | None = None
    tell: Callable[[], None] = staticmethod(lambda: None)
    is_asked = False
    hint = ""
    terminals: tuple[int, ...] = ()


_state = _State()


def install() -> None:
    """Handle the signals from now on. SIGHUP stays ignored if it is, as under nohup."""
    # stdout and stderr, if they are terminals: after SIGHUP these are gone
    _state.terminals = tuple(number for number in (1, 2) if os.isatty(number))
    for name in NAMES:
        number = getattr(signal, name, None)
        # Windows has neither SIGHUP nor SIGUSR1
        if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            continue
        signal.signal(number, _handle)


def is_asked() -> bool:
    """Return True after a signal came."""
    return _state.is_asked


def hint() -> str:
    """Return the text after "stopped": what is done already, and how to get the rest."""
    return _state.hint


def set_hint(text: str) -> None:
    """Set what `hint` returns."""
    _state.hint = text


@contextmanager
def safe_stop(tell: Callable[[], None]) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Let the first signal stop a run at a safe point, and a second Ctrl-C end it at once.

    Yields the function that `run` takes as `on_start`. Before and after the run, a signal ends the
    command at once. `tell` prints that the run is stopping.
    """
    install()

    def on_start(stop: Callable[[], None]) -> None:
        _state.stop, _state.tell = stop, tell
        # a signal may have come while an import swallowed the exception
        if _state.is_asked:
            stop()

    try:
        yield on_start
    finally:
        _state.stop = None


def _handle(number: int, frame: Any) -> None:
    is_first, _state.is_asked = not _state.is_asked, True
    if hasattr(signal, "SIGHUP") and number == signal.SIGHUP:
        _silence()
    if _state.stop is None:
        raise StopNow
    if is_first:
        # such as a print within a print
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            _state.tell()
        _state.stop()
    elif number == signal.SIGINT:
        raise StopNow


def _silence() -> None:
    """Drop the output: the terminal is gone, and writing to it would be an error from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    for number in _state.terminals:
        os.dup2(null, number)
    os.close(null)


def say_stopped() -> None:
    """Print the one line that a stopped command ends with."""
    with contextlib.suppress(OSError, ValueError):
        print("stopped" + (f"; {_state.hint}" if _state.hint else ""), file=sys.stderr)
