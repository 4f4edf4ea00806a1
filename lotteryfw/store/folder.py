"""The run folder: the results of a study for people, in formats that every tool reads."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store import checksums
from lotteryfw.store.checksums import Damage
from lotteryfw.store.event_log import EventLog, read_events
from lotteryfw.store.files import atomic_write, explained, file_name
from lotteryfw.store.level_table import LevelRow, level_table, read_level_table
from lotteryfw.store.locks import RELEASE_SECONDS
from lotteryfw.store.strict_json import noted, parse_json, strict_json, with_nan

_MARK = "resolved.toml"
LOCK = ".lock"
"""Held by the process that writes into a run's folder."""
_LEFTOVERS = {
    "analyses.jsonl", "checksums.json", "curves.jsonl", "errors", "events.jsonl", "levels.csv",
    "manifest.json", "tickets", "workers.log",
}  # fmt: skip
"""What a run may leave behind where its folder was deleted while it ran."""
WRITTEN = (*sorted(_LEFTOVERS), "figures", "paper", "recipe.toml", "report.html", _MARK)
"""All that a run and its reports write into the folder."""
TABLES = ("levels.csv", "curves.jsonl", "analyses.jsonl", "manifest.json")
"""The files that a run rewrites as a whole, and that readers of its results need."""
REBUILD = "run the recipe again: it rebuilds the folder from the store"


