"""Looking after a store: counting it, checking all of it, deleting what nothing references."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import StoreError
from lotteryfw.store.files import is_abandoned, is_denied
from lotteryfw.store.locks import delete_lock, is_held
from lotteryfw.store.seal import Damaged, check_seal, read_description

if TYPE_CHECKING:
    from lotteryfw.store.objects import Store

_FORGOTTEN = 14 * 24 * 3600.0
"""Seconds without a change after which unfinished work counts as given up."""

_KNOWN = {
    "store.json", "calibration.json", "gc.lock", "objects", "aliases", "scratch", "roots", "damaged", "active", "locks",
    "tmp",
}  # fmt: skip
"""What lies in the root of a store."""


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
    """What was checked, counted, and what was wrong.

    `damaged`: the keys of objects that were damaged and set aside. `problems`: a line for everything else that is not
    as it was written. `remarks`: a line for what could not be checked, and for names that are none of the store's.
    """

    checked: int
    damaged: tuple[str, ...]
    aliases: int = 0
    checkpoints: int = 0
    posts: int = 0
    runs: int = 0
    run_files: int = 0
    tickets: int = 0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Swept:
    """What gc removed (or, where `dry_run`, would remove), counted, and how many objects it kept.

    `bytes`: of the removed objects. `leftovers`: scratch folders of finished objects, those given up, jobs of killed
    runs, and what dead processes left. `locks`: lock files of nobody. `unseen`: run folders that could not be seen,
    whose objects were kept (or, with `force`, were not).
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


def info(store: Store) -> Info:
    """Counts a store without opening a file."""
    root = store.root
    objects = [root / "objects" / key[:2] / key for key in store.all_keys()]
    return Info(
        root=root,
        objects=len(objects),
        bytes=sum(map(_size, objects)),
        roots=len(list(root.glob("roots/*.json"))),
        damaged=len(list(root.glob("damaged/*"))),
    )


# Checking


def verify(store: Store) -> Verified:
    """Checks objects, aliases, unfinished work, and the run folders that use the store."""
    problems: list[str] = []
    remarks = [
        f"{path}: is none of the store's; lotteryfw layers it alone" for path in _foreign(store)
    ]

    keys = list(store.all_keys())
    damaged = [key for key in keys if not store.check(key) and key in store.damaged]
    aliases = _check_aliases(store, problems)
    checkpoints, posts = _check_scratch(store.root, problems)
    tickets = run_files = runs = 0
    for path in sorted(store.root.glob("roots/*.json")):
        run = _Run(store, path, problems, remarks)
        run.check()
        runs += run.seen
        run_files += run.files
        tickets += run.tickets
    return Verified(
        checked=len(keys),
        damaged=tuple(damaged),
        aliases=aliases,
        checkpoints=checkpoints,
        posts=posts,
        runs=runs,
        run_files=run_files,
        tickets=tickets,
        problems=tuple(problems),
        remarks=tuple(remarks),
    )


def _foreign(store: Store) -> Iterator[Path]:
    """What stands in a store and is no part of one."""
    root = store.root
    for path in sorted(root.glob("*")):
        if path.name not in _KNOWN and not path.name.endswith(".tmp"):
            yield path
    yield from _strangers(root / "objects", folders=True)
    yield from _strangers(root / "aliases", folders=False)
    for path in sorted(root.glob("scratch/*")):
        if not path.is_dir() or not _is_name(path.name):
            yield path
    for path in sorted(root.glob("roots/*")):
        if path.suffix not in (".json", ".tmp"):
            yield path


def _strangers(shelf: Path, folders: bool) -> Iterator[Path]:
    """What stands among objects (folders) or aliases (files), and has not the form or the place of one."""
    for group in sorted(shelf.glob("*")):
        if not group.is_dir():
            yield group
            continue
        for path in sorted(group.glob("*")):
            if path.name.startswith(".") and path.name.endswith(".tmp"):
                continue
            if not _is_name(path.name) or path.name[:2] != group.name or path.is_dir() != folders:
                yield path


def _is_name(name: str) -> bool:
    from lotteryfw.store.objects import is_name

    return is_name(name)


def _check_aliases(store: Store, problems: list[str]) -> int:
    """Reads every alias; a damaged one is deleted. How many there are."""
    names = [path.name for path in sorted(store.root.glob("aliases/*/*")) if _is_alias(path)]
    for name in names:
        if store.alias(name) is None:
            problems.append(
                f"alias {name}: was damaged, or written for another name; it was dropped"
            )
    return len(names)


