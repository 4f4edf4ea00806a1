"""The checksums of a run folder's files, which show damage before a damaged file is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lotteryfw.store.files import atomic_write, explained
from lotteryfw.store.strict_json import parse_json

NAME = "checksums.json"
UNDER_WAY = ".writing"
"""Stands in the folder while a run writes there. A run that is killed leaves it: then files may
be newer than their checksums, and that is no damage."""

_SHOWN = 3


@dataclass(frozen=True)
class Damage:
    """A file of a run folder that is not as the run wrote it. `name` is relative to the folder."""

    name: str
    what: Literal["missing", "changed", "unreadable"]

    def __str__(self) -> str:
        return f"{self.name} ({self.what})"


def describe(damage: Iterable[Damage]) -> str:
    """Return one line that names the first few damaged files and counts the others."""
    # the first few: a deleted tickets folder alone is hundreds of files
    names = [str(item) for item in damage]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def read_checksums(folder: Path) -> dict[str, str] | None:
    """Return the recorded digest of each file; None where there is no readable checksums.json."""
    path = folder / NAME
    with explained(path, "read"):
        try:
            files = parse_json(path.read_bytes())["files"]
            return {str(name): str(digest) for name, digest in files.items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None


def write_checksums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write checksums.json. Raises StoreError."""
    text = json.dumps({"files": dict(sorted(digests.items()))}, indent=1)
    atomic_write(folder / NAME, text.encode())


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file in hex; None where there is no such file. Raises StoreError."""
    with explained(path, "read"):
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None


def damaged_files(
    folder: Path, digests: Mapping[str, str], *, hash_tickets: bool = True
) -> list[Damage]:
    """Return the files that are missing or not as recorded; tickets may be looked for only."""
    damage = []
    for name, recorded in digests.items():
        path = folder / name
        # one that is absent is looked at below, and found missing
        if name.startswith("tickets/") and not hash_tickets and path.is_file():
            continue
        digest = file_digest(path)
        if digest is None:
            damage.append(Damage(name, "missing"))
        elif digest != recorded:
            damage.append(Damage(name, "changed"))
    return damage
