"""Fingerprints of files: a hash of their names and contents, the same on every machine.

Reading every data file for every command would be slow, so the hash of a file is kept in a small
JSON file in the user's cache folder, beside what the system says of the file: size, times of the
last changes, inode and device. The kept hash is used only while all of these are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, ClassVar, Protocol
from uuid import uuid4

from lotteryfw.api.errors import ContractError, DataError, naming

MANY_FILES = 100_000
"""The number of files above which, as in ImageNet with 1.3 million, only a sample is read."""
SAMPLE = 1000
"""The number of files in such a sample, evenly spread over the sorted names."""
SETTLED_NS = 3_000_000_000
"""A file that changed less than this before it was read is read again the next time.

Within the resolution of the file system's clock (2 s on FAT) it could change once more without any
of its times showing it.
"""
WORTH_KEEPING = 4 * 2**20
"""Bytes. Reading less than this again costs no more than keeping its hashes."""


class _Source(Protocol):
    """The part of a data source that `fingerprint_of` needs."""

    use: ClassVar[str]

    def fingerprint(self, folder: Path) -> str: ...


def files_fingerprint(paths: Iterable[Path | str], root: Path | str | None = None) -> str:
    """Return the SHA-256 (hex) of files' names, relative to `root`, and contents.

    The order of `paths` does not matter, nor does where the folder lies. `root` is by default the
    deepest folder that holds all of them. A file that is not there counts as absent: a study can
    be planned before its data is there.

    Of more than 100,000 files only 1,000 are read, spread evenly over the sorted names; of the
    others the names and sizes count. Times never count, since they differ between machines.

    Raises DataError for a file that cannot be read.
    """
    absolute = [os.path.abspath(path) for path in paths]
    if not absolute:
        return hashlib.sha256().hexdigest()
    # `commonpath` of one file would be the file itself, and its name would be lost.
    folders = {os.path.dirname(path) for path in absolute}
    base = os.path.abspath(root if root is not None else os.path.commonpath(folders))
    return named_fingerprint({_relative(path, base): path for path in absolute}, base)


def named_fingerprint(files: Mapping[str, str], base: str) -> str:
    """Return the fingerprint of `files`, by the names that count for it.

    `base` names where their hashes are kept.
    """
    digest = hashlib.sha256()
    # Sorted, so that neither the order of a folder nor that of a caller counts.
    names = sorted(files)
    sampled = _sample(names)
    if sampled is not None:
        digest.update(f"{len(sampled)} of {len(names)} read\n".encode())
    hashes = _KeptHashes(base)
    for name in names:
        about = _stat(files[name])
        if about is None:
            # An absent file counts, or the data would have one fingerprint before and after it came.
            line = f"{name}\0absent\n"
        elif sampled is None or name in sampled:
            line = f"{name}\0{hashes.of(files[name], about)}\n"
        else:
            line = f"{name}\0{about.st_size} bytes\n"
        # File names may hold bytes that are no UTF-8.
        digest.update(line.encode("utf-8", "surrogateescape"))
    hashes.save()
    return digest.hexdigest()


def _relative(path: str, base: str) -> str:
    prefix = base.rstrip(os.sep) + os.sep
    # os.path.relpath takes 10 µs, which is 13 s for ImageNet
    name = path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, base)
    return name.replace(os.sep, "/")


def _sample(names: list[str]) -> set[str] | None:
    """Return the names of the files to read; None for all of them."""
    if len(names) <= MANY_FILES:
        return None
    # The same files on every machine: a random sample would need a seed to agree on.
    return {names[number * len(names) // SAMPLE] for number in range(SAMPLE)}


def _stat(path: str) -> os.stat_result | None:
    try:
        about = os.stat(path)
    # A study may be planned before its data is downloaded.
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    # A folder or a pipe of the name is no data file.
    return about if S_ISREG(about.st_mode) else None


def _state(about: os.stat_result) -> list[int]:
    """Return what must be unchanged for a kept hash to hold.

    The time of the last change of the inode shows a file whose time of modification was set back,
    as archives and rsync do.
    """
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev]


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")


class _KeptHashes:
    """The hashes of the files below one folder, as earlier commands kept them."""

    def __init__(self, base: str):
        name = hashlib.sha256(base.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._path = cache_folder() / f"{name}.json"
        self._base = base
        self._kept: dict[str, Any] | None = None
        self._new: dict[str, list[Any]] = {}
        self._bytes_read = 0

    def of(self, path: str, about: os.stat_result) -> str:
        """Return the SHA-256 (hex) of a file's content."""
        if self._kept is None:
            self._kept = self._read()
        state = _state(about)
        kept = self._kept.get(path)
        if isinstance(kept, list) and kept[:-1] == state and _is_sha256(kept[-1]):
            return str(kept[-1])
        started = time.time_ns()
        content = _hash(path)
        self._bytes_read += about.st_size
        after = _stat(path)
        # A hash of half an old and half a new file would be that of neither.
        if after is None or _state(after) != state:
            raise DataError(f"{path} changed while it was read; wait until it is complete")
        if max(about.st_mtime_ns, about.st_ctime_ns) < started - SETTLED_NS:
            self._new[path] = [*state, content]
        return content

    def save(self) -> None:
        """Keep the new hashes, if that is possible; else the files are read again the next time."""
        # Most data sets are small, and every command would write a file for nothing.
        if not self._new or self._bytes_read < WORTH_KEEPING:
            return
        # Another process may have kept others meanwhile. If two write at once, one's are lost and
        # read again later.
        others = {path: kept for path, kept in self._read().items() if os.path.exists(path)}
        text = json.dumps({"folder": self._base, "files": {**others, **self._new}})
        aside = self._path.with_name(f"{self._path.name}.{uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(text, "utf-8")
            # A rename is atomic: a reader sees the old file or the new one.
            aside.replace(self._path)
        except (OSError, UnicodeEncodeError):
            _remove(aside)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text("utf-8"))
            files = content["files"]
        except (OSError, ValueError, KeyError, TypeError):
            # absent or damaged: the files are read
            return {}
        return files if isinstance(files, dict) else {}


def cache_folder() -> Path:
    """Return the folder that holds the kept hashes. All of it can be deleted."""
    from platformdirs import user_cache_path

    return user_cache_path("lotteryfw") / "hashes"


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


# Weak references: a source that is gone must not be kept for its fingerprint.
_computed: dict[tuple[int, Path], tuple[weakref.ref[Any], str]] = {}


def fingerprint_of(source: _Source, folder: Path) -> str:
    """Return `source.fingerprint(folder)`, computed once for each source object.

    All cells of a study share their source objects, so a study sees one state of the files from
    its beginning to its end, and the next study looks again. Raises DataError, and PluginError for
    a source that breaks.
    """
    entry = (id(source), folder)
    cached = _computed.get(entry)
    # another object may have the id of one that is gone
    if cached is not None and cached[0]() is source:
        return cached[1]
    with naming(f"data '{source.use}'", "fingerprint()"):
        text = source.fingerprint(folder)
    # A subclass of str may have another `__str__` in another version of a plugin.
    if type(text) is not str:
        raise ContractError(f"data '{source.use}': fingerprint() returned {text!r}, not text")
    _computed[entry] = (weakref.ref(source, lambda _: _computed.pop(entry, None)), text)
    return text
