"""Deleting a run: the files that it wrote, and its claim on the objects of its store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lotteryfw.api.errors import StoreError
from lotteryfw.store.checksums import NAME as CHECKSUMS
from lotteryfw.store.checksums import UNDER_WAY
from lotteryfw.store.files import explained
from lotteryfw.store.folder import LOCK, WRITTEN, RunFolder
from lotteryfw.store.locks import RELEASE_SECONDS
from lotteryfw.store.upkeep import object_folder, read_root, release_root, root_paths

# The files that say that a folder is a run's come last: killed before, it can be deleted again.
_LAST = ("resolved.toml", CHECKSUMS)


@dataclass(frozen=True)
class RunFiles:
    """The number and size of a run's files, and of the objects that nobody else needs.

    `others` are files in its folder that no run wrote; they stay.
    """

    files: int
    bytes: int
    objects: int
    object_bytes: int
    others: tuple[str, ...]


def run_files(folder: RunFolder, store: Path | None) -> RunFiles:
    """Count what deleting the run would remove. Raises StoreError."""
    files = size = 0
    others: list[str] = []
    with explained(folder.path, "read"):
        for entry in sorted(folder.path.iterdir()):
            if entry.name not in WRITTEN and entry.name not in (LOCK, UNDER_WAY):
                others.append(entry.name)
                continue
            for path in [entry, *entry.rglob("*")] if entry.is_dir() else [entry]:
                if path.is_file():
                    files += 1
                    size += path.stat().st_size
    keys = _own_keys(folder.path, store) if store else set()
    sizes = []
    for key in keys:
        objects = object_folder(store, key) if store else None
        if objects is not None and objects.is_dir():
            sizes.append(sum(path.stat().st_size for path in objects.iterdir()))
    return RunFiles(files, size, len(sizes), sum(sizes), tuple(others))


def remove_run(folder: RunFolder, store: Path | None) -> None:
    """Delete the files of a run and its entry in the store; files of others in its folder stay.

    Raises StoreError where the run is under way, or where a file cannot be deleted. The objects
    stay in the store until `gc`.
    """
    with _locked(folder):
        names = [name for name in WRITTEN if name not in _LAST]
        with explained(folder.path, "deleted"):
            for name in (*names, UNDER_WAY, *_LAST):
                path = folder.path / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    with explained(folder.path, "deleted"):
        (folder.path / LOCK).unlink(missing_ok=True)
        if not any(folder.path.iterdir()):
            folder.path.rmdir()
    for root in _roots_of(folder.path, store) if store else ():
        with explained(root, "deleted"):
            release_root(root)


@contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder.path / LOCK)
    with explained(folder.path, "locked"):
        try:
            lock.acquire(timeout=RELEASE_SECONDS)
        except Timeout:
            raise StoreError(
                f"{folder.path}: the run is under way in another process; stop it first"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _roots_of(folder: Path, store: Path) -> list[Path]:
    """Return the files in roots/ of a run's folder."""
    wanted = folder.resolve()
    return [path for path in root_paths(store) if read_root(path).folder == wanted]


def _own_keys(folder: Path, store: Path) -> set[str]:
    """Return the keys that this run needs and no other run does."""
    needed: set[str] = set()
    others: set[str] = set()
    wanted = folder.resolve()
    for path in root_paths(store):
        pinned = read_root(path)
        if pinned.folder == wanted:
            needed |= pinned.keys - pinned.elsewhere
            others |= pinned.elsewhere
        else:
            others |= pinned.keys
    return needed - others
