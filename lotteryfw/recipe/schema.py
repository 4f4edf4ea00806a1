"""The fixed parts of a recipe as pydantic models. What stands in a component's slot is the registry's business."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lotteryfw.api.errors import nearest
from lotteryfw.api.limits import NAME
from lotteryfw.api.steps import Clock, Step
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.search.cell import KERNELS

TABLE_SLOTS = (
    "data",
    "model",
    "initialiser",
    "search",
    "criterion",
    "scope",
    "mask1",
    "mask0",
    "rewind",
)
"""The components that are tables of a study. A slot is called what its kind is called."""
TRAIN_SLOTS = ("objective", "optimizer", "schedule")
OPTIONAL_SLOTS: dict[str, tuple[Keys, str]] = {
    "parametrization": (("parametrization",), "parametrization"),
    "scores": (("scores",), "initialiser"),
    "mask_optimizer": (("train", "mask_optimizer"), "optimizer"),
}
"""Components that only some searches use: by their names in a cell, their keys and kinds."""
SLOTS: dict[Keys, str] = (
    {(s,): s for s in TABLE_SLOTS}
    | {("train", s): s for s in TRAIN_SLOTS}
    | dict(OPTIONAL_SLOTS.values())
)
"""Every place of a single component, with its kind. `train.augment`, `controls` and `analyses` are lists."""

_NAME = "[a-z0-9_-]+"
WHOLE_TABLES = ("evaluate",)
"""Tables with two spellings of one value: a later table replaces an earlier one as a whole."""
POINTS = 100
"""Measurements in a training, where a recipe does not say."""


class Table(BaseModel):
    """A table of a recipe: no unknown keys, and no string where a number belongs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


def _distinct(values: list[Any]) -> list[Any]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{value!r} is listed twice")
    return values


def _name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"'{name}' is not a valid name: use lower-case letters, digits, - and _")
    if NAME.exceeded_by(len(name)):
        raise ValueError(f"has {NAME.excess(len(name), 'characters')}: file names are made of it")
    return name


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{_NAME}$"})]
Component = Any
"""A name, or a table of `use` and options."""


class Train(Table):
    """How every network of a study is trained."""

    length: Step
    """Length of a training."""
    batch: Annotated[int, Field(ge=1)]
    """Examples in a batch."""
    objective: Component = None
    optimizer: Component = None
    schedule: Component = None
    mask_optimizer: Component = None
    """The optimizer of scores, where masks are learned; left out: `optimizer`."""
    augment: list[Component] = []
    """Changes to training images, in order."""


class Evaluate(Table):
    """How often a training is measured: give one of the two, or neither for 100 points."""

    points: Annotated[int, Field(ge=1)] | None = None
    """How many times in a training."""
    every: Step | None = None
    """How far apart."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Evaluate:
        if self.points is not None and self.every is not None:
            raise ValueError("`points` and `every` say the same in two ways: give one of them")
        return self

    def interval(self, clock: Clock) -> int:
        """Steps from one measurement to the next; below one only where `every` is, which no recipe may say."""
        return (
            clock.steps(self.every)
            if self.every
            else max(1, clock.total // (self.points or POINTS))
        )


def _kernel(name: str) -> str:
    if name not in KERNELS:
        raise ValueError(f"there is no kernel '{name}'; {nearest(name, KERNELS)}")
    return name


class Engine(Table):
    """How trainings are computed."""

    kernel: Annotated[
        str, AfterValidator(_kernel), Field(json_schema_extra={"enum": list(KERNELS)})
    ] = "auto"
    """The arithmetic of every training: "auto" lets each job have the fastest that can do it."""
    sparse_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Density below which the sparse kernel multiplies a layer by its living weights alone; left out: a fixed figure
    that depends only on whether numba is installed. `lotteryfw doctor --calibrate` measures it."""


class StudyTable(Table):
    """What a study is made of: the top of a recipe says it for all studies, a study for itself."""

    data: Component = None
    model: Component = None
    initialiser: Component = None
    search: Component = None
    criterion: Component = None
    scope: Component = None
    mask1: Component = None
    mask0: Component = None
    rewind: Component = None
    parametrization: Component = None
    """How a mask is learned, for searches that learn masks."""
    scores: Component = None
    """The initialiser that scores are drawn by; left out: the parametrization's own."""
    train: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    seeds: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)
    ] = [0]
    """Each combination of the grid runs once with each of these."""
    analyses: list[Component] = []
    """What is looked at in every finished search."""
    controls: list[Component] = []
    """What every ticket is compared with; each name may stand there once."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Dotted path to the values it takes in turn; the values of all paths are multiplied."""


class RecipeFile(StudyTable):
    """A whole recipe."""

    name: Name
    title: str = ""
    about: str = ""
    """What the study is about, as long as need be."""
    extends: str = ""
    """Another recipe, relative to this file, that this one changes."""
    plugins: list[str] = []
    """Plugin files of one's own; they are code, so whoever runs the recipe has to trust each by name."""
    study: list[dict[str, Any]] = []
    """Several grids over one base; a merged recipe has them in `studies`."""
    studies: dict[Name, dict[str, Any]] = {}
    """By name, what a study changes."""
    profiles: dict[str, dict[str, Any]] = {}
    """By name, what another version of the whole changes."""
    claim: list[dict[str, Any]] = []
    """What the paper reports."""
