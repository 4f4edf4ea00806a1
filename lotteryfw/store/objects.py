"""The store: what was computed, under the key of what it was computed from.

    store.json          the format's version
    calibration.json    by machine, what `lotteryfw doctor --calibrate` measured
    objects/ab/ab12…/   one result: its files, and object.json with the SHA-256 and size of each
    aliases/ab/ab12…    the object key that a derivation's digest stands for
    scratch/ab12…/      checkpoints and pending work of a job that is not finished
    roots/RUN.json      a run folder and the keys it references: what gc keeps
    damaged/ab12…-1/    objects that were not what had been written
    active/ locks/ tmp/ who is at work, and on what

Any number of processes, on any number of machines with one shared file system, may use one store at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

from lotteryfw.errors import StoreError, UsageError
from lotteryfw.store import upkeep
from lotteryfw.store.files import atomic_write, explained, own_name

_FORMAT = 1
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_INDEX = "object.json"


def default_root() -> Path:
    """Where the store is unless a command says otherwise: $LOTTERYFW_STORE, or the user's data folder."""
    if named := os.environ.get("LOTTERYFW_STORE"):
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("lotteryfw") / "store"


class Store:
    """Content-addressed objects under `root`, made at the first write. A key or name is letters, digits, "_", ".", "-".

    `damaged` lists the keys that this process found damaged and set aside, to be shown to the user. Every method
    raises StoreError where the file system fails, with what to do about it; making one raises UsageError where `root`
    is a file.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.damaged: list[str] = []
        self._verified: set[str] = set()
        self._check_format()

    def has(self, key: str) -> bool:
        """Whether there is an object, by one look at the disk: its content is checked by `path`."""
        return os.path.isdir(self._object(key))

    def path(self, key: str) -> Path | None:
        """The object's folder, or None where it is absent; a damaged one is set aside and so absent.

        The first call for a key in this process checks the SHA-256 of every file.
        """
        folder = self._object(key)
        if not self.has(key):
            self._verified.discard(key)
            return None
        if key not in self._verified:
            if not self.check(key):
                return None
            self._verified.add(key)
        return folder

    def check(self, key: str) -> bool:
        """Whether the object is there as it was written, checked now; a damaged one is set aside."""
        folder = self._object(key)
        with explained(folder, "read"):
            damage = _damage(folder)
        if damage and self.has(key):
            self._set_aside(key, damage)
        return damage is None

    @contextmanager
    def write(self, key: str, kind: str = "object") -> Iterator[Path]:
        """An empty folder to write an object's files into, which becomes the object when the block ends: what the block
        wrote is flushed to the disk then, and need not be before.

        Where the block raises, or another process wrote this key meanwhile, the folder is thrown away.
        """
        target = self._object(key)
        with explained(self.root, "written"):
            folder = self._temporary()
            try:
                folder.mkdir(parents=True)
                yield folder
                _seal(folder, kind)
                target.parent.mkdir(parents=True, exist_ok=True)
                if _take_name(folder, target):
                    self._verified.add(key)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self, key: str) -> None:
        """Deletes an object, so that at no moment a part of it stands under its name."""
        folder = self._temporary()
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._object(key).rename(folder)
        shutil.rmtree(folder)

    def lock(self, key: str, timeout: float = -1) -> AbstractContextManager[None]:
        """Held while a job runs; others wait here for its result. The system releases it for a process that dies.

        Raises Busy after `timeout` seconds (-1: waits as long as it takes).
        """
        return self._held(self.root / "locks" / f"{_checked(key)}.lock", timeout)

    def alias(self, name: str) -> str | None:
        """The key that `name`, the digest of a derivation, is known to stand for."""
        path = self._alias(name)
        with explained(path, "read"):
            try:
                key = path.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return None
        return key if _NAME.fullmatch(key) else None

    def aliases(self) -> set[str]:
        """Every name that stands for a key: for asking after many without opening a file for each."""
        with explained(self.root, "read"):
            return {path.name for path in (self.root / "aliases").glob("*/*")}

    def set_alias(self, name: str, key: str) -> None:
        """Remembers that `name` stands for `key`."""
        if self.alias(name) != _checked(key):
            self._create()
            atomic_write(self._alias(name), key.encode(), flush=False)  # a rerun finds the object, and says it again

    def scratch(self, key: str) -> Path:
        """Where an unfinished job has what it needs to continue; whoever writes there makes the folder."""
        return self.root / "scratch" / _checked(key)

    def drop_scratch(self, key: str) -> None:
        """Deletes that folder, if there is one."""
        shutil.rmtree(self.root / "scratch" / _checked(key), ignore_errors=True)

    def pin(self, run_id: str, folder: Path, keys: Iterable[str]) -> None:
        """Keeps these objects from `gc` for as long as the run's folder is there. Replaces the run's earlier pin."""
        self._create()
        root = {"folder": str(Path(folder).resolve()), "keys": sorted(set(keys))}
        atomic_write(self.root / "roots" / f"{_checked(run_id)}.json", json.dumps(root, indent=1).encode())

    @contextmanager
    def active(self, run_id: str) -> Iterator[None]:
        """Held while a run uses the store: `gc` refuses meanwhile. Waits for a gc that is under way.

        Raises StoreError where the same run is active already.
        """
        with ExitStack() as stack:
            with self._held(self.root / "gc.lock"):
                try:
                    stack.enter_context(self._held(self.root / "active" / f"{_checked(run_id)}.lock", timeout=0))
                except Busy:
                    raise StoreError(
                        f"the run '{run_id}' is under way in another process: "
                        "wait for it, or give this one another folder"
                    ) from None
            yield

    def gc(self, dry_run: bool = False) -> upkeep.Swept:
        """Deletes what no run folder references any more; with `dry_run`, only counts it.

        Raises StoreError while a run is active. It removes objects that no root names, roots whose run folder is gone,
        scratch folders of finished objects and those untouched for 14 days, aliases of absent objects, and what dead
        processes left half-written.
        """
        self._create()
        try:
            with explained(self.root, "cleaned"), self._quiet():
                return upkeep.sweep(self, dry_run)
        except Busy as busy:
            raise StoreError(f"{self.root}: in use, so nothing was deleted; clean it later ({busy})") from None

    def verify(self) -> upkeep.Verified:
        """Checks every file of every object; damaged objects are set aside."""
        return upkeep.verify(self)

    def info(self) -> upkeep.Info:
        """Counts and sizes."""
        with explained(self.root, "read"):
            return upkeep.info(self)

    def all_keys(self) -> Iterator[str]:
        """The key of every object, in order."""
        for folder in sorted((self.root / "objects").glob("*/[!.]*")):
            yield folder.name

    def _object(self, key: str) -> Path:
        return self.root / "objects" / _checked(key)[:2] / key

    def _alias(self, name: str) -> Path:
        return self.root / "aliases" / _checked(name)[:2] / name

    def _temporary(self) -> Path:
        self._create()
        return self.root / "tmp" / own_name()

    def _check_format(self) -> None:
        path = self.root / "store.json"
        with explained(path, "read"):
            try:
                found = json.loads(path.read_bytes())["format"]
            except FileNotFoundError:
                return
            except NotADirectoryError:
                file = next(place for place in (self.root, *self.root.parents) if place.exists())
                raise UsageError(f"{file}: is a file, not a folder") from None
            except (ValueError, KeyError, TypeError):
                found = None
        if not isinstance(found, int):
            raise StoreError(f"{path}: not the file of a lotteryfw store: name another folder in LOTTERYFW_STORE")
        if found > _FORMAT:
            raise StoreError(
                f"{self.root}: a store of format {found}, written by a newer lotteryfw (this one reads {_FORMAT}): "
                "update lotteryfw, or name another folder in LOTTERYFW_STORE"
            )

    def _create(self) -> None:
        path = self.root / "store.json"
        if not path.exists():
            atomic_write(path, json.dumps({"format": _FORMAT}).encode())

    def _set_aside(self, key: str, damage: str) -> None:
        number = 1
        while (aside := self.root / "damaged" / f"{key}-{number}").exists():
            number += 1
        with explained(aside, "written"):
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._object(key).rename(aside)
            except FileNotFoundError:  # another process found the damage first
                return
        atomic_write(aside / "damage.txt", f"{damage}\n".encode())
        self._verified.discard(key)
        self.damaged.append(key)

    @contextmanager
    def _held(self, path: Path, timeout: float = -1) -> Iterator[None]:
        """Holds a lock file, waiting `timeout` seconds (-1: as long as it takes), then raising Busy."""
        from filelock import FileLock, Timeout

        self._create()
        lock = FileLock(path)
        with explained(path, "locked"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=timeout)
            except Timeout:
                raise Busy(f"{path}: held by another process") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """While this is held nobody is at work, and no run can begin. Raises StoreError where somebody is at work."""
        with self._held(self.root / "gc.lock", timeout=0):
            for path in (*self.root.glob("active/*.lock"), *self.root.glob("locks/*.lock")):
                with self._held(path, timeout=0):  # held one by one: there may be more than a process may open
                    pass
            yield


class Busy(StoreError):
    """Somebody else holds a lock."""


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name anything in a store: letters, digits, '_', '.' and '-' can")
    return name


def _seal(folder: Path, kind: str) -> None:
    """Brings every file to the disk and writes what they are."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("r+b") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"sha256": digest, "size": path.stat().st_size}
    index = {"format": _FORMAT, "kind": kind, "created_by": f"lotteryfw {_version()}", "files": files}
    atomic_write(folder / _INDEX, json.dumps(index, indent=1).encode())


def _damage(folder: Path) -> str | None:
    """What is wrong with an object, or None."""
    try:
        files = json.loads((folder / _INDEX).read_bytes())["files"]
        for name, written in files.items():
            with (folder / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != written["size"]:
                    return f"{name} has {size} bytes; {written['size']} were written"
                if hashlib.file_digest(file, "sha256").hexdigest() != written["sha256"]:
                    return f"{name} is not what was written"
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{_INDEX} cannot be read"
    return None


def _take_name(folder: Path, target: Path) -> bool:
    """Renames a folder, unless the name is taken; says whether it did."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("lotteryfw")
