"""Results of analyses, arranged for plotting by their shape, whatever the analysis is called.

Numbers of a network are plotted against its accuracy; numbers of pairs of cells make a matrix;
samples of weights make a scatter plot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from lotteryfw.report.data.density_sweeps import without_density
from lotteryfw.report.data.findings import Findings, LevelKey, Line, level_key, metric_of
from lotteryfw.report.data.grouping import varying_axes
from lotteryfw.report.data.series import TICKET, StudySeries
from lotteryfw.report.data.units import ACCURACY, Unit, density_range, percent
from lotteryfw.report.plots.dot_plot import DotPlot, DotRow
from lotteryfw.report.plots.single_level import WHOLE
from lotteryfw.report.plots.style import line_styles
from lotteryfw.store import LevelRow

DENSITY = "weights remaining"
_EQUAL = 0.05  # densities that differ by less than this share are one, but for rounding
_ROLES = ("before", "after", "kept")


@dataclass(frozen=True)
class ScatterPoint:
    """One training: a figure of its network, its test accuracy, and its name."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Scatter:
    """The objective's figure against another; the points of one group share a value of `axis`.

    `y_unit` is the unit of the objective's figure.
    """

    metric: str
    y_unit: Unit
    axis: str
    groups: dict[str, list[ScatterPoint]]

    @property
    def axis_name(self) -> str:
        """The axis without its table, for people."""
        return self.axis.rpartition(".")[2].replace("_", " ")


@dataclass(frozen=True)
class PairMatrix:
    """Figures of pairs of cells at one level over seeds, by (label, label of the other).

    A pair of one label twice is two seeds of it. `text` says in words where the pairs stand: at the
    densities of their networks and, where these differ, at a level.
    """

    text: str
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
        """The smallest and the largest finite weight: the ends of the diagonal."""
        weights = list(filter(isfinite, (*self.before, *self.after)))
        return [min(weights), max(weights)] if weights else [0.0, 0.0]

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
        # "" is the whole network
        if "" not in layers:
            continue
        # two names of equal numbers would be two equal panels
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
    rows: list[LevelRow] = []
    points: list[ScatterPoint] = []
    for series in study.parts:
        for row in series.rows:
            figure, accuracy = findings.number(row, metric), row.test_accuracy
            if figure is None or accuracy is None:
                continue
            # an analysis, or a figure of an objective, may be NaN in a training that is done
            if isfinite(figure) and isfinite(accuracy):
                label = labels[row.cell, row.variant]
                name = f"{label}, seed {row.seed}, {percent(row.density)} % of the weights"
                rows.append(row)
                points.append(ScatterPoint(figure, accuracy, name))
    if not points:
        return []

    # a plot for each axis, with the same points in other colours: which axis matters is to be seen
    plots = []
    for axis in _varying_axes(study, rows):
        groups: dict[str, list[ScatterPoint]] = {}
        for row, point in zip(rows, points, strict=True):
            groups.setdefault(_group(row, axis), []).append(point)
        plots.append(Scatter(metric, study.unit(ACCURACY), axis, groups))
    return plots


def _varying_axes(study: StudySeries, rows: Sequence[LevelRow]) -> list[str]:
    """Return the axes that have several values in these rows; [""] if there is none."""
    combinations = [without_density(row.axes, row.axis_values) for row in rows]
    # an axis that the first training lacks is no axis of all points
    axes = [axis for axis in varying_axes(combinations) if axis in combinations[0]]
    # the density of a sweep is not among them, as it was taken out of the labels
    if any(series.parts for series in study.series):
        axes.append(DENSITY)
    return axes or [""]


def _group(row: LevelRow, axis: str) -> str:
    if axis == DENSITY:
        return f"{percent(row.density)} %"
    if not axis:
        return row.variant
    return without_density(row.axes, row.axis_values).get(axis, "")


def pair_matrices(study: StudySeries, findings: Findings, analysis: str) -> list[PairMatrix]:
    """Return an analysis' numbers of pairs of tickets, a matrix for each level."""
    # A pair is named by its cells, so its tickets are meant. A control, such as a random mask,
    # would say nothing of them.
    labels: dict[str, str] = {}
    for (cell, variant), label in _row_labels(study).items():
        if variant == TICKET:
            labels[cell] = label
    levels: dict[int, list[Line]] = {}
    for line in findings.lines:
        is_pair = line["cell"] in labels and line["against"] in labels
        is_number = not line["layer"] and not isinstance(line["value"], list)
        if line["analysis"] != analysis or not is_pair or not is_number:
            continue
        if isfinite(line["value"]):
            levels.setdefault(line["level"], []).append(line)
    matrices = []
    for level in sorted(levels):
        text = _level_text(level, levels[level], study)
        matrices.append(_pair_matrix(text, levels[level], labels, findings))
    return matrices


def _level_text(level: int, lines: Sequence[Line], study: StudySeries) -> str:
    """Return the densities at which pairs stand in words, and their level where these differ."""
    # of both: a finding has the density of the first network of its pair
    cells: set[str] = set()
    densities: list[float] = []
    for line in lines:
        cells |= {line["cell"], line["against"]}
        densities.append(line["density"])
    for search in study.searches:
        for row in search.rows:
            if row.variant == TICKET and row.level == level and row.cell in cells:
                densities.append(row.density)
    densities.sort(reverse=True)
    text = f"{density_range(densities)} % of the weights"
    is_one_density = densities[0] - densities[-1] <= _EQUAL * densities[0]
    return text if is_one_density else f"level {level}: {text}"


def _pair_matrix(
    text: str, lines: Sequence[Line], labels: Mapping[str, str], findings: Findings
) -> PairMatrix:
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    units = {}
    paired: set[str] = set()
    for line in lines:
        # by label, so that the pairs of all seeds of two combinations are in one box
        pair = labels[line["cell"]], labels[line["against"]]
        values.setdefault(pair, {}).setdefault(line["figure"], []).append(line["value"])
        units[line["figure"]] = findings.unit(metric_of(line))
        paired.update(pair)

    # in the recipe's order: the order of the file is the one in which pairs were computed
    ordered = tuple(label for label in dict.fromkeys(labels.values()) if label in paired)
    return PairMatrix(text, ordered, units, values)


def weight_samples(study: StudySeries, findings: Findings) -> list[WeightSample]:
    """Return the samples of weights before and after training.

    There is one for each combination and layer, of its first seed.
    """
    lists: dict[tuple[LevelKey, str], dict[str, Line]] = {}
    for line in findings.lines:
        # by role and not by name, so that any plugin's samples are drawn
        role = line.get("role")
        if role in _ROLES and isinstance(line["value"], list):
            lists.setdefault((level_key(line), line["layer"]), {})[role] = line

    labels = _row_labels(study)
    samples: dict[tuple[str, str], WeightSample] = {}
    for ((cell, variant, _), layer), lines in lists.items():
        label = labels.get((cell, variant))
        # a series that is not shown, or a file that was cut off between the three lines
        if label is None or lines.keys() != set(_ROLES):
            continue
        # the three lines are of one level, so any of them has its seed and density
        before, after, kept = (lines[role] for role in _ROLES)
        sample = WeightSample(
            label,
            layer,
            kept["seed"],
            kept["density"],
            before["value"],
            after["value"],
            kept["value"],
        )
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
