"""Studies with one level for each combination, such as learned masks: their variants and densities, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller

from lotteryfw.report.data.series import TICKET, Point, Series, Study, arm_label, labelled
from lotteryfw.report.data.stats import Spread
from lotteryfw.report.data.units import Unit, percent, unit_of
from lotteryfw.report.plots.dot_plot import Dots, Row
from lotteryfw.report.plots.style import HUES, LINES, Look, looks_of
from lotteryfw.report.tables.text_table import ABSENT, Sheet, cell, notes

EXPECTED, WHOLE = "expected", "whole network"
"""The density that was asked for or, of a mask that is sampled, that samples have on average; and the mask's own."""

_METRIC = "test_accuracy"
_EVEN = 0.01  # densities that differ by less than this share are told as one
_DENSITY = Unit("weights remaining, %", "weights remaining (%)", 100, 2, " %", " points")


def flat_sheets(study: Study) -> list[Sheet]:
    """Test accuracy by variant, and the densities of the tickets where they are not the same everywhere."""
    accuracy, density = accuracies(study, _METRIC), densities(study)
    shown = [_sheet(study, accuracy, last=_DENSITY.title)] if accuracy else []
    return [*shown, *([_sheet(study, density)] if density else [])]


def accuracies(study: Study, metric: str) -> Dots | None:
    """A metric by variant, a row for each combination."""
    variants = list(dict.fromkeys(series.variant for series in study.series))
    rows = []
    for label, look, own in _combinations(study):
        told = {
            arm_label(each.variant): spread
            for each in own
            if (spread := each.points[0].spread(metric))
        }
        rows.append(Row(label, look, told))
    return _dots(
        unit_of(metric).axis, unit_of(metric), [arm_label(variant) for variant in variants], rows
    )


def compared(study: Study, metric: str) -> Dots | None:
    """A metric as it is compared best: by variant or, where there is one variant, by the values of an axis."""
    if len({series.variant for series in study.series}) > 1:
        return accuracies(study, metric)
    return by_axis(study, unit_of(metric), methodcaller("spread", metric))


def by_axis(study: Study, unit: Unit, told: Callable[[Point], Spread | None]) -> Dots | None:
    """A figure of the tickets by the values of the axis that has most, a row for each combination of the others."""
    tickets = [series for series in study.series if series.variant == TICKET]
    axes = dict.fromkeys(name for each in tickets for name in each.axes)
    axis = max(axes, key=lambda name: len({each.axes.get(name) for each in tickets}), default="")
    others = [
        {name: value for name, value in each.axes.items() if name != axis} for each in tickets
    ]
    combinations = [dict(each) for each in dict.fromkeys(tuple(each.items()) for each in others)]
    alike = labelled([Series("", each, TICKET, ()) for each in combinations])
    rows = []
    for row, look in zip(alike, looks_of(alike), strict=True):
        own = [each for each, rest in zip(tickets, others, strict=True) if rest == row.axes]
        found = {
            each.axes.get(axis, TICKET): spread for each in own if (spread := told(each.points[0]))
        }
        rows.append(Row(row.label, look, found))
    places = list(dict.fromkeys(each.axes.get(axis, TICKET) for each in tickets))
    return _dots(unit.axis, unit, places, rows, axis.rpartition(".")[2].replace("_", " "))


def densities(study: Study) -> Dots | None:
    """Expected and kept weights of each combination's ticket, in all and by layer; None where all are kept alike."""
    rows = [
        Row(label, look, _densities(each.points[0]))
        for label, look, own in _combinations(study)
        for each in own
        if each.variant == TICKET and each.points[0].rows
    ]
    if all(_even([spread.mean for spread in row.spreads.values()]) for row in rows):
        return None
    return _dots(
        _DENSITY.axis,
        _DENSITY,
        list(dict.fromkeys(place for row in rows for place in row.spreads)),
        rows,
    )


def _combinations(study: Study) -> list[tuple[str, Look, list[Series]]]:
    """The series of each combination of the grid, under the label of its ticket."""
    found: dict[tuple[tuple[str, str], ...], list[Series]] = {}
    for series in study.series:
        found.setdefault(tuple(series.axes.items()), []).append(series)
    named = [
        next((each.label for each in own if each.variant == TICKET), own[0].label)
        for own in found.values()
    ]
    looks = [
        Look(HUES[place % len(HUES)], place // len(HUES) % LINES, place)
        for place in range(len(named))
    ]
    return list(zip(named, looks, found.values(), strict=True))


def _densities(point: Point) -> dict[str, Spread]:
    values: dict[str, list[float]] = {}
    for row in point.rows:
        layers = [each.rpartition("=") for each in row.layer_densities.split(";") if each]
        told = {
            EXPECTED: row.requested_density,
            WHOLE: row.density,
            **{name: float(kept) for name, _, kept in layers},
        }
        for name, value in told.items():
            values.setdefault(name, []).append(value)
    return {name: Spread.of(each) for name, each in values.items()}


def _even(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= _EVEN * max(values)


def _dots(
    title: str, unit: Unit, places: Sequence[str], rows: Sequence[Row], axis: str = ""
) -> Dots | None:
    rows = [row for row in rows if row.spreads]
    return Dots(title, unit, tuple(places), tuple(rows), axis) if rows else None


def _remaining(study: Study) -> dict[str, str]:
    """What is kept by each combination."""
    told = {}
    for label, _, own in _combinations(study):
        kept = sorted({row.density for each in own for row in each.rows})
        ends = dict.fromkeys((percent(kept[-1]), percent(kept[0]))) if kept else (ABSENT,)
        told[label] = "–".join(ends)
    return told


def _sheet(study: Study, dots: Dots, last: str = "") -> Sheet:
    """Rows and places as they are; `last` heads a column more, of what is kept."""
    seeds = len(study.seeds)
    over = f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed"
    remaining = _remaining(study)
    rows = [
        (row.label, *(cell(row.spreads.get(place), dots.unit, seeds) for place in dots.places))
        + ((remaining[row.label],) if last else ())
        for row in dots.rows
    ]
    head = ("series", *dots.places, *([last] if last else []))
    return Sheet(f"{study.name}: {dots.unit.title} ({over})", head, tuple(rows), notes(study, rows))
