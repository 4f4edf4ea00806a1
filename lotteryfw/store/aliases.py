"""Aliases: the digest of a derivation stands for the key of the object that it led to."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from lotteryfw.api.digests import digest
from lotteryfw.store.files import atomic_write, checked_name, explained, is_name
from lotteryfw.store.strict_json import parse_json


class DamagedAlias(Exception):
    """The file of an alias was damaged, or written for another name. It was deleted."""


def read_alias(root: Path, name: str) -> str | None:
    """Return the key that `name` stands for in the store at `root`; None where it has none.

    Raises DamagedAlias, and StoreError where the disk fails.
    """
    path = _path(root, name)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError:
        # only here: a rerun looks up thousands, and the context manager costs time for each
        with explained(Path(path), "read"):
            raise
    key = _parse(name, text)
    if key is None:
        # in a store that one may only read it stays, and is found damaged again
        with suppress(OSError):
            os.unlink(path)
        raise DamagedAlias(path)
    return key


def write_alias(root: Path, name: str, key: str) -> None:
    """Write that `name` stands for `key`. Raises StoreError."""
    text = json.dumps({"alias": name, "key": key, "sha256": digest([name, key])})
    # Not flushed: a rerun finds the object, and writes the alias again.
    atomic_write(Path(_path(root, name)), text.encode(), flush=False)


def alias_names(root: Path) -> set[str]:
    """Return every alias. Raises StoreError."""
    with explained(root, "read"):
        return {path.name for path in (root / "aliases").glob("*/*")}


def _path(root: Path, name: str) -> str:
    # Text, since joining paths took an eighth of the time of a large study's rerun.
    return f"{root}/aliases/{checked_name(name)[:2]}/{name}"


def _parse(name: str, text: bytes) -> str | None:
    """Return the key in the alias file of `name`; None where it is damaged or another name's."""
    try:
        alias = parse_json(text)
        written, key, checksum = alias["alias"], alias["key"], alias["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    if written != name or not isinstance(key, str) or not is_name(key):
        return None
    # a flipped bit in the key would give one network the results of another
    return key if checksum == digest([name, key]) else None
