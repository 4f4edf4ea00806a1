"""The seal of a folder: a description of it, with the SHA-256 and size of every file.

Objects and checkpoints are sealed. The description names the key that the folder
belongs to, so that a folder under another name is noticed, and it carries a checksum of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

from lotteryfw.api.digests import digest
from lotteryfw.store.files import atomic_write
from lotteryfw.store.strict_json import parse_json

FORMAT = 1
INDEX = "object.json"
_READ_WHOLE = 1 << 20
"""Bytes of a file up to which it is read at once: `file_digest` makes a buffer of 256 KB for it."""


class Damaged(Exception):
    """A sealed folder is not what was written. The text says what is wrong, in words."""


def seal(folder: Path, key: str, kind: str, *, flush: bool = True, **about: Any) -> None:
    """Write the description of a folder whose files are complete.

    `about` is further JSON data for the description. With `flush` every file is brought to the
    disk first.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("r+b") as file:  # for writing, as some systems flush only such files
            if flush:
                os.fsync(file.fileno())
            # of the file and not of what was to be written: it vouches for what a reader gets
            sha256 = sha256_of_file(file)
        files[path.relative_to(folder).as_posix()] = {"sha256": sha256, "size": path.stat().st_size}

    description = {
        "format": FORMAT,
        "key": key,
        "kind": kind,
        "created_by": f"lotteryfw {_version()}",
    }
    description |= {**about, "files": files}
    # Of the description itself: else a flipped bit in it could make sound files look damaged.
    description["sha256"] = digest(description)
    atomic_write(folder / INDEX, json.dumps(description, indent=1).encode(), flush=flush)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of a sealed folder.

    Raises Damaged, and OSError where the disk fails.
    """
    try:
        with open(os.path.join(folder, INDEX), "rb") as file:
            description = parse_json(file.read())
        checksum = description.pop("sha256")
        if digest(description) != checksum:
            raise Damaged(f"{INDEX} is not what was written")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Damaged(f"{INDEX} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{INDEX} cannot be read") from None
    return dict(description)


def check_seal(folder: Path, key: str, kind: str | None = None) -> dict[str, Any]:
    """Return the description of a folder whose files are as they were sealed for this key and kind.

    Raises Damaged, and OSError where the disk fails.
    """
    description = check_sizes(folder, key, kind)
    for name in description["files"]:
        check_file(folder, description, name)
    return description


def check_sizes(folder: Path, key: str, kind: str | None = None) -> dict[str, Any]:
    """Return the description of a folder that was sealed for this key and kind.

    Of the files only the sizes are checked. Raises Damaged, and OSError where the disk fails.
    """
    description = read_description(folder)
    if description.get("key") != key:
        raise Damaged(f"it was written as {description.get('key')}")
    if kind is not None and description.get("kind") != kind:
        raise Damaged(f"it is of the kind '{description.get('kind')}', not '{kind}'")
    try:
        for name, written in description["files"].items():
            _check_size(name, _size(folder, name), written["size"])
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{INDEX} cannot be read") from None
    return description


def check_file(folder: Path, description: Mapping[str, Any], name: str) -> Path:
    """Return one file of a sealed folder, checked against the description.

    Raises Damaged, and OSError where the disk fails.
    """
    with _recorded(name):
        written = description["files"][name]
        with (folder / name).open("rb") as file:
            _check_size(name, os.fstat(file.fileno()).st_size, written["size"])
            if sha256_of_file(file) != written["sha256"]:
                raise Damaged(f"{name} is not what was written")
    return folder / name


def read_file(folder: Path, description: Mapping[str, Any], name: str) -> bytes:
    """Return the content of one file of a sealed folder, checked.

    Raises Damaged, and OSError where the disk fails.
    """
    with _recorded(name):
        written = description["files"][name]
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != written["sha256"]:
            raise Damaged(f"{name} is not what was written")
        return content


def check_source(description: Mapping[str, Any]) -> None:
    """Compute the key again from the source that the object records.

    Raises Damaged where that is another key.
    """
    if "source" in description and digest(description["source"]) != description["key"]:
        raise Damaged("its key is not that of the work that it describes")


def sha256_of_file(file: BufferedReader | BufferedRandom) -> str:
    """Return the SHA-256 (hex) of an open file from where it stands."""
    if os.fstat(file.fileno()).st_size > _READ_WHOLE:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(file.read()).hexdigest()


def _size(folder: Path, name: str) -> int:
    with _recorded(name):
        return os.stat(os.path.join(folder, name)).st_size


def _check_size(name: str, size: int, written: int) -> None:
    if size != written:
        raise Damaged(f"{name} has {size} bytes; {written} were written")


@contextmanager
def _recorded(name: str) -> Iterator[None]:
    """Around what looks at a file that the description names."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Damaged(f"{name} is missing") from None
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{INDEX} cannot be read") from None


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("lotteryfw")
