"""The check of a whole store: objects, aliases, unfinished work, and run folders."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotteryfw.api.digests import tensors_digest
from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store import checksums, tensors
from lotteryfw.store.files import is_denied, is_key, is_name
from lotteryfw.store.locks import is_held
from lotteryfw.store.seal import Damaged, check_seal, read_description
from lotteryfw.store.spool_files import check_spooled, is_spooled
from lotteryfw.store.store_format import is_store
from lotteryfw.store.upkeep import (
    ObjectStore,
    PinnedRun,
    copy_of_root,
    is_alias,
    is_sound_root,
    object_folder,
    presence_of,
    read_root,
    root_paths,
)

_KNOWN = {
    "store.json", "gc.lock", "objects", "aliases", "scratch", "spool",
    "roots", "damaged", "active", "locks", "tmp",
}  # fmt: skip
"""The names of everything that a store keeps in its root."""

_RERUN = "run its recipe again, which writes it anew"


@dataclass(frozen=True)
class Verified:
    """The result of `verify`: how much was checked, and everything that is wrong.

    `damaged`: the keys of objects that were damaged and set aside. `problems`: a line for
    everything else that is not as it was written. `remarks`: a line for what could not be
    checked, and for files that do not belong to the store.
    """

    checked: int
    damaged: tuple[str, ...]
    aliases: int = 0
    checkpoints: int = 0
    spooled: int = 0
    runs: int = 0
    run_files: int = 0
    tickets: int = 0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def verify(store: ObjectStore) -> Verified:
    """Check objects, aliases, unfinished work, and the run folders that use the store.

    Raises UsageError as `refuse_other_folder` does.
    """
    refuse_other_folder(store.root)
    problems: list[str] = []
    remarks: list[str] = []
    for path in _foreign_paths(store.root):
        remarks.append(f"{path}: does not belong to the store; lotteryfw leaves it alone")

    keys = list(store.all_keys())
    damaged: list[str] = []
    for key in keys:
        # an object that somebody deleted meanwhile is no damage
        if not store.check(key) and key in store.damaged:
            damaged.append(key)

    # After the objects: an alias is sound or not whether its object is there or not.
    aliases = _check_aliases(store, problems)
    checkpoints = _check_checkpoints(store.root, problems)
    spooled = _check_spooled(store.root, problems)

    tickets = run_files = runs = 0
    for path in root_paths(store.root):
        for part in (path, copy_of_root(path)):
            if not is_sound_root(part):
                problems.append(f"{part} is damaged or gone; the next run of its recipe mends it")
        run = _RunCheck(store, path, problems, remarks)
        run.check()
        runs += run.seen
        run_files += run.files
        tickets += run.tickets
    return Verified(
        checked=len(keys),
        damaged=tuple(damaged),
        aliases=aliases,
        checkpoints=checkpoints,
        spooled=spooled,
        runs=runs,
        run_files=run_files,
        tickets=tickets,
        problems=tuple(problems),
        remarks=tuple(remarks),
    )


def refuse_other_folder(root: Path) -> None:
    """Raise UsageError for a folder that holds anything else than a store.

    A store that lost its store.json is told by its other names; an empty folder may become one.
    """
    if is_store(root):
        return
    for path in _foreign_paths(root):
        raise UsageError(
            f"{root}: not a lotteryfw store, so nothing was changed: it has no store.json, and "
            f"{path} is not lotteryfw's; name the store with --store or LOTTERYFW_STORE"
        )


def _foreign_paths(root: Path) -> Iterator[Path]:
    """Yield everything in a store's folder that is no part of a store."""
    for path in sorted(root.glob("*")):
        if path.name not in _KNOWN and not _is_half(path):
            yield path
    yield from _misplaced(root / "objects", folders=True)
    yield from _misplaced(root / "aliases", folders=False)
    for path in sorted(root.glob("scratch/*")):
        if not path.is_dir() or not is_key(path.name):
            yield path
    for path in sorted(root.glob("spool/*")):
        if not is_spooled(path) and not _is_half(path):
            yield path
    for path in sorted(root.glob("roots/*")):
        if path.suffix not in (".json", ".copy") and not _is_half(path):
            yield path


def _misplaced(parent: Path, folders: bool) -> Iterator[Path]:
    """Yield what lies among objects (folders) or aliases (files) and is not named like one."""
    for group in sorted(parent.glob("*")):
        if not group.is_dir():
            yield group
            continue
        for path in sorted(group.glob("*")):
            if _is_half(path):
                continue
            if not is_key(path.name) or path.name[:2] != group.name or path.is_dir() != folders:
                yield path


