"""The store: results, each under the key of the data that it was computed from.

    store.json          the format's version
    objects/ab/ab12…/   one result: its files, and object.json: the key, what it is the digest of, and the SHA-256 and
                        size of each file (see `seal`)
    aliases/ab/ab12…    the object key that a derivation's digest stands for
    scratch/ab12…/      checkpoints of a job that is not finished
    scratch/post-…/     a job that a run left for a worker process, or for later
    roots/RUN.json      a run folder and the keys it references: what gc keeps
    damaged/ab12…-1/    objects that were not what had been written
    active/ locks/ tmp/ who is at work, and on what

Any number of processes, on any number of machines with one shared file system, may use one store
at once. A store that one may only read answers what is in it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from lotteryfw.api.digests import digest
from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store import upkeep, verification
from lotteryfw.store.files import atomic_write, denial, explained, is_denied, is_name, own_name
from lotteryfw.store.locks import Busy, hold
from lotteryfw.store.seal import (
    FORMAT,
    Damaged,
    check_file,
    check_seal,
    check_sizes,
    check_source,
    read_file,
    seal,
)

Found = TypeVar("Found")


def default_root() -> Path:
    """Return the default store: $LOTTERYFW_STORE, or a folder in the user's data folder."""
    if named := os.environ.get("LOTTERYFW_STORE"):
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("lotteryfw") / "store"