def _is_alias(path: Path) -> bool:
    return _is_name(path.name) and path.name[:2] == path.parent.name and path.is_file()


def _check_scratch(root: Path, problems: list[str]) -> tuple[int, int]:
    """Checks checkpoints, which are deleted where they are damaged, and posted jobs. How many there are of both."""
    checkpoints = [
        path for path in sorted(root.glob("scratch/*/checkpoint-*")) if path.suffix != ".part"
    ]
    for path in checkpoints:
        if damage := _damage(path, path.parent.name, "checkpoint"):
            shutil.rmtree(path, ignore_errors=True)
            problems.append(
                f"{path}: {damage}; the checkpoint was dropped, and the one before it is used"
            )

    posts = [path for path in sorted(root.glob("scratch/post-*")) if path.suffix != ".part"]
    for path in posts:
        if damage := _damage(path, path.name, "post"):
            problems.append(f"{path}: {damage}; the job is made again when its recipe is run again")
    return len(checkpoints), len(posts)


def _damage(folder: Path, key: str, kind: str) -> str:
    """What is wrong with a sealed folder; "" where nothing is, or where it was deleted meanwhile."""
    try:
        check_seal(folder, key, kind)
    except Damaged as damage:
        return str(damage) if folder.exists() else ""
    return ""


class _Run:
    """The check of one run folder: its files against its checksums, its tickets against the store."""

    def __init__(self, store: Store, root: Path, problems: list[str], remarks: list[str]):
        self._store, self._root, self._problems, self._remarks = store, root, problems, remarks
        self.seen = False
        self.files = self.tickets = 0

    def check(self) -> None:
        try:
            folder, _, mount = _pinned(self._root)
        except StoreError as error:
            self._problems.append(str(error))
            return
        presence = _presence(folder, mount)
        if presence != "there":
            what = (
                "cannot be seen (a disk that is not mounted?)"
                if presence == "unseen"
                else "is gone"
            )
            self._remarks.append(f"run folder {folder}: {what}, so it was not checked")
            return
        try:
            if is_held(self._store.root / "active" / f"{self._root.stem}.lock"):
                self._remarks.append(
                    f"run folder {folder}: its run is under way, so it was not checked"
                )
                return
        except StoreError as error:
            if not is_denied(error):
                raise
        self.seen = True
        checked = self._check_files(folder)
        for path in sorted(folder.glob("tickets/**/*.safetensors")):
            self.tickets += 1
            if path.relative_to(folder).as_posix() not in checked:
                self._check_ticket(path)

    def _check_files(self, folder: Path) -> Collection[str]:
        """Compares the files with their checksums. The names of those that have one."""
        path = folder / "checksums.json"
        try:
            checksums: Mapping[str, str] = dict(json.loads(path.read_bytes())["files"])
        except FileNotFoundError:
            self._remarks.append(
                f"run folder {folder}: has no checksums.json, so only its tickets were checked"
            )
            return ()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._problems.append(f"{path}: cannot be read, so only the run's tickets were checked")
            return ()
        unfinished = (
            folder / ".writing"
        ).exists()  # the run was killed: its newest files have no checksum yet
        for name, checksum in checksums.items():
            self.files += 1
            damage = _file_damage(folder / name, checksum)
            if damage and unfinished:
                self._remarks.append(f"{folder / name}: {damage}; the run was ended while it wrote")
            elif damage:
                self._problems.append(
                    f"{folder / name}: {damage}; run its recipe again, which writes it anew"
                )
        return checksums.keys()

    def _check_ticket(self, path: Path) -> None:
        """Compares a ticket with the training that started from it, where the store has that.

        A ticket whose mask was learned came out of its training: of that one only the form is checked.
        """
        from lotteryfw.search.jobs import tensors_digest
        from lotteryfw.store import tensors

        try:
            values, mask = tensors.load(path)
            key = tensors.load_meta(path).get("key", "")
            source = self._source(key)
            if source is None or source.get("parametrization") is not None:
                return
            if (
                tensors_digest(values) == source["values"]
                and tensors_digest(mask) == source["mask"]
            ):
                return
            damage = "is not the ticket that its training started from"
        except StoreError as error:
            damage = str(error).removeprefix(f"{path}: ")
        self._problems.append(f"{path}: {damage}; run its recipe again, which writes it anew")

    def _source(self, key: str) -> dict[str, Any] | None:
        """What the training of this key was computed from; None where the store does not have it."""
        if not _is_name(key) or not self._store.has(key):
            return None
        try:
            source = read_description(self._store.root / "objects" / key[:2] / key).get("source")
        except Damaged:
            return None
        return source if isinstance(source, dict) and {"values", "mask"} <= set(source) else None