@dataclass(frozen=True)
class RunFolder:
    """A run's files: recipe, resolved recipe, manifest, levels, curves, events, tickets, errors.

    Writing raises StoreError where the disk is full or the folder went away.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, recipe_text: str, resolved_text: str) -> RunFolder:
        """Make a run's folder, or reopen one.

        Raises UsageError where it cannot be written or holds other things.
        """
        folder = cls(Path(path))
        folder._refuse_others(resolved_text)
        try:
            atomic_write(folder.path / _MARK, resolved_text.encode())
            atomic_write(folder.path / "recipe.toml", recipe_text.encode())
        except StoreError as error:
            raise UsageError(str(error)) from error
        return folder

    @classmethod
    @contextmanager
    def claimed(cls, path: Path, resolved_text: str) -> Iterator[RunFolder]:
        """Hold the lock of a folder that `create` would make or reopen.

        So one process at a time writes there.

        Raises UsageError as `create` does, and StoreError where another process holds the lock.
        """
        from filelock import FileLock, Timeout

        folder = cls(Path(path))
        folder._refuse_others(resolved_text)
        # In the folder itself, so that runs with different stores exclude each other, too.
        lock = FileLock(folder.path / LOCK)
        with explained(folder.path, "locked"):
            try:
                lock.acquire(timeout=RELEASE_SECONDS)
            except Timeout:  # an OSError, too
                raise StoreError(
                    f"{path}: the run in this folder is under way in another process: "
                    "wait for it, or give this one another folder"
                ) from None
        try:
            yield folder
        finally:
            lock.release()

    def _refuse_others(self, resolved_text: str) -> None:
        """Make the folder.

        Raises UsageError where that is impossible or where it holds anything but this run.
        """
        wanted = resolved_text.encode()
        try:
            with explained(self.path, "made"):
                self.path.mkdir(parents=True, exist_ok=True)
                # the lock, and what systems leave in any folder (.DS_Store), are nobody's results
                names = {
                    entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")
                }
                if _MARK in names and (self.path / _MARK).read_bytes() == wanted:
                    return
            recorded = (checksums.read_checksums(self.path) or {}).get(_MARK)
        except StoreError as error:
            raise UsageError(str(error)) from error
        if recorded == checksums.digest_of(wanted):
            return  # this run's folder, whose resolved.toml was damaged or deleted
        if recorded or _MARK in names:
            raise UsageError(
                f"{self.path}: holds the run of another study: name a new or an empty folder"
            )
        if names - _LEFTOVERS:
            raise UsageError(
                f"{self.path}: holds files that are not a run's: name a new or an empty folder"
            )

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the folder of a run. Raises UsageError where there is none."""
        folder = cls(path)
        if not folder.exists():
            raise UsageError(f"{path}: not the folder of a run; `lotteryfw runs` lists them")
        return folder

    def exists(self) -> bool:
        """Return whether this is the folder of a run."""
        # either of the two: a run whose resolved.toml was deleted is damaged and not absent
        return (self.path / _MARK).is_file() or (self.path / checksums.NAME).is_file()

    def mark_under_way(self) -> bool:
        """Mark that a run writes here; return whether an earlier one was killed."""
        mark = self.path / checksums.UNDER_WAY
        with explained(mark, "written"):
            was_killed = mark.exists()
            mark.touch()
        return was_killed

    def unmark(self) -> None:
        """Take the mark of a run under way away."""
        with explained(self.path / checksums.UNDER_WAY, "deleted"):
            (self.path / checksums.UNDER_WAY).unlink(missing_ok=True)

    def damage(self) -> list[Damage]:
        """Return the files that a report reads and that are not as the run wrote them.

        The tickets are only looked for. While a run is under way, or after it was killed, files
        may be newer than their checksums, so only those that are missing or unreadable count.
        """
        digests = checksums.read_checksums(self.path)
        if digests is None and (self.path / checksums.NAME).exists():
            return [Damage(checksums.NAME, "unreadable")]
        # no checksums to compare with: only reading can show damage
        if digests is None:
            return self._unreadable_tables()
        # tickets are gigabytes in a large run, and a report reads none
        damage = checksums.damaged_files(self.path, digests, hash_tickets=False)
        if (self.path / checksums.UNDER_WAY).exists():
            missing = [item for item in damage if item.what == "missing"]
            return missing + self._unreadable_tables()
        return damage

    def _unreadable_tables(self) -> list[Damage]:
        return [Damage(name, "unreadable") for name in TABLES if self.unreadable(name)]

    def refuse_damaged(self) -> None:
        """Raise StoreError where there is `damage`."""
        damage = self.damage()
        if damage:
            raise StoreError(f"{self.path}: damaged: {checksums.describe(damage)}; {REBUILD}")

    def unreadable(self, name: str) -> bool:
        """Return whether one of the tables cannot be read at all."""
        readers = {
            "levels.csv": self.read_levels,
            "curves.jsonl": self.read_curves,
            "analyses.jsonl": self.read_findings,
            "manifest.json": self.read_manifest,
        }
        try:
            if name in readers:
                readers[name]()
        except StoreError:
            return True
        return False

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write manifest.json: plain JSON data."""
        atomic_write(self.path / "manifest.json", strict_json(manifest, indent=2).encode())

    def read_manifest(self) -> dict[str, Any]:
        """Return the content of manifest.json; empty where there is none. Raises StoreError."""
        path = self.path / "manifest.json"
        with explained(path, "read"):
            try:
                return dict(parse_json(path.read_bytes()))
            except FileNotFoundError:
                return {}
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path}: not a manifest: {error}; {REBUILD}") from error

    def write_levels(self, rows: Sequence[LevelRow]) -> None:
        """Write levels.csv anew. Floats are written so that they read back to the bit."""
        atomic_write(self.path / "levels.csv", level_table(rows).encode())

    def read_levels(self) -> list[LevelRow]:
        """Return the rows of levels.csv; none where there is no file.

        Raises StoreError with the line that is wrong.
        """
        path = self.path / "levels.csv"
        with explained(path, "read"):
            try:
                file = path.open(encoding="utf-8", newline="")
            except FileNotFoundError:
                return []
            with file:
                try:
                    return read_level_table(file)
                except ValueError as error:
                    raise StoreError(f"{path}: {error}; {REBUILD}") from error

    def write_curves(self, curves: Iterable[Mapping[str, Any] | str]) -> None:
        """Write curves.jsonl anew: a line for each row of levels.csv, measured during its training.

        A figure that is not finite is written as null. A curve may also be given as its line (see
        `strict_json`).
        """
        self._write_lines("curves.jsonl", curves)

    def read_curves(self) -> list[dict[str, Any]]:
        """Return the lines of curves.jsonl; none where there is no file. Raises StoreError."""
        return list(self.each_curve())

    def each_curve(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_curves` returns, a line at a time.

        A large run's curves take a gigabyte in memory.
        """
        return self._lines("curves.jsonl", "curves")

    def write_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Write analyses.jsonl anew: a line for each result of an analysis.

        A value that is not finite is written as null with a `note` that says what it was, and read
        back as NaN.
        """
        self._write_lines("analyses.jsonl", [noted(finding) for finding in findings])

    def read_findings(self) -> list[dict[str, Any]]:
        """Return the lines of analyses.jsonl; none where there is no file. Raises StoreError."""
        return list(self.each_finding())

    def each_finding(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_findings` returns, a line at a time."""
        for line in self._lines("analyses.jsonl", "findings"):
            if "value" not in line:
                path = self.path / "analyses.jsonl"
                raise StoreError(f"{path}: not findings: a line has no 'value'; {REBUILD}")
            # lines that were written before findings had a unit are numbers, as is what says none
            yield line | {"unit": line.get("unit", "number"), "value": with_nan(line["value"])}

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add a line to events.jsonl: plain JSON data. An `EventLog` adds many."""
        log = EventLog(self.path)
        log.append(event)
        log.close()

    def read_events(self) -> list[dict[str, Any]]:
        """Return the events written so far, but for damaged lines. Raises StoreError."""
        return list(self.each_event())

    def each_event(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_events` returns, a line at a time."""
        return read_events(self.path)

    def _write_lines(self, name: str, lines: Iterable[Mapping[str, Any] | str]) -> None:
        # encoded line by line: text and bytes of all lines at once would be twice the memory
        text = io.BytesIO()
        for line in lines:
            text.write((line if isinstance(line, str) else strict_json(line)).encode() + b"\n")
        atomic_write(self.path / name, text.getvalue())

    def _lines(self, name: str, what: str) -> Iterator[dict[str, Any]]:
        path = self.path / name
        with explained(path, "read"):
            try:
                with path.open(encoding="utf-8") as file:
                    for text in file:
                        line = parse_json(text)
                        if not isinstance(line, dict):
                            raise ValueError("a line is not an object")
                        yield line
            except FileNotFoundError:
                return  # no file is no line: a run is reported while it is under way, too
            except ValueError as error:
                raise StoreError(f"{path}: not {what}: {error}; {REBUILD}") from error

    def clear_errors(self) -> None:
        """Delete the tracebacks of an earlier run. Raises StoreError."""
        with explained(self.path / "errors", "cleared"):
            for path in (self.path / "errors").glob("*.txt"):
                path.unlink(missing_ok=True)

    def write_error(self, name: str, text: str) -> Path:
        """Write errors/NAME.txt, for text too long for a terminal, and return its path."""
        path = self.path / "errors" / f"{name}.txt"
        atomic_write(path, text.encode())
        return path

    def ticket_path(self, name: str) -> Path:
        """Return the path of the ticket of this name."""
        return self.path / "tickets" / f"{name}.safetensors"


def find_runs(folder: Path) -> list[RunFolder]:
    """Return the runs in a folder, by name: the folder itself, or those in it."""
    here = RunFolder(Path(folder))
    if here.exists():
        return [here]
    return [run for run in map(RunFolder, sorted(here.path.glob("*"))) if run.exists()]


def ticket_name(cell: str, variant: str, level: int) -> str:
    """Return the name of a recorded ticket's file below `tickets`, without its suffix."""
    suffix = "" if variant == "ticket" else f"-{file_name(variant)}"
    # two digits, so that a listing by name is in order of level
    return f"{file_name(cell)}/level-{level:02}{suffix}"
