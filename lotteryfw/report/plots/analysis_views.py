"""What analyses found, put together for charts: whatever the analysis, by the shape of what it found.

Numbers of a network stand beside its accuracy; numbers of a pair of cells make a square; samples of weights a cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lotteryfw.report.data.density_sweeps import without_density
from lotteryfw.report.data.findings import Findings, Line, metric_of, place_of
from lotteryfw.report.data.series import TICKET, Study
from lotteryfw.report.data.units import Unit, percent, unit_of
from lotteryfw.report.plots.dot_plot import Dots, Row
from lotteryfw.report.plots.style import looks_of
from lotteryfw.report.tables.single_level import WHOLE
from lotteryfw.store import LevelRow

ACCURACY = "test_accuracy"
DENSITY = "weights remaining"
_WEIGHTS = ("w_i", "w_f", "kept")


@dataclass(frozen=True)
class Mark:
    """One training: a figure found of its network, its test accuracy, and what it is called."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Cloud:
    """Accuracy against a figure, a mark for each training; the marks of one group have one value of `axis`."""

    metric: str
    axis: str
    groups: dict[str, list[Mark]]


@dataclass(frozen=True)
class Square:
    """What was found of pairs of cells at one level, over seeds: figures by (label, label of the other).

    A pair of one label are different seeds of it. `density` is the mean of what the level keeps.
    """

    density: float
    labels: tuple[str, ...]
    units: dict[str, Unit]
    values: dict[tuple[str, str], dict[str, list[float]]]


@dataclass(frozen=True)
class Sample:
    """Weights of a layer before and after training, and whether the mask of this density keeps them; of one seed."""

    label: str
    layer: str
    seed: int
    density: float
    before: Sequence[float]
    after: Sequence[float]
    kept: Sequence[float]


def whole_metrics(findings: Findings, analysis: str, distinct: bool = False) -> list[str]:
    """What an analysis found of whole networks; `distinct`: without those that say just what an earlier one does."""
    metrics = [metric for metric, layers in findings.metrics(analysis).items() if "" in layers]
    first = {tuple(findings.numbers[metric, ""].items()): metric for metric in reversed(metrics)}
    return [metric for metric in metrics if not distinct or metric in first.values()]


def by_layer_of(study: Study, findings: Findings, metric: str, layers: Sequence[str]) -> Dots:
    """A figure of the whole network and of its layers, for a study without curves."""
    rows = []
    for series, look in zip(study.series, looks_of(study.series), strict=True):
        told = {
            layer or WHOLE: findings.spread(series.points[0], metric, layer) for layer in layers
        }
        rows.append(
            Row(series.label, look, {place: spread for place, spread in told.items() if spread})
        )
    unit = findings.unit(metric)
    return Dots(
        unit.axis,
        unit,
        tuple(layer or WHOLE for layer in layers),
        tuple(row for row in rows if row.spreads),
    )


def clouds(study: Study, findings: Findings, metric: str) -> list[Cloud]:
    """Accuracy against a figure, coloured by each axis that varies. Of a sweep, where each search ended."""
    names = {
        (row.cell, series.variant): series.label for series in study.searches for row in series.rows
    }
    marks: list[tuple[LevelRow, Mark]] = []
    for series in study.parts:
        for row in series.rows:
            figure = findings.number(row, metric)
            if figure is not None and row.test_accuracy is not None:
                name = f"{names[row.cell, row.variant]}, seed {row.seed}, {percent(row.density)} % of the weights"
                marks.append((row, Mark(figure, row.test_accuracy, name)))
    if not marks:
        return []
    coordinates = [without_density(row.axes) for row, _ in marks]
    axes = [axis for axis in coordinates[0] if len({each.get(axis) for each in coordinates}) > 1]
    if any(series.parts for series in study.series):
        axes.append(DENSITY)
    found = []
    for axis in axes or [""]:
        groups: dict[str, list[Mark]] = {}
        for row, mark in marks:
            groups.setdefault(_value(row, axis), []).append(mark)
        found.append(Cloud(metric, axis, groups))
    return found


def squares(study: Study, findings: Findings, analysis: str) -> list[Square]:
    """What an analysis found of pairs of cells, a square for each level."""
    labels = {
        row.cell: series.label
        for series in study.searches
        if series.variant == TICKET
        for row in series.rows
    }
    levels: dict[int, list[Line]] = {}
    for line in findings.lines:
        known = line["cell"] in labels and line["against"] in labels
        if (
            line["analysis"] == analysis
            and known
            and not line["layer"]
            and not isinstance(line["value"], list)
        ):
            levels.setdefault(line["level"], []).append(line)
    found = []
    for _, lines in sorted(levels.items()):
        values: dict[tuple[str, str], dict[str, list[float]]] = {}
        for line in lines:
            pair = labels[line["cell"]], labels[line["against"]]
            values.setdefault(pair, {}).setdefault(line["figure"], []).append(line["value"])
        named = {label for pair in values for label in pair}
        units = {line["figure"]: findings.unit(metric_of(line)) for line in lines}
        density = fmean(line["density"] for line in lines)
        found.append(
            Square(
                density,
                tuple(each for each in dict.fromkeys(labels.values()) if each in named),
                units,
                values,
            )
        )
    return found


def samples(study: Study, findings: Findings) -> list[Sample]:
    """The samples of weights before and after training: of each combination and layer, its first seed."""
    lists: dict[tuple[tuple[str, str, int], str], dict[str, Line]] = {}
    for line in findings.lines:
        if line["figure"] in _WEIGHTS and isinstance(line["value"], list):
            lists.setdefault((place_of(line), line["layer"]), {})[line["figure"]] = line
    order = [series.label for series in study.searches]
    labels = {
        (row.cell, series.variant): series.label for series in study.searches for row in series.rows
    }
    found: dict[tuple[str, str], Sample] = {}
    for ((cell, variant, _), layer), said in lists.items():
        label = labels.get((cell, variant))
        if label is None or said.keys() != set(_WEIGHTS):
            continue
        line = said["kept"]
        sample = Sample(
            label, layer, line["seed"], line["density"], *(said[name]["value"] for name in _WEIGHTS)
        )
        known = found.get((label, layer))
        if known is None or sample.seed < known.seed:
            found[label, layer] = sample
    return sorted(found.values(), key=lambda sample: order.index(sample.label))


def accuracy_unit() -> Unit:
    """The unit of the accuracies in clouds."""
    return unit_of(ACCURACY)


def _value(row: LevelRow, axis: str) -> str:
    if axis == DENSITY:
        return f"{percent(row.density)} %"
    return without_density(row.axes).get(axis, "") if axis else TICKET
