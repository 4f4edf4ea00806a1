"""Results of analyses, arranged for plotting by their shape, whatever the analysis is called.

Numbers of a network are plotted against its accuracy; numbers of pairs of cells make a matrix;
samples of weights make a scatter plot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lotteryfw.report.data.density_sweeps import without_density
from lotteryfw.report.data.findings import Findings, LevelKey, Line, level_key, metric_of
from lotteryfw.report.data.series import TICKET, StudySeries, varying_axes
from lotteryfw.report.data.units import ACCURACY, Unit, percent, unit_of
from lotteryfw.report.plots.dot_plot import DotPlot, DotRow
from lotteryfw.report.plots.single_level import WHOLE
from lotteryfw.report.plots.style import line_styles
from lotteryfw.store import LevelRow

ACCURACY_UNIT = unit_of(ACCURACY)
"""The unit of the accuracies in scatter plots."""
DENSITY = "weights remaining"
_ROLES = ("before", "after", "kept")


@dataclass(frozen=True)
class ScatterPoint:
    """One training: a figure of its network, its test accuracy, and its name."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Scatter:
    """Accuracy against a figure; the points of one group share a value of `axis`."""

    metric: str
    axis: str
    groups: dict[str, list[ScatterPoint]]

    @property
    def axis_name(self) -> str:
        """The axis without its table, for people."""
        return self.axis.rpartition(".")[2].replace("_", " ")


@dataclass(frozen=True)
class PairMatrix:
    """Figures of pairs of cells at one level over seeds, by (label, label of the other).

    A pair of one label twice is two seeds of it. `density` is the mean over the pairs.
    """

    density: float
    labels: tuple[str, ...]
    units: dict[str, Unit]
    values: dict[tuple[str, str], dict[str, list[float]]]


@dataclass(frozen=True)
class WeightSample:
    """Weights of a layer before and after training, of one seed.

    `kept` is 1 where the mask of this density keeps the weight, else 0.
    """

    label: str
    layer: str
    seed: int
    density: float
    before: Sequence[float]
    after: Sequence[float]
    kept: Sequence[float]

    @property
    def ends(self) -> list[float]:
        """The smallest and the largest weight: the ends of the diagonal."""
        weights = (*self.before, *self.after)
        return [min(weights), max(weights)]

    def weights(self, kept: bool) -> list[tuple[float, float]]:
        """Return (before, after) of the weights that the mask keeps, or of the others."""
        pairs = []
        for before, after, is_kept in zip(self.before, self.after, self.kept, strict=True):
            if is_kept == kept:
                pairs.append((before, after))
        return pairs


def network_metrics(findings: Findings, analysis: str, distinct: bool = False) -> list[str]:
    """Return an analysis' metrics of whole networks.

    With `distinct`, a metric with exactly the numbers of an earlier one is left out.
    """
    metrics = []
    seen: list[Mapping[LevelKey, float]] = []
    for metric, layers in findings.metrics(analysis).items():
        if "" not in layers:
            continue
        numbers = findings.numbers[metric, ""]
        if not distinct or numbers not in seen:
            metrics.append(metric)
            seen.append(numbers)
    return metrics


def metric_by_layer(
    study: StudySeries, findings: Findings, metric: str, layers: Sequence[str]
) -> DotPlot:
    """Return a plot of a metric of the whole network and of its layers, for single levels."""
    rows = []
    for series, style in zip(study.series, line_styles(study.series), strict=True):
        spreads = {}
        for layer in layers:
            spread = findings.spread(series.points[0], metric, layer)
            if spread:
                spreads[layer or WHOLE] = spread
        if spreads:
            rows.append(DotRow(series.label, style, spreads))

    unit = findings.unit(metric)
    categories = tuple(layer or WHOLE for layer in layers)
    return DotPlot(unit.axis, unit, categories, tuple(rows))


