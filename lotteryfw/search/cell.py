"""A cell: one combination of a recipe's grid with one seed, everything resolved and validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lotteryfw.api.kinds import (
    Analysis,
    Augmentation,
    Control,
    DataSource,
    Initialiser,
    Mask0Action,
    Mask1Action,
    MaskCriterion,
    MaskUpdate,
    Metric,
    ModelFamily,
    Objective,
    Optimizer,
    Parametrization,
    RewindPolicy,
    Schedule,
    Scope,
    SearchAlgorithm,
)
from lotteryfw.api.metrics import Evaluation, FigureUnit
from lotteryfw.api.steps import Clock
from lotteryfw.search.randomness import Randomness, Seeds
from lotteryfw.search.start_file import ReadFile, StartFile, no_files


def figure_name(part: str, metric: str) -> str:
    """Return the name of a metric's figure over a part of the data, as results have it."""
    return metric if part == "test" else f"{part}_{metric}"


def named_figures(part: str, evaluation: Evaluation) -> dict[str, float]:
    """Return the figures of an evaluation by their names in results (see `Cell.metric_units`).

    Loss and accuracy over the test set are figures of the training.
    """
    # A copy: the object of the store is shared.
    figures = dict(evaluation.metrics)
    if part != "test":
        figures |= {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
    return {figure_name(part, name): value for name, value in figures.items()}


@dataclass(frozen=True)
class Target:
    """Other data, or another training, that the tickets of a cell are trained on as well.

    `cell` is the cell with what the target changes. `levels` are those whose tickets are trained;
    None: all. `written_at` is the file and the key that faults name.
    """

    name: str
    cell: Cell
    levels: frozenset[int] | None
    written_at: tuple[str, str]


@dataclass(frozen=True)
class ChosenLevels:
    """Levels that a recipe names. `written_at` is the file and the key that faults name."""

    levels: frozenset[int]
    written_at: tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """One combination of a grid with one seed: the components and settings of one search.

    `axes` are its coordinates in the grid, a short label for each dotted path; `axis_values` are
    the same as plain data (see `LevelRow`).
    """

    study: str
    id: str
    axes: Mapping[str, str]
    seed: int
    search: SearchAlgorithm
    criterion: MaskCriterion
    scope: Scope
    mask1: Mask1Action
    mask0: Mask0Action
    rewind: RewindPolicy
    model: ModelFamily
    initialiser: Initialiser
    data: DataSource
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule
    augment: tuple[Augmentation, ...]
    batch: int
    clock: Clock
    evaluate_every: int
    parametrization: Parametrization | None = None
    scores: Initialiser | None = None
    mask_optimizer: Optimizer | None = None
    mask_update: MaskUpdate | None = None
    kernel: str = "auto"
    sparse_below: float | None = None
    precision: str = "float32"
    memory_format: str = "contiguous"
    accumulate: int = 1
    devices: int = 1
    sync_batch_norm: bool = False
    activation_checkpointing: bool = False
    deterministic: bool = True
    compiled: bool = False
    metrics: tuple[Metric, ...] = ()
    evaluate_train: bool = False
    controls: tuple[Control, ...] = ()
    control_levels: ChosenLevels | None = None
    """The levels whose tickets have controls; None: all."""
    analyses: tuple[Analysis, ...] = ()
    analysis_levels: ChosenLevels | None = None
    """The levels that analyses are given beside level 0; None: all."""
    axis_values: Mapping[str, Any] = field(default_factory=dict)
    randomness: Randomness = field(default_factory=Randomness)
    start: StartFile | None = None
    targets: tuple[Target, ...] = ()
    read_file: ReadFile = no_files
    """Reads the files that its search names (`lab.load`)."""

    @property
    def seeds(self) -> Seeds:
        """The seeds of its streams, where a recipe may set them apart."""
        return self.randomness.seeds(self.seed)

    @property
    def evaluated_parts(self) -> tuple[str, ...]:
        """The parts of the data that every network is measured on once more after its training."""
        parts = ("test",) if self.metrics else ()
        return (*parts, "train") if self.evaluate_train else parts

    @property
    def metric_units(self) -> dict[str, FigureUnit]:
        """The names of the figures of these measurements, each with its unit."""
        units: dict[str, FigureUnit] = {}
        for part in self.evaluated_parts:
            # Those over the test set are figures of the training.
            if part != "test":
                units[figure_name(part, "loss")] = "number"
                units[figure_name(part, "accuracy")] = "share"
            for metric in self.metrics:
                units[figure_name(part, metric.name())] = metric.unit
        return units

    def has_controls(self, level: int) -> bool:
        """Return whether the tickets of a level have controls."""
        chosen = self.control_levels
        return bool(self.controls) and (chosen is None or level in chosen.levels)

    def is_analysed(self, level: int) -> bool:
        """Return whether analyses are given a level."""
        # Most compare with the dense network, level 0, so that one is never left out.
        chosen = self.analysis_levels
        return bool(self.analyses) and (chosen is None or level == 0 or level in chosen.levels)

    @property
    def variants(self) -> tuple[str, ...]:
        """The names that its levels are recorded under, in order.

        They are "ticket", the networks that its search compares tickets with, its controls, and its
        targets.
        """
        controls = [control.use for control in self.controls]
        targets = [target.name for target in self.targets]
        return ("ticket", *self.search.variants, *controls, *targets)
