"""Upkeep of a store: counting what is in it, and deleting what nothing references."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lotteryfw.api.digests import digest
from lotteryfw.api.errors import StoreError
from lotteryfw.store.files import atomic_write, is_abandoned, is_key
from lotteryfw.store.locks import delete_lock
from lotteryfw.store.spool_files import is_spooled
from lotteryfw.store.strict_json import parse_json

_FORGOTTEN = 14 * 24 * 3600.0
"""Seconds without a change after which unfinished work counts as given up."""


class ObjectStore(Protocol):
    """The part of a `Store` that upkeep needs."""

    root: Path
    damaged: list[str]

    def has(self, key: str) -> bool:
        """Return whether there is an object of this key."""
        ...

    def all_keys(self) -> Iterator[str]:
        """Yield the key of every object."""
        ...

    def check(self, key: str) -> bool:
        """Return whether an object is as it was written; a damaged one is set aside."""
        ...

    def alias(self, name: str) -> str | None:
        """Return the key that an alias stands for; a damaged alias is dropped."""
        ...

    def remove(self, key: str) -> None:
        """Delete an object."""
        ...


@dataclass(frozen=True)
class Info:
    """The size of a store.

    `objects` and `bytes` count the objects, `roots` the run folders that reference them, and
    `damaged` the objects that were damaged and set aside.
    """

    root: Path
    objects: int
    bytes: int
    roots: int
    damaged: int


@dataclass(frozen=True)
class Swept:
    """The result of `gc`: how much it removed (or, where `dry_run`, would remove), and kept.

    `bytes`: size of the removed objects. `leftovers`: scratch folders of finished objects and
    those given up, jobs of killed runs, and files that dead processes left. `locks`: lock files
    that nobody holds. `unseen`: run folders that could not be seen, whose objects were kept (or,
    with `force`, were not).
    """

    objects: int = 0
    bytes: int = 0
    roots: int = 0
    aliases: int = 0
    leftovers: int = 0
    kept: int = 0
    dry_run: bool = False
    locks: int = 0
    unseen: tuple[str, ...] = ()


def info(store: ObjectStore) -> Info:
    """Count what is in a store, without opening a file."""
    root = store.root
    objects = [object_folder(root, key) for key in store.all_keys()]
    return Info(
        root=root,
        objects=len(objects),
        bytes=sum(map(_size, objects)),
        roots=len(root_paths(root)),
        damaged=len(list(root.glob("damaged/*"))),
    )


def sweep(store: ObjectStore, dry_run: bool, force: bool = False) -> Swept:
    """Remove what nothing references. The caller sees to it that nobody else is at work."""
    # before anything is deleted: a root that cannot be read raises here
    roots = _read_roots(store.root, force)
    present = set(store.all_keys())
    unwanted = sorted(present - roots.wanted)
    kept = present & roots.wanted
    freed = sum(_size(object_folder(store.root, key)) for key in unwanted)

    # What an alias stands for may be deleted now, or long before.
    aliases: list[Path] = []
    for path in store.root.glob("aliases/*/[!.]*"):
        if is_alias(path) and store.alias(path.name) not in kept:
            aliases.append(path)

    leftovers = _leftovers(store.root, present)
    locks = [path for path in store.root.glob("locks/*.lock") if is_key(path.stem)]
    locks += store.root.glob("active/*.lock")
    # a lock file of another program says whose it is; those of a store are empty
    locks = [path for path in locks if path.is_file() and not path.stat().st_size]
    if not dry_run:
        # Roots before objects: killed in between, this leaves objects that no root names, which
        # the next `gc` finds. The other order would leave roots that name absent objects.
        for path in roots.dropped:
            path.unlink(missing_ok=True)
            copy_of_root(path).unlink(missing_ok=True)
        for path in aliases:
            path.unlink(missing_ok=True)
        for path in locks:
            delete_lock(path)
        for key in unwanted:
            store.remove(key)
        for path in leftovers:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Swept(
        objects=len(unwanted),
        bytes=freed,
        roots=len(roots.dropped),
        aliases=len(aliases),
        leftovers=len(leftovers),
        kept=len(kept),
        dry_run=dry_run,
        locks=len(locks),
        unseen=tuple(roots.unseen),
    )


def mount_of(folder: Path) -> Path:
    """Return where the file system that holds `folder` is mounted."""
    for path in (folder, *folder.parents):
        if os.path.ismount(path):
            return path
    return Path(folder.anchor)


@dataclass(frozen=True)
class _Roots:
    """The run folders that reference objects, sorted by what becomes of them.

    `dropped`: files in roots/ of runs whose folder is gone. `unseen`: folders that cannot be
    seen. `wanted`: the keys that must be kept.
    """

    dropped: list[Path]
    unseen: list[str]
    wanted: set[str]


def _read_roots(root: Path, force: bool) -> _Roots:
    roots = _Roots([], [], set())
    for path in root_paths(root):
        pinned = read_root(path)
        presence = presence_of(pinned)
        if presence == "unseen":
            roots.unseen.append(str(pinned.folder))
        # in doubt its results are kept: a disk may be mounted again tomorrow
        if presence == "there" or (presence == "unseen" and not force):
            roots.wanted.update(pinned.keys)
        else:
            roots.dropped.append(path)
    return roots


def root_paths(root: Path) -> list[Path]:
    """Return the file in roots/ of every run, also where only its copy is left."""
    paths = set(root.glob("roots/*.json"))
    paths.update(copy.with_suffix(".json") for copy in root.glob("roots/*.copy"))
    return sorted(paths)


def copy_of_root(path: Path) -> Path:
    """Return where the copy of a file in roots/ is: without either, `gc` would delete results."""
    return path.with_suffix(".copy")


def write_root(path: Path, folder: Path, keys: Iterable[str], folder_id: str) -> None:
    """Write the file `path` in roots/ and its copy, for a run folder and its keys.

    `folder_id` tells the folder from those of other machines at the same path: what these
    reference stays among the keys.
    """
    host = socket.gethostname()
    before = _read_pinned(path) or _read_pinned(copy_of_root(path)) or {}
    elsewhere = set(before.get("elsewhere", ()))
    is_same = before.get("host", host) == host or (folder_id and before.get("id") == folder_id)
    if not is_same:
        elsewhere.update(before["keys"])
    root = {
        "folder": str(folder),
        "id": folder_id,
        # tells a folder that was deleted from one on a disk that is not mounted now
        "mount": str(mount_of(folder)),
        # and one that was deleted from one on another machine's own disk
        "host": host,
        "keys": sorted(elsewhere.union(keys)),
        # those of the keys that folders of other machines referenced
        "elsewhere": sorted(elsewhere),
    }
    _write_both(path, root)


def release_root(path: Path) -> None:
    """Delete the file `path` in roots/ and its copy, but for what other machines reference."""
    root = _read_pinned(path) or _read_pinned(copy_of_root(path)) or {}
    if root.get("elsewhere"):
        # of no machine that is known, so that `gc` keeps it unless it is forced
        _write_both(path, {**root, "id": "", "host": "", "keys": root["elsewhere"]})
        return
    path.unlink(missing_ok=True)
    copy_of_root(path).unlink(missing_ok=True)


def _write_both(path: Path, root: dict[str, Any]) -> None:
    content = json.dumps({**root, "sha256": digest(root)}, indent=1).encode()
    # Two files, so that the loss of one cannot let `gc` delete the results.
    atomic_write(copy_of_root(path), content)
    atomic_write(path, content)


@dataclass(frozen=True)
class PinnedRun:
    """A run folder and the keys that it references, as a file in roots/ has them.

    `mount` is where its file system was mounted, `host` the machine that wrote there last; None
    where that is not known. `elsewhere` are those of the keys that folders of other machines at
    this path reference.
    """

    folder: Path
    keys: set[str]
    mount: Path | None
    host: str | None
    elsewhere: set[str]


def read_root(path: Path) -> PinnedRun:
    """Return what a file in roots/ says.

    Raises StoreError if neither the file nor its copy is as it was written.
    """
    # both say the same, and the copy is for the loss of the first
    for candidate in (path, copy_of_root(path)):
        pinned = _read_pinned(candidate)
        if pinned is not None:
            mount = pinned["mount"]
            return PinnedRun(
                folder=Path(pinned["folder"]),
                keys=set(pinned["keys"]),
                mount=Path(mount) if mount else None,
                # absent from files of earlier versions
                host=pinned.get("host"),
                elsewhere=set(pinned.get("elsewhere", ())),
            )
    raise StoreError(
        f"{path}: cannot be read, nor its copy, so what its run needs is not known and nothing was "
        "deleted: run that recipe again, or delete this file and its copy to give its results up"
    )


def is_sound_root(path: Path) -> bool:
    """Return whether a file in roots/ is as it was written."""
    return _read_pinned(path) is not None


def _read_pinned(path: Path) -> dict[str, Any] | None:
    try:
        pinned: dict[str, Any] = parse_json(path.read_bytes())
        # A damaged key would let `gc` delete the object that it named.
        is_sound = pinned.pop("sha256") == digest(pinned)
        return pinned if is_sound and {"folder", "keys", "mount"} <= pinned.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def presence_of(run: PinnedRun) -> str:
    """Return "there", "gone", or "unseen" where that cannot be decided.

    It cannot be decided where the folder's parent is absent too or may not be read, where another
    file system is mounted than the one that the folder was on, or where another machine wrote the
    folder, which may be on a disk of its own.
    """
    folder, mount = run.folder, run.mount
    try:
        if stat.S_ISDIR(os.stat(folder).st_mode):
            return "there"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        # no permission, or a network disk that does not answer
        return "unseen"
    if run.elsewhere or run.host not in (None, socket.gethostname()):
        return "unseen"
    # the empty folder that is left where a disk was mounted looks like a deleted run
    if mount is not None and not os.path.ismount(mount):
        return "unseen"
    # A folder whose parent is there and readable was deleted; else nobody can tell.
    try:
        os.listdir(folder.parent)
    except OSError:
        return "unseen"
    return "gone"


def _leftovers(root: Path, present: Collection[str]) -> list[Path]:
    """Return scratch of finished and given up work, and half-written files of dead processes.

    Nobody is at work now, so spooled jobs are those of runs that were killed. What has no name that
    a store gives is somebody else's, and no leftover.
    """
    oldest = time.time() - _FORGOTTEN
    leftovers = [path for path in root.glob("spool/*") if is_spooled(path)]
    for path in root.glob("scratch/*"):
        if is_key(path.name) and path.is_dir() and _is_left(path, present, oldest):
            leftovers.append(path)
    for path in root.glob("tmp/*"):
        if is_abandoned(path.name):
            leftovers.append(path)
    # the folders that `atomic_write` writes into: it puts its temporary file beside the target
    for folder in ("", "roots/", "spool/", "aliases/*/"):
        for path in root.glob(f"{folder}.*.tmp"):
            if is_abandoned(path.stem.removeprefix(".")):
                leftovers.append(path)
    return leftovers


def _is_left(path: Path, present: Collection[str], oldest: float) -> bool:
    return path.name in present or _changed(path) < oldest


def _changed(folder: Path) -> float:
    """Return when a folder's newest file was written (s since 1970), or when it was emptied."""
    # the files': a folder's own time does not change when a file in it is written again
    times = (path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
    return max(times, default=folder.stat().st_mtime)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def object_folder(root: Path, key: str) -> Path:
    """Return the folder of an object in the store at `root`."""
    return root / "objects" / key[:2] / key


def is_alias(path: Path) -> bool:
    """Return whether a file among the aliases is named like one."""
    return is_key(path.name) and path.name[:2] == path.parent.name and path.is_file()
