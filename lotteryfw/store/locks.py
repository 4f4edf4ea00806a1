"""Locks between processes: files that the operating system unlocks when their holder dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lotteryfw.api.errors import StoreError
from lotteryfw.store.file_locks import try_lock, unlock
from lotteryfw.store.files import explained

RELEASE_SECONDS = 2.0
"""How long the locks of a process that was killed may outlive it.

A process that it was starting has them, too, until its program begins.
"""
_POLL_SECONDS = 0.05


class Busy(StoreError):
    """Somebody else holds a lock."""


def _never() -> bool:
    return False


@contextmanager
def hold(path: Path, timeout: float = -1, obsolete: Callable[[], bool] = _never) -> Iterator[None]:
    """Hold a lock file; wait `timeout` seconds for it (-1: forever), then raise Busy.

    The file is deleted at the end where `obsolete` says so. Only the holder deletes a lock file,
    and who gets a lock makes sure that its file is still the one at the path: so a process that
    waited on a deleted file waits on for the new one, and never holds a lock that nobody else
    sees.
    """
    with explained(path, "locked"):
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout
        while (file := _try(path)) is None:
            if timeout >= 0 and time.monotonic() >= deadline:
                raise Busy(f"{path}: held by another process")
            # polled: a blocking flock would have no timeout, and would wait on a deleted file
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        try:
            # deleted while it is held, so that nobody else can hold it at that moment
            with suppress(OSError):  # what cannot be deleted stays: `gc` deletes it
                if obsolete():
                    path.unlink()
        finally:
            unlock(file)
            os.close(file)


def delete_lock(path: Path) -> None:
    """Delete a lock file that nobody holds."""
    with suppress(Busy), hold(path, timeout=0, obsolete=lambda: True):
        pass


def is_held(path: Path) -> bool:
    """Return whether somebody holds the lock of this file."""
    # `hold` would make the file
    if not path.exists():
        return False
    try:
        with hold(path, timeout=0):
            return False
    except Busy:
        return True


def _try(path: Path) -> int | None:
    """Return the locked file, or None where somebody else holds it."""
    while True:
        # 0o666 less the user's umask, so that a group can share a store
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not try_lock(file):
                os.close(file)
                return None
            if _is_at(file, path):
                return file
        except OSError:
            os.close(file)
            raise
        os.close(file)  # its last holder has deleted it: the lock is another file by now


def _is_at(file: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
