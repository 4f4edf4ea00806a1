"""Looking after a store: counting it, checking all of it, deleting what nothing references."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.errors import StoreError
from lotteryfw.store.files import is_abandoned

if TYPE_CHECKING:
    from lotteryfw.store.objects import Store

_FORGOTTEN = 14 * 24 * 3600.0
"""Seconds without a change after which unfinished work counts as given up."""


@dataclass(frozen=True)
class Info:
    """What is in a store: objects, their size in bytes, run folders that reference them, damaged objects set aside."""

    root: Path
    objects: int
    bytes: int
    roots: int
    damaged: int


@dataclass(frozen=True)
class Verified:
    """How many objects were checked, and the keys of those that were damaged and set aside."""

    checked: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Swept:
    """What gc removed (or, where `dry_run`, would remove), counted, and how many objects it kept.

    `bytes`: of the removed objects. `leftovers`: scratch folders of finished objects, those given up, and what dead
    processes left.
    """

    objects: int
    bytes: int
    roots: int
    aliases: int
    leftovers: int
    kept: int
    dry_run: bool


def info(store: Store) -> Info:
    """Counts a store without opening a file."""
    root = store.root
    objects = list(root.glob("objects/*/[!.]*"))
    return Info(
        root=root,
        objects=len(objects),
        bytes=sum(map(_size, objects)),
        roots=len(list(root.glob("roots/*.json"))),
        damaged=len(list(root.glob("damaged/*"))),
    )


def verify(store: Store) -> Verified:
    """Checks every object's every file."""
    checked, before = 0, len(store.damaged)
    for key in store.all_keys():
        store.check(key)
        checked += 1
    return Verified(checked, tuple(store.damaged[before:]))


def sweep(store: Store, dry_run: bool) -> Swept:
    """Removes what nothing references. The caller sees to it that nobody else is at work."""
    dropped, wanted = _roots(store.root)
    present = set(store.all_keys())
    unwanted = sorted(present - wanted)
    kept = present & wanted
    freed = sum(_size(store.root / "objects" / key[:2] / key) for key in unwanted)
    aliases = [path for path in store.root.glob("aliases/*/[!.]*") if store.alias(path.name) not in kept]
    leftovers = _leftovers(store.root, present)
    if not dry_run:
        for path in (*dropped, *aliases, *store.root.glob("locks/*"), *store.root.glob("active/*")):
            path.unlink(missing_ok=True)
        for key in unwanted:
            store.remove(key)
        for path in leftovers:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Swept(len(unwanted), freed, len(dropped), len(aliases), len(leftovers), len(kept), dry_run)


def _roots(root: Path) -> tuple[list[Path], set[str]]:
    """The roots of runs whose folder is gone, and the keys that the others reference."""
    dropped, wanted = [], set[str]()
    for path in sorted(root.glob("roots/*.json")):
        try:
            pinned = json.loads(path.read_bytes())
            folder, keys = Path(pinned["folder"]), set(pinned["keys"])
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{path}: cannot be read, so what its run needs is not known and nothing was deleted: "
                "run that recipe again, or delete this file to give its results up"
            ) from None
        if folder.is_dir():
            wanted |= keys
        else:
            dropped.append(path)
    return dropped, wanted


def _leftovers(root: Path, present: Collection[str]) -> list[Path]:
    """Scratch of finished objects and of work given up, and what dead processes left half-written."""
    old = time.time() - _FORGOTTEN
    scratch = [path for path in root.glob("scratch/*") if path.name in present or _changed(path) < old]
    halves = [path for path in root.glob("tmp/*") if is_abandoned(path.name)]
    hidden = (path for place in ("", "roots/", "aliases/*/") for path in root.glob(f"{place}.*.tmp"))
    return scratch + halves + [path for path in hidden if is_abandoned(path.stem.removeprefix("."))]


def _changed(folder: Path) -> float:
    """When the newest file in it was written (s since 1970); of an empty folder, when it was emptied."""
    times = (path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
    return max(times, default=folder.stat().st_mtime)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
