"""The store: results, each under the key of the data that it was computed from.

    store.json          the format's version
    objects/ab/ab12…/   one result: its files, and object.json: the key, what it is the digest of,
                        and the SHA-256 and size of each file (see `seal`)
    aliases/ab/ab12…    the object key that a derivation's digest stands for
    scratch/ab12…/      checkpoints of a job that is not finished
    spool/…             jobs that a run left for a worker process, or for later
    roots/RUN.json      a run folder and the keys it references: what gc keeps; RUN.copy is the same
    damaged/ab12…-1/    objects that were not what had been written
    active/ locks/ tmp/ who is at work, and on what

Any number of processes, on any number of machines with one shared file system, may use one store
at once. A store that one may only read answers what is in it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lotteryfw.api.digests import digest
from lotteryfw.api.errors import StoreError
from lotteryfw.store import upkeep, verification
from lotteryfw.store.aliases import DamagedAlias, alias_names, read_alias, write_alias
from lotteryfw.store.files import (
    atomic_write,
    checked_name,
    denial,
    explained,
    is_denied,
    is_key,
    own_name,
)
from lotteryfw.store.locks import RELEASE_SECONDS, Busy, hold
from lotteryfw.store.reader import ObjectReader
from lotteryfw.store.seal import seal
from lotteryfw.store.spool_files import SUFFIX, new_spool_name, spool_prefix
from lotteryfw.store.store_format import check_format, write_format


def default_root() -> Path:
    """Return the default store: $LOTTERYFW_STORE, or a folder in the user's data folder."""
    if named := os.environ.get("LOTTERYFW_STORE"):
        # a shell leaves the ~ of `LOTTERYFW_STORE="~/store"` as it is
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("lotteryfw") / "store"


