"""Atomic writes of files, and words for the reason why one cannot be written."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from lotteryfw.api.errors import StoreError

_AGAIN = "free space and run the same command again; nothing finished is lost"
_REASONS = {
    errno.ENOSPC: f"the disk is full: {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up: {_AGAIN}",
    errno.EROFS: "the file system is read-only: name a folder on another one",
    errno.EACCES: "no permission: name a folder of your own, or ask its owner",
    errno.EPERM: "no permission: name a folder of your own, or ask its owner",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.ENOENT: "there is no such file",
}

_LONGEST = 200
"""Bytes of a name that `file_name` makes; of the 255 of file systems a suffix needs some."""
_PLAIN = re.compile(r"[a-z0-9_=(\[{][a-z0-9_=.,+%(){}\[\] -]*(?<![. ])")
"""What every file system keeps as it is; some do not tell capital letters from small ones."""
_ODD = re.compile(r"[^a-z0-9_=.,+%()-]")
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(r"[0-9a-f]{8}")


def is_name(name: str) -> bool:
    """Return whether something in a store may be called this."""
    return _NAME.fullmatch(name) is not None


def is_key(name: str) -> bool:
    """Return whether a name has the form of a key: 64 hex digits, as `api.digests` makes them."""
    return _KEY.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """Return `name`, which something in a store is to be called. Raises ValueError for others."""
    if not is_name(name):
        raise ValueError(
            f"{name!r} cannot name anything in a store: letters, digits, '_', '.' and '-' can"
        )
    return name


def file_name(text: str) -> str:
    """Return a name for a file that no other text gets, whatever its characters and length.

    A `/` is written `__`. A text that could not be told from the name again, or that is too long,
    or has a character that some file system changes, gets its SHA-256 as a suffix; `~` stands in
    no other name.

    >>> file_name("quickstart/criterion=random/seed=0")
    'quickstart__criterion=random__seed=0'
    >>> file_name("a__b")
    'a__b~63e5c1c455d01d5cbcbadd205443a58a'
    """
    name = text.replace("/", "__")
    # "a__b" and "a/b" would share a name: the first is not what its name reads back as
    if len(name) <= _LONGEST and _PLAIN.fullmatch(name) and name.replace("__", "/") == text:
        return name
    # surrogatepass, for half a character, as in the name of a file that is not UTF-8
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    readable = _ODD.sub("-", name.lower()).lstrip(".-")
    return f"{readable[: _LONGEST - len(digest) - 1]}~{digest}"


@contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn any OSError into a StoreError: `path`, "cannot be `action`", and why in words."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        culprit = (
            f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        )
        raise StoreError(f"{path}: cannot be {action}: {reason}{culprit}") from error


def atomic_write(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write `data` to `path`, and make its folders.

    Whoever reads or is killed, the file is there whole or not at all. Raises StoreError.

    The file is flushed to the disk before it gets its name (unless `flush` is False: for what a
    rerun writes again, and in `Store.write`, which flushes it). The folder is not: a power cut may
    forget the newest files, which are computed again, but never leaves a half one.
    """
    with explained(path, "written"):
        # Text: joining paths would take a third of the time of writing a small file.
        temporary = f"{path.parent}/.{own_name()}.tmp"
        try:
            with _made(temporary) as file:
                file.write(data)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C, too, must not leave the file behind
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _made(path: str) -> BufferedWriter:
    """Return a new file, open, in a folder that is made where it is not there."""
    # opened first, as the folder is there for nearly every file
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


def is_denied(error: BaseException) -> bool:
    """Return whether an error, or its cause, says that this user may not write there."""
    return denial(error) != ""


def denial(error: BaseException) -> str:
    """Return in words why this user may not write there; "" where an error says something else."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if not isinstance(cause, OSError):
        return ""
    words = {
        errno.EROFS: "read-only file system",
        errno.EACCES: "no permission",
        errno.EPERM: "no permission",
    }
    return words.get(cause.errno or 0, "")


def own_name() -> str:
    """Return a name that no other call, process or machine makes (see `is_abandoned`)."""
    return f"{os.getpid()}-{secrets.token_hex(4)}-{socket.gethostname()}"


def is_abandoned(name: str) -> bool:
    """Return whether the process that made this `own_name` is gone.

    One of another machine counts as gone, since `gc` is sure that nobody is at work.
    A name of another form is nobody's to delete."""
    # the host's own name may have hyphens, so only two are separators
    pid, secret, host = [*name.split("-", 2), "", ""][:3]
    if not pid.isdecimal() or not _SECRET.fullmatch(secret) or not host:
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)  # signal 0 only asks if the process is there
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # alive, and somebody else's
        pass
    return False
