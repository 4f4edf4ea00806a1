"""The run folder: the results of a study for people, in formats that every tool reads."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any

from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store import checksums
from lotteryfw.store.files import atomic_write, explained, file_name

_MARK = "resolved.toml"
_LOCK = ".lock"
_LEFTOVERS = {
    "analyses.jsonl", "checksums.json", "curves.jsonl", "errors", "events.jsonl", "levels.csv",
    "manifest.json", "tickets", "workers.log",
}  # fmt: skip
"""What a run may leave behind where its folder was deleted while it ran."""
REBUILD = "run the recipe again: it rebuilds the folder from the store"


@dataclass(frozen=True)
class LevelRow:
    """A row of levels.csv: one training of one variant at one level.

    Losses are in nats per example, accuracies in [0, 1].

    `variant` is "ticket" or the name of a control, `status` "done" or "diverged" (then the figures
    may be None). `layer_densities` reads "fc1.weight=0.8;…", `key` is the training's object in the
    store. `learned` is true where that training learned the mask. `axes` are the cell's coordinates
    in the recipe's grid, a column of labels each after the others; a row without a value there has
    no such axis. `axis_values` are the same coordinates as one JSON object; of a component it has
    `use` and the options that differ from their defaults.
    """

    study: str
    cell: str
    variant: str
    seed: int
    level: int
    status: str
    density: float
    requested_density: float
    weights_kept: int
    weights_total: int
    steps: int
    early_stop_step: int
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    early_validation_loss: float | None
    early_validation_accuracy: float | None
    early_test_loss: float | None
    early_test_accuracy: float | None
    layer_densities: str
    key: str
    learned: bool = False
    axis_values: Mapping[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)


_COLUMNS = {column.name: str(column.type) for column in fields(LevelRow) if column.name != "axes"}


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
        lock = FileLock(folder.path / _LOCK)
        with explained(folder.path, "locked"):
            try:
                lock.acquire(timeout=0)
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

    def exists(self) -> bool:
        """Return whether this is the folder of a run."""
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

    def refuse_damaged(self) -> None:
        """Raise StoreError where files that a report reads are not as the run wrote them.

        The tickets are only looked for. While a run is under way, or after it was killed, files
        may be newer than their checksums.
        """
        digests = checksums.read_checksums(self.path)
        if digests is None:
            if (self.path / checksums.NAME).exists():
                raise StoreError(f"{self.path}: damaged: {checksums.NAME} (unreadable); {REBUILD}")
            return
        damage = checksums.damaged_files(self.path, digests, hash_tickets=False)
        if (self.path / checksums.UNDER_WAY).exists():
            damage = [item for item in damage if item.what == "missing"]
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
                return dict(json.loads(path.read_bytes()))
            except FileNotFoundError:
                return {}
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path}: not a manifest: {error}; {REBUILD}") from error

    def write_levels(self, rows: Sequence[LevelRow]) -> None:
        """Write levels.csv anew. Floats are written so that they read back to the bit."""
        axes = list(dict.fromkeys(axis for row in rows for axis in row.axes))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*_COLUMNS, *axes])
        for row in rows:
            fixed = [_written(getattr(row, name)) for name in _COLUMNS]
            table.writerow([*fixed, *(row.axes.get(axis, "") for axis in axes)])
        atomic_write(self.path / "levels.csv", text.getvalue().encode())

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
                table = csv.reader(file)
                try:
                    return list(_rows(table))
                except (ValueError, csv.Error) as error:
                    raise StoreError(
                        f"{path}: line {table.line_num}: {error}; {REBUILD}"
                    ) from error

    def write_curves(self, curves: Iterable[Mapping[str, Any] | str]) -> None:
        """Writes curves.jsonl anew: a line for each row of levels.csv, with what was measured during its training.

        A figure that is not finite is written as null. A curve may be the line that it makes (see `strict_json`).
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
        self._write_lines("analyses.jsonl", [_noted(finding) for finding in findings])

    def read_findings(self) -> list[dict[str, Any]]:
        """Return the lines of analyses.jsonl; none where there is no file. Raises StoreError."""
        return list(self.each_finding())

    def each_finding(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_findings` returns, a line at a time."""
        for line in self._lines("analyses.jsonl", "findings"):
            # lines that were written before findings had a unit are numbers, as is what says none
            yield line | {"unit": line.get("unit", "number"), "value": _with_nan(line["value"])}

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Adds a line to events.jsonl: plain JSON data."""
        log = EventLog(self)
        log.append(event)
        log.close()

    def read_events(self) -> list[dict[str, Any]]:
        """Return the events that were written so far, without lines that were cut off or damaged. Raises StoreError."""
        return list(self.each_event())

    def each_event(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_events` returns, a line at a time."""
        path = self.path / "events.jsonl"
        with explained(path, "read"):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                return
            with file:
                for line in file:
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(event, dict):
                        yield event

    def _write_lines(self, name: str, lines: Iterable[Mapping[str, Any] | str]) -> None:
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
                        line = json.loads(text)
                        if not isinstance(line, dict):
                            raise ValueError("a line is not an object")
                        yield line
            except FileNotFoundError:
                return
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


class EventLog:
    """The events.jsonl of a run, kept open. Each event is written at once."""

    def __init__(self, folder: RunFolder):
        self._path = folder.path / "events.jsonl"
        self._file: io.FileIO | None = None

    def append(self, event: Mapping[str, Any]) -> None:
        """Add a line: plain JSON data. Raises StoreError."""
        with explained(self._path, "written"):
            self._opened().write(strict_json(event).encode() + b"\n")

    def close(self) -> None:
        """Close the file; a later event opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> io.FileIO:
        if self._file is not None and not self._is_there(self._file):
            self.close()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self._path, "a+")
            if not _ends_whole(self._file):
                self._file.write(b"\n")
        return self._file

    def _is_there(self, file: io.FileIO) -> bool:
        """Whether the open file is still the one of this name: somebody may have deleted the folder during the run."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False


def find_runs(folder: Path) -> list[RunFolder]:
    """Return the runs in a folder, by name: the folder itself, or those in it."""
    here = RunFolder(Path(folder))
    if here.exists():
        return [here]
    return [run for run in map(RunFolder, sorted(here.path.glob("*"))) if run.exists()]


def strict_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as strict JSON: a number that is not finite is written as null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    """Return the same plain data with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _noted(finding: Mapping[str, Any]) -> Mapping[str, Any]:
    """A finding with a note where its value has numbers that are not finite."""
    value = finding.get("value")
    values = value if isinstance(value, list | tuple) else [value]
    strange = {str(item) for item in values if isinstance(item, float) and not math.isfinite(item)}
    note = f"not finite: {', '.join(sorted(strange))}"
    return {**finding, "note": finding.get("note", note)} if strange else finding


