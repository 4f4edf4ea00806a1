"""The run folder: what a study leaves for people, in formats that every tool reads."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from sys import intern
from typing import Any

from lotteryfw.errors import StoreError, UsageError
from lotteryfw.store.files import atomic_write, explained

_MARK = "resolved.toml"


@dataclass(frozen=True)
class LevelRow:
    """A row of levels.csv: one training of one arm at one level. Losses in nats per example, accuracies in [0, 1].

    `arm` is "ticket" or the name of a control, `status` "done" or "diverged" (then the figures may be None).
    `layer_densities` reads "fc1.weight=0.8;…", `key` is the training's object in the store. `axes` are the cell's
    coordinates in the recipe's grid, a column each after the others; a row without a value there has no such axis.
    """

    study: str
    cell: str
    arm: str
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
    axes: dict[str, str] = field(default_factory=dict)


_COLUMNS = {column.name: str(column.type) for column in fields(LevelRow) if column.name != "axes"}


@dataclass(frozen=True)
class RunFolder:
    """A run's files: the recipe as given and resolved, manifest, levels, curves, events, tickets and errors.

    Writing raises StoreError where the disk is full or the folder went away.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, recipe_text: str, resolved_text: str) -> RunFolder:
        """Makes a run's folder, or reopens one. Raises UsageError where it cannot be written or holds other things."""
        folder = cls(Path(path))
        try:
            with explained(folder.path, "made"):
                folder.path.mkdir(parents=True, exist_ok=True)
                if not folder.exists() and any(not entry.name.startswith(".") for entry in folder.path.iterdir()):
                    raise UsageError(f"{path}: holds files that are not a run's: name a new or an empty folder")
                if folder.exists() and (folder.path / _MARK).read_text("utf-8") != resolved_text:
                    raise UsageError(f"{path}: holds the run of another study: name a new or an empty folder")
            atomic_write(folder.path / _MARK, resolved_text.encode())
            atomic_write(folder.path / "recipe.toml", recipe_text.encode())
        except StoreError as error:
            raise UsageError(str(error)) from error
        return folder

    def exists(self) -> bool:
        """Whether this is the folder of a run."""
        return (self.path / _MARK).is_file()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Writes manifest.json: plain JSON data."""
        atomic_write(self.path / "manifest.json", json.dumps(manifest, indent=2).encode())

    def read_manifest(self) -> dict[str, Any]:
        """What `write_manifest` wrote; empty where it has not yet. Raises StoreError."""
        path = self.path / "manifest.json"
        with explained(path, "read"):
            try:
                return dict(json.loads(path.read_bytes()))
            except FileNotFoundError:
                return {}
            except (ValueError, TypeError) as error:
                raise StoreError(f"{path}: not a manifest: {error}") from error

    def write_levels(self, rows: Sequence[LevelRow]) -> None:
        """Writes levels.csv anew. Floats are written so that they read back to the bit."""
        axes = list(dict.fromkeys(axis for row in rows for axis in row.axes))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*_COLUMNS, *axes])
        for row in rows:
            fixed = [_written(getattr(row, name)) for name in _COLUMNS]
            table.writerow([*fixed, *(row.axes.get(axis, "") for axis in axes)])
        atomic_write(self.path / "levels.csv", text.getvalue().encode())

    def read_levels(self) -> list[LevelRow]:
        """The rows of levels.csv; none where it is not there yet. Raises StoreError with the line that is wrong."""
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
                    raise StoreError(f"{path}: line {table.line_num}: {error}") from error

    def write_curves(self, curves: Sequence[Mapping[str, Any]]) -> None:
        """Writes curves.jsonl anew: a line for each row of levels.csv, with what was measured during its training."""
        atomic_write(self.path / "curves.jsonl", "".join(json.dumps(each) + "\n" for each in curves).encode())

    def read_curves(self) -> list[dict[str, Any]]:
        """What `write_curves` wrote; none where it has not yet. Raises StoreError."""
        return list(self.each_curve())

    def each_curve(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_curves` returns, a line at a time: a large run's curves take a gigabyte in memory."""
        return self._lines("curves.jsonl", "curves")

    def write_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Writes analyses.jsonl anew: a line for each finding of an analysis."""
        atomic_write(self.path / "analyses.jsonl", "".join(json.dumps(each) + "\n" for each in findings).encode())

    def read_findings(self) -> list[dict[str, Any]]:
        """What `write_findings` wrote; none where it has not yet. Raises StoreError."""
        return list(self.each_finding())

    def each_finding(self) -> Iterator[dict[str, Any]]:
        """Yield what `read_findings` returns, a line at a time."""
        for line in self._lines("analyses.jsonl", "findings"):
            # lines that were written before findings had a unit are numbers, as is what says none
            yield line | {"unit": line.get("unit", "number")}

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Adds a line to events.jsonl: plain JSON data."""
        path = self.path / "events.jsonl"
        with explained(path, "written"), path.open("a+b") as file:
            file.write(b"" if _ends_whole(file) else b"\n")
            file.write(json.dumps(event).encode() + b"\n")

    def _lines(self, name: str, what: str) -> Iterator[dict[str, Any]]:
        path = self.path / name
        with explained(path, "read"):
            try:
                with path.open(encoding="utf-8") as file:
                    for line in file:
                        yield json.loads(line)
            except FileNotFoundError:
                return
            except ValueError as error:
                raise StoreError(f"{path}: not {what}: {error}") from error

    def write_error(self, name: str, text: str) -> Path:
        """Writes errors/NAME.txt, for what is too long to tell on a terminal, and returns its path."""
        path = self.path / "errors" / f"{name}.txt"
        atomic_write(path, text.encode())
        return path

    def ticket_path(self, name: str) -> Path:
        """Where the ticket of this name belongs."""
        return self.path / "tickets" / f"{name}.safetensors"


def find_runs(folder: Path) -> list[RunFolder]:
    """The runs in a folder, by name: itself, or those that stand in it."""
    here = RunFolder(Path(folder))
    if here.exists():
        return [here]
    return [run for run in map(RunFolder, sorted(here.path.glob("*"))) if run.exists()]


def _written(value: str | int | float | None) -> str:
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
        coordinates = {axis: intern(text) for axis, text in zip(axes, cells[width:], strict=True) if text}
        yield LevelRow(**fixed, axes=coordinates)


def _optional_float(text: str) -> float | None:
    return float(text) if text else None


# most texts stand in many rows, so each is kept in memory once
_READERS: dict[str, Callable[[str], Any]] = {
    "str": intern,
    "int": int,
    "float": float,
    "float | None": _optional_float,
}


def _ends_whole(file: io.BufferedRandom) -> bool:
    """Whether the file ends at the end of a line: a killed process may have left a part of one."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