class Store:
    """Content-addressed objects under `root`, which is made at the first write.

    A key is a digest (see `api.digests`), and so is the name of an alias: `gc` and `verify` take
    what is named otherwise for somebody else's, and leave it alone. A run's id is letters, digits,
    "_", ".", "-".

    `damaged` lists the keys that this process found damaged and set aside, `notices` what else the
    user should be shown. Every method raises StoreError where the file system fails, with what to
    do about it; making one raises UsageError where `root` is a file.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.damaged: list[str] = []
        self.notices: list[str] = []
        self._reader = ObjectReader(self.root, self._set_aside)
        self._run: str | None = None
        check_format(self.root)

    def has(self, key: str) -> bool:
        """Return whether there is an object, by one look at the disk; `path` checks its content."""
        return self._reader.has(key)

    def path(self, key: str, kind: str | None = None) -> Path | None:
        """Return an object's folder, checked; None where it is absent, damaged, or of another kind.

        See `ObjectReader` for this and the next four.
        """
        return self._reader.path(key, kind)

    def is_sealed(self, key: str, kind: str | None = None) -> bool:
        """Return whether the object is there; the content of its files is not looked at."""
        return self._reader.is_sealed(key, kind)

    def file(self, key: str, name: str, kind: str | None = None) -> Path | None:
        """Return the path of a file of an object, checked; None where the object is absent."""
        return self._reader.file(key, name, kind)

    def read(self, key: str, name: str, kind: str | None = None) -> bytes | None:
        """Return the content of a file of an object, checked; None where the object is absent."""
        return self._reader.read(key, name, kind)

    def check(self, key: str, kind: str | None = None) -> bool:
        """Check an object now, and return whether it is as it was written; else it is set aside."""
        return self._reader.check(key, kind)

    @contextmanager
    def write(self, key: str, kind: str = "object", source: Any = None) -> Iterator[Path]:
        """Yield an empty folder for an object's files, which becomes the object at the end.

        The files are flushed to the disk then, and need not be before.

        `source` is the JSON data that `key` is the digest of (else ValueError): with it the object
        shows by itself that it belongs to its key. Where the block raises, or another process
        wrote this key meanwhile, the folder is thrown away.
        """
        # A key that is not that of the work would give one study's results to another.
        target = self._reader.folder(key)
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
                # one rename, which is atomic: a reader sees a whole object or none
                if _take_name(folder, target):
                    self._reader.trust(key, kind)
            finally:
                # Nothing is there where the folder got its name.
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
        # Renamed first: deleting takes several steps, and a killed process may do only some.
        folder = self._temporary()
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._reader.folder(key).rename(folder)
        shutil.rmtree(folder)

    @contextmanager
    def lock(self, key: str, timeout: float = -1) -> Iterator[None]:
        """Hold the lock of a job while it runs; other processes wait here for its result.

        The system releases the lock of a process that dies.

        Its file goes once the object is there. Raises Busy after `timeout` seconds (-1: waits as
        long as it takes).
        """
        path = self.root / "locks" / f"{checked_name(key)}.lock"
        with ExitStack() as stack:
            with self.computing():
                stack.enter_context(self._held(path, timeout, obsolete=lambda: self.has(key)))
            yield

    def alias(self, name: str) -> str | None:
        """Return the key that `name`, the digest of a derivation, stands for; None if unknown.

        A file that is damaged, or was written for another name, is deleted and noted in `notices`.
        """
        try:
            return read_alias(self.root, name)
        except DamagedAlias as path:
            self._note(f"a damaged alias was dropped; what it stood for is looked up again: {path}")
            return None

    def aliases(self) -> set[str]:
        """Return every alias, so that many can be looked up without opening a file for each."""
        return alias_names(self.root)

    def set_alias(self, name: str, key: str) -> None:
        """Remember that `name` stands for `key`."""
        # read first: on a rerun all aliases are there, and reading is cheaper than writing
        if self.alias(name) != checked_name(key):
            # without an alias the derivation is computed again, which costs time and no result
            with self._optional():
                write_format(self.root)
                write_alias(self.root, name, key)

    def scratch(self, key: str) -> Path:
        """Return the folder for what an unfinished job needs to continue; its writer makes it."""
        return self.root / "scratch" / checked_name(key)

    def drop_scratch(self, key: str) -> None:
        """Delete the scratch folder of a job, if there is one."""
        shutil.rmtree(self.root / "scratch" / checked_name(key), ignore_errors=True)

    def spool(self, content: bytes) -> str:
        """Write a file for another process, or for later, and return its name.

        The name says which run's process wrote the file: those that a killed one left are deleted
        when that run starts again (see `active`), and by `gc`. What is written outside `active`,
        as in a worker process, only `gc` deletes.
        """
        name = new_spool_name(self._run, content)
        with self.computing():
            # Not flushed: after a power cut nobody reads it.
            atomic_write(self.spooled(name), content, flush=False)
        return name

    def spooled(self, name: str) -> Path:
        """Return the file that `spool` wrote under this name (see `check_spooled`)."""
        return self.root / "spool" / f"{checked_name(name)}{SUFFIX}"

    def drop_spooled(self, name: str) -> None:
        """Delete a file that `spool` wrote."""
        with suppress(OSError):  # what cannot be deleted stays: `gc` deletes it
            os.unlink(self.spooled(name))

    def pin(self, run_id: str, folder: Path, keys: Iterable[str], folder_id: str = "") -> None:
        """Keep these objects from `gc` while the run's folder exists.

        Replaces the run's earlier pin, but for what another machine pinned of a folder of its own
        at this path: `folder_id` tells the two apart.
        """
        path = self.root / "roots" / f"{checked_name(run_id)}.json"
        with self._optional("the results of this run are not kept from its `gc`"):
            write_format(self.root)
            upkeep.write_root(path, Path(folder).resolve(), keys, folder_id)

    @contextmanager
    def active(self, run_id: str) -> Iterator[None]:
        """Mark the store as used by a run: `gc` refuses meanwhile, and one under way is awaited.

        The jobs that a killed process of the same run had left for its workers are deleted.

        Raises StoreError where the same run is active already.
        """
        with ExitStack() as stack:
            # Under the lock of `gc`, which would otherwise delete what this run begins to use.
            with self._optional(), self._held(self.root / "gc.lock"):
                try:
                    stack.enter_context(
                        self._held(
                            self.root / "active" / f"{checked_name(run_id)}.lock",
                            timeout=RELEASE_SECONDS,
                        )
                    )
                except Busy:
                    raise StoreError(
                        f"the run '{run_id}' is under way in another process: "
                        "wait for it, or give this one another folder"
                    ) from None
                self._drop_spooled_by(run_id)
            # restored below, as a script may run one study while another is active
            before, self._run = self._run, run_id
            try:
                yield
            finally:
                self._run = before

    def gc(self, dry_run: bool = False, force: bool = False) -> upkeep.Swept:
        """Delete what no run folder references any more; with `dry_run`, only count it.

        Raises StoreError while a run is active, and UsageError for a folder that is no store. What
        has no name that a store gives stays. It removes objects that no root names, roots whose
        run folder is gone (with `force` also those whose run folder cannot be seen, as on a disk
        that is not mounted, or on another machine), scratch folders of finished objects and those untouched for 14 days,
        jobs that killed runs left, aliases of absent objects, lock files, and what dead processes
        left half-written.
        """
        # a mistyped folder must not become a store by being cleaned
        if not self.root.exists():
            return upkeep.Swept(dry_run=dry_run)
        with explained(self.root, "read"):
            verification.refuse_other_folder(self.root)
        write_format(self.root)
        try:
            with explained(self.root, "cleaned"), self._quiet():
                return upkeep.sweep(self, dry_run, force)
        except Busy as busy:
            raise StoreError(
                f"{self.root}: in use, so nothing was deleted; clean it later ({busy})"
            ) from None

    def verify(self) -> verification.Verified:
        """Check every object, checkpoint, spooled job and alias, and the run folders with tickets.

        Damaged objects are set aside, damaged checkpoints and aliases deleted. Raises UsageError for
        a folder that is no store. What has no name that a store gives stays as it is.
        """
        with explained(self.root, "read"):
            return verification.verify(self)

    def info(self) -> upkeep.Info:
        """Return the counts and sizes of everything in the store."""
        with explained(self.root, "read"):
            return upkeep.info(self)

    def all_keys(self) -> Iterator[str]:
        """Yield the key of every object, in order."""
        # without names that begin with a dot, which file browsers and network disks leave behind
        for folder in sorted((self.root / "objects").glob("*/[!.]*")):
            if is_key(folder.name) and folder.parent.name == folder.name[:2] and folder.is_dir():
                yield folder.name

    def _temporary(self) -> Path:
        write_format(self.root)
        return self.root / "tmp" / own_name()

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

    def _drop_spooled_by(self, run_id: str) -> None:
        """Delete the jobs that a killed process of this run had spooled."""
        folder = self.root / "spool"
        paths = list(folder.glob(f"{spool_prefix(run_id)}*{SUFFIX}"))
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            jobs = "1 job" if len(paths) == 1 else f"{len(paths)} jobs"
            self._note(f"deleted {jobs} that a killed process of this run had left in {folder}")

    def _set_aside(self, key: str, damage: str) -> None:
        # first, so that whatever fails below the damaged object is not used
        self._reader.forget(key)
        if key not in self.damaged:
            self.damaged.append(key)
        # Kept for people to look at; damage of one object may happen more than once.
        number = 1
        while (aside := self.root / "damaged" / f"{key}-{number}").exists():
            number += 1
        with self._optional("damaged objects stay where they are"):
            with explained(aside, "written"):
                aside.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # another process found the damage first
                    self._reader.folder(key).rename(aside)
            if aside.is_dir():
                atomic_write(aside / "damage.txt", f"{damage}\n".encode())

    def _held(
        self, path: Path, timeout: float = -1, obsolete: Callable[[], bool] = lambda: False
    ) -> AbstractContextManager[None]:
        """Hold a lock file (see `locks.hold`)."""
        write_format(self.root)
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


def _take_name(folder: Path, target: Path) -> bool:
    """Rename a folder, unless the name is taken, and return whether it was renamed."""
    try:
        folder.rename(target)
    except OSError as error:
        # another process was faster; systems differ in which of the two they report
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
