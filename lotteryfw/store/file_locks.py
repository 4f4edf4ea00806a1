"""Exclusive locks of open files, by what the operating system has for them."""

from __future__ import annotations

import errno
import os
import sys

_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
"""Errors that mean that another process, or another open file of this one, has the lock."""

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # one byte, which need not be there; it is locked from the file's current position
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def unlock(descriptor: int) -> None:
        """Give up the lock of an open file."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(descriptor: int) -> None:
        """Give up the lock of an open file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def try_lock(descriptor: int) -> bool:
    """Return True where the lock of an open file was taken, False where somebody has it.

    The system gives it up when the process ends. Raises OSError where files cannot be locked.
    """
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True
