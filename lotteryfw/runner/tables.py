"""The checksums of the files in a run's folder: those of an earlier run, and this run's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import Any

from lotteryfw.store import RunFolder
from lotteryfw.store.checksums import (
    NAME,
    Damage,
    damaged_files,
    describe,
    digest_of,
    file_digest,
    read_checksums,
    write_checksums,
)
from lotteryfw.store.files import explained
from lotteryfw.store.folder import TABLES

_KEY = re.compile(r"\w[\w.-]*", re.ASCII)


class Seals:
    """The checksums of a run's folder.

    A file that differs from its checksum is never read: the run writes all files again, from the
    recipe and the store. It is reported as damage, except where the earlier run was killed and so
    may have written it after the checksums.
    """

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._digests: dict[str, str] = {}
        self._damaged: set[str] = set()
        self._changed: set[str] = set()
        self._own: set[str] = set()

    def begin(self, report: Callable[[str], None]) -> None:
        """Check the files of an earlier run, report damage in one line, and mark the folder in use."""
        folder = self._folder
        recorded = read_checksums(folder.path)
        was_killed = folder.mark_under_way()
        if recorded is None:
            damage = self._unsealed()
            # Without checksums, nothing tells a whole table from a damaged one.
            self._damaged = set(TABLES)
        else:
            self._digests = recorded
            damage = damaged_files(folder.path, recorded)
            self._damaged = {item.name for item in damage}
        # Files that are newer than their checksums are what a kill leaves, and no damage.
        if was_killed:
            damage = [item for item in damage if self._is_no_kill(item)]
        if damage:
            report(
                f"{folder.path}: damaged, and rebuilt from the recipe and the store: "
                f"{describe(damage)}"
            )
        self._own = {"resolved.toml", "recipe.toml"}
        self._changed = set(self._own)

    def _is_no_kill(self, damage: Damage) -> bool:
        """Return whether a run that was killed cannot have left this damage.

        It writes files whole, and the checksums last.
        """
        if damage.what == "missing":
            return damage.name != NAME
        return damage.what == "unreadable" or self._folder.unreadable(damage.name)

    def _unsealed(self) -> list[Damage]:
        """Return the damage of a folder without readable checksums; none where it is new."""
        path = self._folder.path
        if (path / NAME).exists():
            return [Damage(NAME, "unreadable")]
        return [Damage(NAME, "missing")] if any((path / name).exists() for name in TABLES) else []

    def intact(self, name: str) -> bool:
        """Return whether a file is as an earlier run wrote it."""
        return name in self._digests and name not in self._damaged

    def is_intact(self, path: Path) -> bool:
        """As `intact`, for the path of a file."""
        return self.intact(path.relative_to(self._folder.path).as_posix())

    def found_again(self, path: Path) -> None:
        """Note that a file of an earlier run is one of this run's as it is."""
        self._own.add(path.relative_to(self._folder.path).as_posix())

    def keys_before(self) -> set[str]:
        """Return the keys that the manifest of the earlier run lists; none where it is unreadable."""
        keys = self._manifest_before().get("keys", [])
        if not isinstance(keys, list):
            return set()
        # The keys become names of files, so nothing else in a manifest may pass for one.
        return {key for key in keys if isinstance(key, str) and _KEY.fullmatch(key)}

    def invocations_before(self) -> list[Any]:
        """Return the invocations that the manifest of the earlier run lists, as plain data."""
        invocations = self._manifest_before().get("invocations", [])
        return invocations if isinstance(invocations, list) else []

    def folder_id_before(self) -> str:
        """Return the `id` that the manifest of the earlier run has; empty where there is none."""
        folder_id = self._manifest_before().get("id", "")
        return folder_id if isinstance(folder_id, str) else ""

    def _manifest_before(self) -> dict[str, Any]:
        """Return the manifest of the earlier run; empty where it is unreadable."""
        if self._folder.unreadable("manifest.json"):
            return {}
        return self._folder.read_manifest()

    def changed(self, path: Path) -> None:
        """Note that this run wrote a file."""
        self._changed.add(path.relative_to(self._folder.path).as_posix())

    def write(self) -> None:
        """Write checksums.json anew, right after the tables. Raises StoreError."""
        self._changed |= set(TABLES)
        self._own |= self._changed
        for name in self._changed:
            digest = file_digest(self._folder.path / name)
            if digest is None:  # deleted meanwhile: the next run finds it missing
                digest = self._digests.get(name, digest_of(b""))
            self._digests[name] = digest
        self._changed = set()
        write_checksums(self._folder.path, self._digests)

    def forget_stale_tickets(self, keep: Set[str]) -> list[Path]:
        """Return the tickets of an earlier run that this one did not find or write again.

        They have no checksum any more. `keep` names cells whose tickets stay, as folders below
        `tickets`.
        """
        current = self._own | self._changed
        folder = self._folder.path
        names = set(self._digests)
        # A run that was killed may have left some without a checksum.
        for path in folder.glob("tickets/*/level-*.safetensors"):
            names.add(path.relative_to(folder).as_posix())
        stale = []
        for name in sorted(names - current):
            parts = Path(name).parts
            is_ticket = len(parts) == 3 and parts[0] == "tickets" and ".." not in parts
            if is_ticket and parts[1] not in keep:
                stale.append(folder / name)
                self._digests.pop(name, None)
        return stale

    def end(self) -> None:
        """Note that the folder is whole: no file is newer than its checksum."""
        self._folder.unmark()


def delete_files(paths: Iterable[Path]) -> None:
    """Delete files that may be gone already. Raises StoreError."""
    for path in paths:
        with explained(path, "deleted"):
            path.unlink(missing_ok=True)
