"""levels.csv: a row for each training of each level."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from sys import intern
from typing import Any, TextIO

from lotteryfw.store.strict_json import parse_json

METRIC = "metric."
"""The beginning of the columns of further metrics. No axis of a grid begins like that."""


@dataclass(frozen=True)
class LevelRow:
    """A row of levels.csv: one training of one variant at one level.

    Losses are in nats per example, accuracies in [0, 1].

    `variant` is "ticket", one of the search's `variants`, or the name of a control or target;
    `status` is "done" or "diverged" (then the figures may be None). `layer_densities` reads
    "fc1.weight=0.8;…", `key` is the training's object in the store. `learned` is true where that
    training learned the mask. `axes` are the cell's coordinates in the recipe's grid, a column of
    labels each after the others; a row without a value there has no such axis. `axis_values` are the
    same coordinates as one JSON object; of a component it has `use` and the options that differ from
    their defaults. `metrics` are the figures that the recipe asks for beside these, a column
    `metric.NAME` each before the axes.
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
    metrics: Mapping[str, float] = field(default_factory=dict)

    def figure(self, column: str) -> float | None:
        """Return the figure in a column, "metric.NAME" included; None where the row has none."""
        if column.startswith(METRIC):
            return self.metrics.get(column.removeprefix(METRIC))
        value: float | None = getattr(self, column)
        return value

    def densities_by_layer(self) -> dict[str, float]:
        """Return the density of each layer; empty for a network without prunable layers."""
        densities: dict[str, float] = {}
        # "conv1.weight=0.1;fc.weight=0.05"
        for text in filter(None, self.layer_densities.split(";")):
            layer, _, density = text.rpartition("=")
            densities[layer] = float(density)
        return densities


_COLUMNS: dict[str, str] = {}
"""The columns that every table has, each with its type."""
for column in fields(LevelRow):
    if column.name not in ("metrics", "axes"):
        _COLUMNS[column.name] = str(column.type)


def level_table(rows: Sequence[LevelRow]) -> str:
    """Return the text of levels.csv. Floats are written so that they read back to the bit."""
    axes: dict[str, None] = {}
    metrics: dict[str, None] = {}
    for row in rows:
        axes |= dict.fromkeys(row.axes)
        metrics |= dict.fromkeys(row.metrics)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*_COLUMNS, *(METRIC + name for name in metrics), *axes])
    for row in rows:
        fixed = [_written(getattr(row, name)) for name in _COLUMNS]
        coordinates = [row.axes.get(axis, "") for axis in axes]
        figures = [_written(row.metrics.get(name)) for name in metrics]
        table.writerow(fixed + figures + coordinates)
    return text.getvalue()


def read_level_table(file: TextIO) -> list[LevelRow]:
    """Return the rows of an open levels.csv. Raises ValueError with the line that is wrong."""
    table = csv.reader(file)
    try:
        return list(_rows(table))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {table.line_num}: {error}") from error


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
    others = header[width:]
    for cells in table:
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells; the header has {len(header)}")
        fixed = {name: read(text) for (name, read), text in zip(readers, cells, strict=False)}
        figures: dict[str, float] = {}
        coordinates: dict[str, str] = {}
        for name, text in zip(others, cells[width:], strict=True):
            if text and name.startswith(METRIC):
                figures[name.removeprefix(METRIC)] = float(text)
            elif text:
                coordinates[name] = intern(text)
        yield LevelRow(**fixed, metrics=figures, axes=coordinates)


def _optional_float(text: str) -> float | None:
    return float(text) if text else None


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


@lru_cache(maxsize=1000)
def _object(text: str) -> dict[str, Any]:
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is not a JSON object")
    return value


# Most texts stand in many rows, so each is kept in memory once.
_READERS: dict[str, Callable[[str], Any]] = {
    "str": intern,
    "bool": _bool,
    "Mapping[str, Any]": _object,
    "int": int,
    "float": float,
    "float | None": _optional_float,
}