def scatters(study: StudySeries, findings: Findings, metric: str) -> list[Scatter]:
    """Return accuracy against a metric, grouped by each axis that varies.

    A search of a density sweep has only the level that it ended at.
    """
    labels = _row_labels(study)
    points: list[tuple[LevelRow, ScatterPoint]] = []
    for series in study.parts:
        for row in series.rows:
            figure = findings.number(row, metric)
            if figure is not None and row.test_accuracy is not None:
                label = labels[row.cell, row.variant]
                name = f"{label}, seed {row.seed}, {percent(row.density)} % of the weights"
                points.append((row, ScatterPoint(figure, row.test_accuracy, name)))
    if not points:
        return []

    plots = []
    for axis in _varying_axes(study, [row for row, _ in points]):
        groups: dict[str, list[ScatterPoint]] = {}
        for row, point in points:
            groups.setdefault(_group(row, axis), []).append(point)
        plots.append(Scatter(metric, axis, groups))
    return plots


def _varying_axes(study: StudySeries, rows: Sequence[LevelRow]) -> list[str]:
    """Return the axes that have several values in these rows; [""] if there is none."""
    combinations = [without_density(row.axes, row.axis_values) for row in rows]
    # an axis that the first training lacks is no axis of all points
    axes = [axis for axis in varying_axes(combinations) if axis in combinations[0]]
    if any(series.parts for series in study.series):
        axes.append(DENSITY)
    return axes or [""]


def _group(row: LevelRow, axis: str) -> str:
    if axis == DENSITY:
        return f"{percent(row.density)} %"
    if not axis:
        return TICKET
    return without_density(row.axes, row.axis_values).get(axis, "")


def pair_matrices(study: StudySeries, findings: Findings, analysis: str) -> list[PairMatrix]:
    """Return an analysis' numbers of pairs of tickets, a matrix for each level."""
    labels = {
        cell: label for (cell, variant), label in _row_labels(study).items() if variant == TICKET
    }
    levels: dict[int, list[Line]] = {}
    for line in findings.lines:
        is_pair = line["cell"] in labels and line["against"] in labels
        is_number = not line["layer"] and not isinstance(line["value"], list)
        if line["analysis"] == analysis and is_pair and is_number:
            levels.setdefault(line["level"], []).append(line)
    return [_pair_matrix(levels[level], labels, findings) for level in sorted(levels)]


def _pair_matrix(
    lines: Sequence[Line], labels: Mapping[str, str], findings: Findings
) -> PairMatrix:
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    units = {}
    paired: set[str] = set()
    for line in lines:
        pair = labels[line["cell"]], labels[line["against"]]
        values.setdefault(pair, {}).setdefault(line["figure"], []).append(line["value"])
        units[line["figure"]] = findings.unit(metric_of(line))
        paired.update(pair)

    ordered = tuple(label for label in dict.fromkeys(labels.values()) if label in paired)
    return PairMatrix(fmean(line["density"] for line in lines), ordered, units, values)


def weight_samples(study: StudySeries, findings: Findings) -> list[WeightSample]:
    """Return the samples of weights before and after training.

    There is one for each combination and layer, of its first seed.
    """
    lists: dict[tuple[LevelKey, str], dict[str, Line]] = {}
    for line in findings.lines:
        role = line.get("role")
        if role in _ROLES and isinstance(line["value"], list):
            lists.setdefault((level_key(line), line["layer"]), {})[role] = line

    labels = _row_labels(study)
    samples: dict[tuple[str, str], WeightSample] = {}
    for ((cell, variant, _), layer), lines in lists.items():
        label = labels.get((cell, variant))
        if label is None or lines.keys() != set(_ROLES):
            continue
        line = lines["kept"]
        values = (lines[role]["value"] for role in _ROLES)
        sample = WeightSample(label, layer, line["seed"], line["density"], *values)
        earlier = samples.get((label, layer))
        if earlier is None or sample.seed < earlier.seed:
            samples[label, layer] = sample

    order = [series.label for series in study.searches]
    return sorted(samples.values(), key=lambda sample: order.index(sample.label))


def _row_labels(study: StudySeries) -> dict[tuple[str, str], str]:
    """Return the label of each search by cell and variant."""
    labels = {}
    for search in study.searches:
        for row in search.rows:
            labels[row.cell, search.variant] = search.label
    return labels
