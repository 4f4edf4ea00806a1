"""Typed rows of a run's files, which become data frames or a table in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lotteryfw.api.errors import UsageError
from lotteryfw.store import METRIC, LevelRow, LoadedTicket, load_ticket

if TYPE_CHECKING:
    import pandas
    import polars

Row = TypeVar("Row")
Record = Mapping[str, Any]
"""A row of a data frame, by column."""

_SHOWN_ROWS = 20
"""Rows of a notebook's table: more would push the notebook off the screen."""


class Rows(list[Row], Generic[Row]):
    """Typed rows, in the order of their file.

    `records` returns the rows of a data frame that one of these stands for; `to_pandas` and
    `to_polars` return it. In a notebook the first rows are shown as a table.
    """

    def __init__(self, rows: Iterable[Row], records: Callable[[Row], Iterable[Record]]):
        super().__init__(rows)
        self._records = records

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of a data frame, each with every column; None where a row has none."""
        records: list[Record] = []
        columns: dict[str, None] = {}
        for row in self:
            for record in self._records(row):
                records.append(record)
                columns |= dict.fromkeys(record)
        # the grid of another study may have other axes: every record gets all columns
        return [{**dict.fromkeys(columns), **record} for record in records]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas DataFrame. Raises UsageError without pandas."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError(_missing("pandas")) from error
        return pandas.DataFrame(self.records())

    def to_polars(self) -> polars.DataFrame:
        """Return a polars DataFrame. Raises UsageError without polars."""
        try:
            import polars
        except ImportError as error:
            raise UsageError(_missing("polars")) from error
        # every row decides a column's type: the first ones of a column may all be None
        return polars.DataFrame(self.records(), infer_schema_length=None)

    def _repr_html_(self) -> str:
        shown = Rows(self[:_SHOWN_ROWS], self._records).records()
        note = f"<p>{len(self):,} rows"
        note += (
            f", of which the first {_SHOWN_ROWS} are shown</p>"
            if len(self) > len(shown)
            else "</p>"
        )
        return (
            html_table(list(shown[0]) if shown else [], [list(row.values()) for row in shown])
            + note
        )


def _missing(package: str) -> str:
    return f'to_{package} needs {package}: pip install "lotteryfw[{package}]"'


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table for a notebook, every text escaped."""
    lines = [_html_row("th", head)]
    for row in rows:
        lines.append(_html_row("td", row))
    return f"<table>{''.join(lines)}</table>"


def _html_row(tag: str, cells: Sequence[Any]) -> str:
    line = ""
    for cell in cells:
        # names come from recipes, which may come from strangers
        text = "" if cell is None else escape(str(cell))
        line += f"<{tag}>{text}</{tag}>"
    return f"<tr>{line}</tr>"


def level_rows(rows: Iterable[LevelRow]) -> Rows[LevelRow]:
    """Return the rows of levels.csv. A frame has a column for each axis and each metric."""
    return Rows(rows, _level_records)


def _level_records(row: LevelRow) -> list[Record]:
    record = asdict(row)
    axes = record.pop("axes")
    figures = record.pop("metrics")
    del record["axis_values"]
    for name, value in figures.items():
        record[METRIC + name] = value
    return [record | axes]


@dataclass(frozen=True)
class CurveRow:
    """The measurements during one training: a line of curves.jsonl.

    The lists have an entry for each evaluation; None where nothing was measured. `extra` has the
    further figures of the training's kernel, and `units` says of these "share" or "number".
    """

    cell: str
    variant: str
    level: int
    step: tuple[int, ...] = field(repr=False)
    train_loss: tuple[float | None, ...] = field(repr=False)
    validation_loss: tuple[float | None, ...] = field(repr=False)
    validation_accuracy: tuple[float | None, ...] = field(repr=False)
    extra: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict, repr=False)
    units: Mapping[str, str] = field(default_factory=dict, repr=False)


_CURVE_LISTS = ("step", "train_loss", "validation_loss", "validation_accuracy")


def curve_rows(lines: Iterable[Mapping[str, Any]]) -> Rows[CurveRow]:
    """Return the lines of curves.jsonl. A frame has a row for each evaluation of a training."""
    return Rows(map(_curve_row, lines), _curve_records)


def _curve_row(line: Mapping[str, Any]) -> CurveRow:
    units = line.get("units", {})

    def measured(name: str) -> tuple[Any, ...]:
        # the trainings of some kernels measure nothing of this name
        return tuple(line.get(name, ()))

    return CurveRow(
        line["cell"],
        line["variant"],
        line["level"],
        step=measured("step"),
        train_loss=measured("train_loss"),
        validation_loss=measured("validation_loss"),
        validation_accuracy=measured("validation_accuracy"),
        extra=dict(zip(units, map(measured, units), strict=True)),
        units=units,
    )


def _curve_records(row: CurveRow) -> list[Record]:
    names = [*_CURVE_LISTS, *row.extra]
    lists = [*(getattr(row, name) for name in _CURVE_LISTS), *row.extra.values()]
    position = {"cell": row.cell, "variant": row.variant, "level": row.level}
    # strict: a damaged line, whose lists differ in length, would shift figures to other steps
    return [position | dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


@dataclass(frozen=True)
class FindingRow:
    """A result of an analysis: a line of analyses.jsonl.

    `layer` is empty for the whole network, and `against` names the cell of a comparison. A value
    that was not finite is NaN, and `note` says what it was.
    """

    study: str
    cell: str
    axes: Mapping[str, str]
    seed: int
    variant: str
    level: int
    density: float
    analysis: str
    figure: str
    layer: str
    against: str
    unit: str
    value: float | tuple[float, ...] = field(repr=False)
    role: str = ""
    note: str = ""


_FINDING_KEYS = [column.name for column in fields(FindingRow)]


def finding_rows(lines: Iterable[Mapping[str, Any]]) -> Rows[FindingRow]:
    """Return the lines of analyses.jsonl. A frame has a column for each axis of the grid."""
    return Rows(map(_finding_row, lines), _finding_records)


def _finding_row(line: Mapping[str, Any]) -> FindingRow:
    value = line["value"]
    # a key of a later version is not one of this row's
    entries = {name: line[name] for name in _FINDING_KEYS if name in line}
    return FindingRow(**entries | {"value": tuple(value) if isinstance(value, list) else value})


def _finding_records(row: FindingRow) -> list[Record]:
    # no asdict: it would copy the values of every sample of weights
    record = dict(vars(row))
    axes = record.pop("axes")
    return [record | axes]


@dataclass(frozen=True)
class TicketRow:
    """A ticket file of a run, with its row of levels.csv."""

    path: Path
    row: LevelRow = field(repr=False)

    def load(self) -> LoadedTicket:
        """Return the ticket. Raises StoreError where its file is damaged or gone."""
        return load_ticket(self.path)


def ticket_rows(rows: Iterable[TicketRow]) -> Rows[TicketRow]:
    """Return the ticket files of a run. A frame has the columns of levels.csv and the path."""
    return Rows(rows, _ticket_records)


def _ticket_records(ticket: TicketRow) -> list[Record]:
    (record,) = _level_records(ticket.row)
    return [{"path": str(ticket.path), **record}]