def _is_half(path: Path) -> bool:
    """Return whether this is a write that is under way, or that `gc` will clear away."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _check_aliases(store: ObjectStore, problems: list[str]) -> int:
    """Read every alias, which deletes damaged ones, and return how many there are."""
    names = [path.name for path in sorted(store.root.glob("aliases/*/*")) if is_alias(path)]
    for name in names:
        if store.alias(name) is None:
            problems.append(
                f"alias {name}: was damaged, or written for another name; it was dropped"
            )
    return len(names)


def _check_checkpoints(root: Path, problems: list[str]) -> int:
    """Check every checkpoint, delete damaged ones, and return how many there are."""
    found = root.glob("scratch/*/checkpoint-*")
    # other programs name folders "checkpoint-…", too
    paths = _complete(path for path in found if is_key(path.parent.name))
    for path in paths:
        damage = _seal_damage(path, path.parent.name, "checkpoint")
        if damage:
            shutil.rmtree(path, ignore_errors=True)
            problems.append(
                f"{path}: {damage}; the checkpoint was dropped, and the one before it is used"
            )
    return len(paths)


def _check_spooled(root: Path, problems: list[str]) -> int:
    """Check every job that waits for a worker, and return how many there are."""
    paths = [path for path in sorted(root.glob("spool/*")) if is_spooled(path)]
    for path in paths:
        try:
            check_spooled(path)
        except StoreError as damage:
            if path.exists():  # a run may have deleted it meanwhile
                problems.append(f"{damage}; the job is made again when its recipe is run again")
    return len(paths)


def _complete(paths: Iterable[Path]) -> list[Path]:
    """Return those of `paths` that are not just being written, in order."""
    return sorted(path for path in paths if path.suffix != ".part")


def _seal_damage(folder: Path, key: str, kind: str) -> str:
    """Return what is wrong with a sealed folder; "" where it is intact or was deleted meanwhile."""
    try:
        check_seal(folder, key, kind)
    except Damaged as damage:
        return str(damage) if folder.exists() else ""
    return ""


class _RunCheck:
    """The check of one run folder: its files by their checksums, its tickets by the store."""

    def __init__(self, store: ObjectStore, root: Path, problems: list[str], remarks: list[str]):
        self._store = store
        self._root = root
        self._problems = problems
        self._remarks = remarks
        self.seen = False
        self.files = 0
        self.tickets = 0

    def check(self) -> None:
        """Check the folder, unless it is absent or its run is under way."""
        try:
            pinned = read_root(self._root)
        except StoreError as error:
            self._problems.append(str(error))
            return
        folder = pinned.folder
        obstacle = self._obstacle(pinned)
        if obstacle:
            self._remarks.append(f"run folder {folder}: {obstacle}, so it was not checked")
            return
        self.seen = True
        # a ticket with a checksum needs no second look
        checked = self._check_files(folder)
        for path in sorted(folder.glob("tickets/**/*.safetensors")):
            self.tickets += 1
            if path.relative_to(folder).as_posix() not in checked:
                self._check_ticket(path)

    def _obstacle(self, pinned: PinnedRun) -> str:
        """Return why the folder cannot be checked; "" where it can be."""
        presence = presence_of(pinned)
        if presence == "unseen":
            return "cannot be seen (a disk that is not mounted, or one of another machine?)"
        if presence == "gone":
            return "is gone"
        try:
            if is_held(self._store.root / "active" / f"{self._root.stem}.lock"):
                return "its run is under way"
        except StoreError as error:
            # in a store that one may only read no lock can be tried
            if not is_denied(error):
                raise
        return ""

    def _check_files(self, folder: Path) -> Collection[str]:
        """Compare the files with their checksums, and return the names of those that have one."""
        index = folder / checksums.NAME
        try:
            digests = checksums.read_checksums(folder)
        except StoreError:
            digests = None
        if digests is None and not index.exists():
            self._remarks.append(
                f"run folder {folder}: has no {checksums.NAME}, so only its tickets were checked"
            )
            return ()
        if digests is None:
            self._problems.append(
                f"{index}: cannot be read, so only the run's tickets were checked"
            )
            return ()

        # the newest files of a run that was killed have no checksum yet
        was_killed = (folder / checksums.UNDER_WAY).exists()
        for name, recorded in digests.items():
            self.files += 1
            damage = _file_damage(folder / name, recorded)
            if damage and was_killed:
                self._remarks.append(f"{folder / name}: {damage}; the run was ended while it wrote")
            elif damage:
                self._problems.append(f"{folder / name}: {damage}; {_RERUN}")
        return digests.keys()

    def _check_ticket(self, path: Path) -> None:
        """Compare a ticket with the training that started from it, where the store has that.

        A ticket whose mask was learned, or changed in training, came out of that: only its form is
        checked.
        """
        try:
            values, mask = tensors.load(path)
            key = tensors.load_meta(path).get("key", "")
            source = self._training_source(key)
            if source is None:
                return
            if source.get("parametrization") is not None or source.get("mask_update") is not None:
                return
            is_same = (
                tensors_digest(values) == source["values"]
                and tensors_digest(mask) == source["mask"]
            )
            damage = "" if is_same else "is not the ticket that its training started from"
        except StoreError as error:
            damage = str(error).removeprefix(f"{path}: ")
        if damage:
            self._problems.append(f"{path}: {damage}; {_RERUN}")

    def _training_source(self, key: str) -> dict[str, Any] | None:
        """Return what a training was computed from; None where the store does not have it."""
        if not is_name(key) or not self._store.has(key):
            return None
        try:
            source = read_description(object_folder(self._store.root, key)).get("source")
        except Damaged:
            return None
        return source if isinstance(source, dict) and {"values", "mask"} <= set(source) else None


def _file_damage(path: Path, recorded: str) -> str:
    """Return what is wrong with a file of a run folder; "" where it has the recorded digest."""
    try:
        digest = checksums.file_digest(path)
    except StoreError as error:
        return str(error).removeprefix(f"{path}: ")
    if digest is None:
        return "is missing"
    return "" if digest == recorded else "is not what was written"