def _with_nan(value: Any) -> Any:
    """A finding's value with NaN where the file has null."""
    if isinstance(value, list):
        return [math.nan if item is None else item for item in value]
    return math.nan if value is None else value


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(float(value))  # a numpy float's own repr names its type
    return "" if value is None else str(value)


def _rows(table: Iterator[list[str]]) -> Iterator[LevelRow]:
    header = next(table, [])
    width = len(_COLUMNS)
    if header[:width] != list(_COLUMNS):
        raise ValueError(f"the columns should begin with {', '.join(_COLUMNS)}")
    readers = [(name, _READERS[kind]) for name, kind in _COLUMNS.items()]
    axes = header[width:]
    for cells in table:
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells; the header has {len(header)}")
        fixed = {name: read(text) for (name, read), text in zip(readers, cells, strict=False)}
        coordinates = {
            axis: intern(text) for axis, text in zip(axes, cells[width:], strict=True) if text
        }
        yield LevelRow(**fixed, axes=coordinates)


def _optional_float(text: str) -> float | None:
    return float(text) if text else None


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


@lru_cache(maxsize=1000)
def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is not a JSON object")
    return value


# most texts stand in many rows, so each is kept in memory once
_READERS: dict[str, Callable[[str], Any]] = {
    "str": intern,
    "bool": _bool,
    "Mapping[str, Any]": _object,
    "int": int,
    "float": float,
    "float | None": _optional_float,
}


def _ends_whole(file: io.FileIO) -> bool:
    """Whether the file ends at the end of a line: a killed process may have left a part of one."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def ticket_name(cell: str, variant: str, level: int) -> str:
    """Return the name of a recorded ticket's file below `tickets`, without its suffix."""
    suffix = "" if variant == "ticket" else f"-{file_name(variant)}"
    return f"{file_name(cell)}/level-{level:02}{suffix}"
