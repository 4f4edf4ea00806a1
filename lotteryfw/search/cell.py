"""A cell: one combination of a recipe's grid with one seed, everything resolved and validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lotteryfw.api.kinds import (
    Analysis,
    Augmentation,
    DataSource,
    Initialiser,
    Mask0Action,
    Mask1Action,
    MaskCriterion,
    ModelFamily,
    Objective,
    Optimizer,
    Parametrization,
    RewindPolicy,
    Schedule,
    Scope,
    SearchAlgorithm,
)
from lotteryfw.api.steps import Clock

KERNELS = ("auto", "reference", "fused", "sparse", "compact", "lockstep")
"""What a recipe can ask of the engine: to choose, or one kernel for every training."""

CONTROLS = {
    "untrained": "the ticket as it is, measured without any training",
    "reinit": "the ticket's mask over a fresh draw of the initial weights, trained from step 0",
    "random_mask": "a random mask of the same density in each layer, over the ticket's starting point",
    "random_mask_reinit": "a random mask of the same density in each layer, over a fresh draw, from step 0",
}
"""The comparisons that any search can carry along, by name. Of a ticket that was not trained they are not either."""


@dataclass(frozen=True)
class Cell:
    """What one search works with. `axes` are its coordinates in the grid: dotted path → short label."""

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
    kernel: str = "auto"
    sparse_below: float | None = None
    controls: tuple[str, ...] = ()
    analyses: tuple[Analysis, ...] = ()