class Store:
    """Content-addressed objects under `root`, which is made at the first write.

    A key or name is letters, digits, "_", ".", "-".

    `damaged` lists the keys that this process found damaged and set aside, `notices` what else the
    user should be shown. Every method raises StoreError where the file system fails, with what to
    do about it; making one raises UsageError where `root` is a file.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.damaged: list[str] = []
        self.notices: list[str] = []
        self._verified: dict[str, str] = {}  # the kind of every object whose files were checked
        self._sealed: dict[str, str] = {}  # the kind of every object whose description was checked
        self._intact: dict[str, tuple[str, ...]] = {}  # its files that were checked, one by one
        self._last_description: tuple[str, dict[str, Any]] | None = None
        self._run: str | None = None
        self._check_format()

    def has(self, key: str) -> bool:
        """Whether there is an object, by one look at the disk: its content is checked by `path`."""
        return os.path.isdir(self._object_name(key))

    def path(self, key: str, kind: str | None = None) -> Path | None:
        """The object's folder, or None where it is absent; a damaged one, or one that was written for another key or
        as another kind than `kind`, is set aside and so absent.

        The first call for a key in this process checks the SHA-256 of every file.
        """
        folder = self._object(key)
        if not self.has(key):
            self._forget(key)
            return None
        known = self._verified.get(key)
        if (known is None or kind not in (None, known)) and not self.check(key, kind):
            return None
        return folder

    def is_sealed(self, key: str, kind: str | None = None) -> bool:
        """Whether the object is there, for this key and of this kind, with every file in its size; else as `path`.

        What is in the files is not looked at: `file` and `read` do, when one is wanted.
        """
        if not self.has(key):
            self._forget(key)
            return False
        known = self._verified.get(key) or self._sealed.get(key)
        if known is not None and kind in (None, known):
            return True
        description = self._look(key, lambda folder: _described(check_sizes(folder, key, kind)))
        if description is None:
            return False
        self._sealed[key] = description["kind"]
        self._last_description = (key, description)
        return True

    def file(self, key: str, name: str, kind: str | None = None) -> Path | None:
        """A file of an object, or None where the object is absent; else as `path`.

        The first call for a file in this process checks its SHA-256.
        """
        if not self.is_sealed(key, kind):
            return None
        path = self._object(key) / name
        if key in self._verified or name in self._intact.get(key, ()):
            return path
        if self._look(key, lambda folder: check_file(folder, self._description(key), name)) is None:
            return None
        self._intact[key] = (*self._intact.get(key, ()), name)
        return path

    def read(self, key: str, name: str, kind: str | None = None) -> bytes | None:
        """What is in a file of an object, checked, or None where the object is absent; else as `path`."""
        if not self.is_sealed(key, kind):
            return None
        return self._look(key, lambda folder: read_file(folder, self._description(key), name))

    def check(self, key: str, kind: str | None = None) -> bool:
        """Whether the object is there as it was written, checked now; a damaged one is set aside."""
        description = self._look(key, lambda folder: _described(check_seal(folder, key, kind)))
        if description is None:
            return False
        self._verified[key] = description["kind"]
        return True

    def _look(self, key: str, look: Callable[[Path], Found]) -> Found | None:
        """What `look` finds in an object's folder; None where it raises Damaged: then the object is set aside."""
        folder = self._object(key)
        try:
            with explained(folder, "read"):
                return look(folder)
        except Damaged as damage:
            self._forget(key)
            if self.has(key):
                self._set_aside(key, str(damage))
            return None

    def _description(self, key: str) -> dict[str, Any]:
        """What an object says of itself. Raises Damaged."""
        if self._last_description is None or self._last_description[0] != key:
            self._last_description = (key, check_sizes(self._object(key), key))
        return self._last_description[1]

    def _forget(self, key: str) -> None:
        """Forget what was found out about an object."""
        for known in (self._verified, self._sealed, self._intact):
            known.pop(key, None)
        if self._last_description is not None and self._last_description[0] == key:
            self._last_description = None

    @contextmanager
    def write(self, key: str, kind: str = "object", source: Any = None) -> Iterator[Path]:
        """Yield an empty folder for an object's files, which becomes the object at the end.

        The files are flushed to the disk then, and need not be before.

        `source` is the JSON data that `key` is the digest of (else ValueError): with it the object
        shows by itself that it belongs to its key. Where the block raises, or another process
        wrote this key meanwhile, the folder is thrown away.
        """
        target = self._object(key)
        if source is not None and digest(source) != key:
            raise ValueError(f"{key} is not the digest of {source}")
        about = {} if source is None else {"source": source}
        with explained(self.root, "written"):
            with self.computing():
                folder = self._temporary()
                with explained(folder, "made"):
                    folder.mkdir(parents=True)
            try:
                yield folder
                seal(folder, key, kind, **about)
                target.parent.mkdir(parents=True, exist_ok=True)
                if _take_name(folder, target):
                    self._verified[key] = kind
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Explain a failed write for a result that is absent, where the store may only be read."""
        try:
            yield
        except StoreError as error:
            if not is_denied(error):
                raise
            raise StoreError(
                f"{self.root}: this store may only be read ({denial(error)}), and something is "
                "to be computed that is not in it: name a store of your own with --store or "
                "LOTTERYFW_STORE, or ask its owner"
            ) from error.__cause__

    def remove(self, key: str) -> None:
        """Delete an object, so that at no moment a part of it has its name."""
        folder = self._temporary()
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._object(key).rename(folder)
        shutil.rmtree(folder)

    @contextmanager
    def lock(self, key: str, timeout: float = -1) -> Iterator[None]:
        """Hold the lock of a job while it runs; other processes wait here for its result.

        The system releases the lock of a process that dies.

        Its file goes once the object is there. Raises Busy after `timeout` seconds (-1: waits as
        long as it takes).
        """
        path = self.root / "locks" / f"{_checked(key)}.lock"
        with ExitStack() as stack:
            with self.computing():
                stack.enter_context(self._held(path, timeout, obsolete=lambda: self.has(key)))
            yield

    def alias(self, name: str) -> str | None:
        """The key that `name`, the digest of a derivation, is known to stand for. A file that is damaged, or that was
        written for another name, is deleted and noted in `notices`."""
        path = f"{self.root}/aliases/{_checked(name)[:2]}/{name}"
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        except OSError:
            with explained(Path(path), "read"):
                raise
        key = _read_alias(name, text)
        if key is None:
            with suppress(OSError):
                os.unlink(path)
            self._note(f"a damaged alias was dropped; what it stood for is looked up again: {path}")
        return key

    def aliases(self) -> set[str]:
        """Return every alias, so that many can be looked up without opening a file for each."""
        with explained(self.root, "read"):
            return {path.name for path in (self.root / "aliases").glob("*/*")}

    def set_alias(self, name: str, key: str) -> None:
        """Remember that `name` stands for `key`."""
        if self.alias(name) != _checked(key):
            with self._optional():
                self._create()
                # not flushed: a rerun finds the object, and writes the alias again
                atomic_write(self._alias(name), _write_alias(name, key), flush=False)

    def scratch(self, key: str) -> Path:
        """Return the folder for what an unfinished job needs to continue; its writer makes it."""
        return self.root / "scratch" / _checked(key)

    def drop_scratch(self, key: str) -> None:
        """Delete the scratch folder of a job, if there is one."""
        shutil.rmtree(self.root / "scratch" / _checked(key), ignore_errors=True)

    def new_post(self) -> str:
        """Return a name in scratch that is nobody else's.

        The name says which run uses it: posts that a killed run left are deleted when that run
        starts again (see `active`), and by `gc`.
        """
        return f"{self._posts(self._run)}{uuid4().hex}"

    def pin(self, run_id: str, folder: Path, keys: Iterable[str]) -> None:
        """Keep these objects from `gc` while the run's folder exists.

        Replaces the run's earlier pin.
        """
        folder = Path(folder).resolve()
        root = {
            "folder": str(folder),
            "mount": str(upkeep.mount_of(folder)),
            "keys": sorted(set(keys)),
        }
        root["sha256"] = digest(root)
        path = self.root / "roots" / f"{_checked(run_id)}.json"
        with self._optional("the results of this run are not kept from its `gc`"):
            self._create()
            atomic_write(path, json.dumps(root, indent=1).encode())

    @contextmanager
    def active(self, run_id: str) -> Iterator[None]:
        """Mark the store as used by a run: `gc` refuses meanwhile, and one under way is awaited.

        The jobs that a killed process of the same run had left for its workers are deleted.

        Raises StoreError where the same run is active already.
        """
        with ExitStack() as stack:
            with self._optional(), self._held(self.root / "gc.lock"):
                try:
                    stack.enter_context(
                        self._held(self.root / "active" / f"{_checked(run_id)}.lock", timeout=0)
                    )
                except Busy:
                    raise StoreError(
                        f"the run '{run_id}' is under way in another process: "
                        "wait for it, or give this one another folder"
                    ) from None
                self._drop_posts(run_id)
            before, self._run = self._run, run_id
            try:
                yield
            finally:
                self._run = before

    def gc(self, dry_run: bool = False, force: bool = False) -> upkeep.Swept:
        """Delete what no run folder references any more; with `dry_run`, only count it.

        Raises StoreError while a run is active. It removes objects that no root names, roots whose
        run folder is gone (with `force` also those whose run folder cannot be seen, as on a disk
        that is not mounted), scratch folders of finished objects and those untouched for 14 days,
        jobs that killed runs left, aliases of absent objects, lock files, and what dead processes
        left half-written.
        """
        if not self.root.exists():
            return upkeep.Swept(dry_run=dry_run)
        self._create()
        try:
            with explained(self.root, "cleaned"), self._quiet():
                return upkeep.sweep(self, dry_run, force)
        except Busy as busy:
            raise StoreError(
                f"{self.root}: in use, so nothing was deleted; clean it later ({busy})"
            ) from None

    def verify(self) -> verification.Verified:
        """Check every object, checkpoint, posted job and alias, and the run folders with tickets.

        Damaged objects are set aside, damaged checkpoints and aliases deleted.
        """
        with explained(self.root, "read"):
            return verification.verify(self)

    def info(self) -> upkeep.Info:
        """Return the counts and sizes of everything in the store."""
        with explained(self.root, "read"):
            return upkeep.info(self)

    def all_keys(self) -> Iterator[str]:
        """Yield the key of every object, in order."""
        for folder in sorted((self.root / "objects").glob("*/[!.]*")):
            if is_name(folder.name) and folder.parent.name == folder.name[:2] and folder.is_dir():
                yield folder.name

    def _object(self, key: str) -> Path:
        return Path(self._object_name(key))

    def _object_name(self, key: str) -> str:
        # Text, since joining and parsing paths took an eighth of the time of a large study's rerun.
        return f"{self.root}/objects/{_checked(key)[:2]}/{key}"

    def _alias(self, name: str) -> Path:
        return self.root / "aliases" / _checked(name)[:2] / name

    def _temporary(self) -> Path:
        self._create()
        return self.root / "tmp" / own_name()

    def _check_format(self) -> None:
        path = self.root / "store.json"
        with explained(path, "read"):
            try:
                version = json.loads(path.read_bytes())["format"]
            except FileNotFoundError:
                return
            except NotADirectoryError:
                file = next(path for path in (self.root, *self.root.parents) if path.exists())
                raise UsageError(f"{file}: is a file, not a folder") from None
            except (ValueError, KeyError, TypeError):
                version = None
        if not isinstance(version, int):
            raise StoreError(
                f"{path}: not the file of a lotteryfw store: name another folder in LOTTERYFW_STORE"
            )
        if version > FORMAT:
            raise StoreError(
                f"{self.root}: a store of format {version}, written by a newer lotteryfw "
                f"(this one reads {FORMAT}): "
                "update lotteryfw, or name another folder in LOTTERYFW_STORE"
            )

    def _create(self) -> None:
        path = self.root / "store.json"
        if not path.exists():
            atomic_write(path, json.dumps({"format": FORMAT}).encode())

    def _note(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)

    @contextmanager
    def _optional(self, consequence: str = "") -> Iterator[None]:
        """Skip a write that finished runs can do without, where the store may only be read."""
        try:
            yield
        except StoreError as error:
            if not is_denied(error):
                raise
            if consequence:
                self._note(f"{self.root}: may only be read ({denial(error)}), so {consequence}")

    def _posts(self, run_id: str | None) -> str:
        """Return the beginning of the names of a run's posts."""
        return f"post-{digest(run_id)[:12]}-"

    def _drop_posts(self, run_id: str) -> None:
        scratch = self.root / "scratch"
        posts = list(scratch.glob(f"{self._posts(run_id)}*"))
        for folder in posts:
            shutil.rmtree(folder, ignore_errors=True)
        if posts:
            jobs = "1 job" if len(posts) == 1 else f"{len(posts)} jobs"
            self._note(f"deleted {jobs} that a killed process of this run had left in {scratch}")

    def _set_aside(self, key: str, damage: str) -> None:
        self._forget(key)
        if key not in self.damaged:
            self.damaged.append(key)
        number = 1
        while (aside := self.root / "damaged" / f"{key}-{number}").exists():
            number += 1
        with self._optional("damaged objects stay where they are"):
            with explained(aside, "written"):
                aside.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # another process found the damage first
                    self._object(key).rename(aside)
            if aside.is_dir():
                atomic_write(aside / "damage.txt", f"{damage}\n".encode())

    def _held(
        self, path: Path, timeout: float = -1, obsolete: Callable[[], bool] = lambda: False
    ) -> AbstractContextManager[None]:
        """Hold a lock file (see `locks.hold`)."""
        self._create()
        return hold(path, timeout, obsolete)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep every run from beginning. Raises StoreError where one is at work."""
        with self._held(self.root / "gc.lock", timeout=0):
            for path in (*self.root.glob("active/*.lock"), *self.root.glob("locks/*.lock")):
                # one by one: there may be more than a process may open
                with self._held(path, timeout=0):
                    pass
            yield


def _described(description: dict[str, Any]) -> dict[str, Any]:
    """The description of an object whose key is that of the work that it describes. Raises Damaged."""
    check_source(description)
    return description


def _checked(name: str) -> str:
    if not is_name(name):
        raise ValueError(
            f"{name!r} cannot name anything in a store: letters, digits, '_', '.' and '-' can"
        )
    return name


def _write_alias(name: str, key: str) -> bytes:
    return json.dumps({"alias": name, "key": key, "sha256": digest([name, key])}).encode()


def _read_alias(name: str, text: bytes) -> str | None:
    """Return the key in the alias file of `name`; None where it is damaged or another name's."""
    try:
        alias = json.loads(text)
        written, key, checksum = alias["alias"], alias["key"], alias["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    intact = (
        written == name
        and isinstance(key, str)
        and is_name(key)
        and checksum == digest([name, key])
    )
    return key if intact else None


def _take_name(folder: Path, target: Path) -> bool:
    """Rename a folder, unless the name is taken, and return whether it was renamed."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
