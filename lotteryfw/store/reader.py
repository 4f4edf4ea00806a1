"""Reads the objects of a store: each is checked once in this process, when it is first needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lotteryfw.store.files import checked_name, explained
from lotteryfw.store.seal import (
    Damaged,
    check_file,
    check_seal,
    check_sizes,
    check_source,
    read_file,
)

Result = TypeVar("Result")


class ObjectReader:
    """The objects of the store at `root`, and what this process has found out about them.

    `set_aside` is called with the key of a damaged object and what is wrong with it. Every method
    raises StoreError where the file system fails.
    """

    def __init__(self, root: Path, set_aside: Callable[[str, str], None]):
        self._root = root
        self._set_aside = set_aside
        # By key: the kinds of objects whose files, and of those whose descriptions, were checked.
        self._verified: dict[str, str] = {}
        self._sealed: dict[str, str] = {}
        # By key: the files that were checked one by one.
        self._intact: dict[str, tuple[str, ...]] = {}
        # One is kept: the files of an object are mostly read one after another.
        self._last_description: tuple[str, dict[str, Any]] | None = None

    def folder(self, key: str) -> Path:
        """Return the folder of an object, which may be absent."""
        return Path(self._folder_name(key))

    def has(self, key: str) -> bool:
        """Return whether there is an object, by one look at the disk; `path` checks its content."""
        return os.path.isdir(self._folder_name(key))

    def path(self, key: str, kind: str | None = None) -> Path | None:
        """Return an object's folder; None where it is absent.

        A damaged object, or one that was written for another key or as another kind than `kind`, is
        set aside and so absent. The first call for a key in this process checks the SHA-256 of
        every file.
        """
        if not self.has(key):
            self.forget(key)
            return None
        # a request for another kind than the one that was checked is checked again, and refused
        verified = self._verified.get(key)
        if (verified is None or kind not in (None, verified)) and not self.check(key, kind):
            return None
        return self.folder(key)

    def is_sealed(self, key: str, kind: str | None = None) -> bool:
        """Return whether the object is there, of this kind, with every file in its size.

        The content of the files is not looked at: `file` and `read` do, when one is wanted. Else
        as `path`.
        """
        if not self.has(key):
            self.forget(key)
            return False
        sealed = self._verified.get(key) or self._sealed.get(key)
        if sealed is not None and kind in (None, sealed):
            return True
        description = self._look(key, lambda folder: _described(check_sizes(folder, key, kind)))
        if description is None:
            return False
        self._sealed[key] = description["kind"]
        self._last_description = (key, description)
        return True

    def file(self, key: str, name: str, kind: str | None = None) -> Path | None:
        """Return the path of a file of an object; None where the object is absent; else as `path`.

        The first call for a file in this process checks its SHA-256.
        """
        if not self.is_sealed(key, kind):
            return None
        path = self.folder(key) / name
        if key in self._verified or name in self._intact.get(key, ()):
            return path
        if self._look(key, lambda folder: check_file(folder, self._description(key), name)) is None:
            return None
        self._intact[key] = (*self._intact.get(key, ()), name)
        return path

    def read(self, key: str, name: str, kind: str | None = None) -> bytes | None:
        """Return the checked content of a file; None where the object is absent; else as `path`."""
        if not self.is_sealed(key, kind):
            return None
        return self._look(key, lambda folder: read_file(folder, self._description(key), name))

    def check(self, key: str, kind: str | None = None) -> bool:
        """Check an object now, and return whether it is as it was written; else it is set aside."""
        description = self._look(key, lambda folder: _described(check_seal(folder, key, kind)))
        if description is None:
            return False
        self.trust(key, description["kind"])
        return True

    def trust(self, key: str, kind: str) -> None:
        """Take an object that this process wrote, or has checked, for verified."""
        self._verified[key] = kind

    def forget(self, key: str) -> None:
        """Forget what was found out about an object."""
        for entries in (self._verified, self._sealed, self._intact):
            entries.pop(key, None)
        if self._last_description is not None and self._last_description[0] == key:
            self._last_description = None

    def _look(self, key: str, look: Callable[[Path], Result]) -> Result | None:
        """Return what `look` returns for an object's folder.

        Where it raises Damaged, the object is set aside, and None returned.
        """
        folder = self.folder(key)
        try:
            with explained(folder, "read"):
                return look(folder)
        except Damaged as damage:
            self.forget(key)
            # absent: another process set it aside, or somebody deleted it while it was read
            if self.has(key):
                self._set_aside(key, str(damage))
            return None

    def _description(self, key: str) -> dict[str, Any]:
        """Return the description of an object. Raises Damaged."""
        if self._last_description is None or self._last_description[0] != key:
            self._last_description = (key, check_sizes(self.folder(key), key))
        return self._last_description[1]

    def _folder_name(self, key: str) -> str:
        # Text, since joining and parsing paths took an eighth of the time of a large study's rerun.
        return f"{self._root}/objects/{checked_name(key)[:2]}/{key}"


def _described(description: dict[str, Any]) -> dict[str, Any]:
    """Return a description whose key is that of the work it describes. Raises Damaged."""
    check_source(description)
    return description