def _file_damage(path: Path, checksum: str) -> str:
    try:
        with path.open("rb") as file:
            return (
                ""
                if hashlib.file_digest(file, "sha256").hexdigest() == checksum
                else "is not what was written"
            )
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


# Cleaning


def sweep(store: Store, dry_run: bool, force: bool = False) -> Swept:
    """Removes what nothing references. The caller sees to it that nobody else is at work."""
    dropped, unseen, wanted = _roots(store.root, force)
    present = set(store.all_keys())
    unwanted = sorted(present - wanted)
    kept = present & wanted
    freed = sum(_size(store.root / "objects" / key[:2] / key) for key in unwanted)
    names = filter(_is_alias, store.root.glob("aliases/*/[!.]*"))
    aliases = [path for path in names if store.alias(path.name) not in kept]
    leftovers = _leftovers(store.root, present)
    locks = [*store.root.glob("locks/*.lock"), *store.root.glob("active/*.lock")]
    if not dry_run:
        for path in (*dropped, *aliases):
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
        roots=len(dropped),
        aliases=len(aliases),
        leftovers=len(leftovers),
        kept=len(kept),
        dry_run=dry_run,
        locks=len(locks),
        unseen=tuple(unseen),
    )


def mount_of(folder: Path) -> Path:
    """The place where the file system that holds `folder` is mounted."""
    return next(
        (path for path in (folder, *folder.parents) if os.path.ismount(path)), Path(folder.anchor)
    )


def _roots(root: Path, force: bool) -> tuple[list[Path], list[str], set[str]]:
    """The roots of runs whose folder is gone, the folders that cannot be seen, and the keys that must be kept."""
    dropped, unseen, wanted = [], [], set[str]()
    for path in sorted(root.glob("roots/*.json")):
        folder, keys, mount = _pinned(path)
        presence = _presence(folder, mount)
        if presence == "unseen":
            unseen.append(str(folder))
        if presence == "there" or (presence == "unseen" and not force):
            wanted |= keys
        else:
            dropped.append(path)
    return dropped, unseen, wanted


def _pinned(path: Path) -> tuple[Path, set[str], Path | None]:
    """What a root holds: a run folder, the keys that it references, and where its file system was mounted."""
    try:
        pinned = json.loads(path.read_bytes())
        mount = pinned.get("mount")
        return Path(pinned["folder"]), set(pinned["keys"]), Path(mount) if mount else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StoreError(
            f"{path}: cannot be read, so what its run needs is not known and nothing was deleted: "
            "run that recipe again, or delete this file to give its results up"
        ) from None


def _presence(folder: Path, mount: Path | None) -> str:
    """Return "there", "gone", or "unseen" where that cannot be told: the folder that it stood in is absent too or may
    not be read, or another file system than it was on is there now."""
    try:
        if stat.S_ISDIR(os.stat(folder).st_mode):
            return "there"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return "unseen"
    if mount is not None and not os.path.ismount(mount):
        return "unseen"
    try:
        os.listdir(folder.parent)
    except OSError:
        return "unseen"
    return "gone"


def _leftovers(root: Path, present: Collection[str]) -> list[Path]:
    """Scratch of finished objects and of work given up, and what dead processes left half-written.

    Nobody is at work now, so posted jobs are those of runs that were killed.
    """
    old = time.time() - _FORGOTTEN
    scratch = [path for path in root.glob("scratch/*") if _is_left(path, present, old)]
    halves = [path for path in root.glob("tmp/*") if is_abandoned(path.name)]
    hidden = (
        path for place in ("", "roots/", "aliases/*/") for path in root.glob(f"{place}.*.tmp")
    )
    return scratch + halves + [path for path in hidden if is_abandoned(path.stem.removeprefix("."))]


def _is_left(path: Path, present: Collection[str], old: float) -> bool:
    return path.is_dir() and (
        path.name in present or path.name.startswith("post-") or _changed(path) < old
    )


def _changed(folder: Path) -> float:
    """When the newest file in it was written (s since 1970); of an empty folder, when it was emptied."""
    times = (path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
    return max(times, default=folder.stat().st_mtime)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
