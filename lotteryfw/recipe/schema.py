"""The fixed parts of a recipe as pydantic models. The registry checks the components in its slots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from lotteryfw.api.errors import nearest
from lotteryfw.api.limits import CELLS, NAME
from lotteryfw.api.steps import Clock, Step
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.search.kernel_list import KERNELS
from lotteryfw.search.randomness import Randomness

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
LEVEL_KEYS = {"control_levels": "controls", "analysis_levels": "analyses"}
"""Keys that choose levels, by what they choose them for."""
OPTIONAL_SLOTS: dict[str, tuple[Keys, str]] = {
    "parametrization": (("parametrization",), "parametrization"),
    "scores": (("scores",), "initialiser"),
    "mask_optimizer": (("train", "mask_optimizer"), "optimizer"),
    "mask_update": (("train", "mask_update"), "mask_update"),
}
"""Components that only some searches use: by their names in a cell, their keys and kinds."""
SLOTS: dict[Keys, str] = (
    {(s,): s for s in TABLE_SLOTS}
    | {("train", s): s for s in TRAIN_SLOTS}
    | dict(OPTIONAL_SLOTS.values())
)
"""The paths of single components, with their kinds. `train.augment` and others are lists."""

STUDY_SLOTS = tuple(str(keys[0]) for keys in SLOTS if len(keys) == 1)
"""The keys of a study that are single components; the other paths begin with `train`."""

_NAME = "[a-z0-9_-]+"
ALTERNATIVES: Mapping[str, frozenset[str]] = {"evaluate": frozenset({"points", "every"})}
"""By table, two spellings of one value: one in a later table replaces the other in an earlier."""
TEXTS = frozenset({"name", "title", "about", "start"})
"""Keys of a recipe that are texts: a table laid over one gives it no options."""
POINTS = 100
"""`points` of a recipe that does not say."""


class Table(BaseModel):
    """A table of a recipe: no unknown keys, and no string where a number belongs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


def _distinct(values: list[Any]) -> list[Any]:
    # the same seed twice would be two cells of one name
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
    """The training of every network of a study."""

    length: Step
    """Length of a training."""
    batch: Annotated[int, Field(ge=1)]
    """Examples in a batch."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """The numbers that networks compute with, in training and in evaluation. Weights and their updates
    are float32 in each case. "fp16" needs a CUDA device."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts that each batch is computed in, one after the other, so that the activations of one part
    alone are in memory. Their gradients are added up for one update. A training has as many updates
    as without it."""
    objective: Component = None
    optimizer: Component = None
    schedule: Component = None
    mask_optimizer: Component = None
    """The optimizer of scores, for learned masks. If it is left out, it is `optimizer`."""
    mask_update: Component = None
    """The component that changes the mask during a training, for searches that have it changed."""
    augment: list[Component] = []
    """Changes to training images, in order."""


class Evaluate(Table):
    """When a training is evaluated, and what is measured at its end.

    Set one of `points` and `every`, or neither for 100 points.
    """

    points: Annotated[int, Field(ge=1)] | None = None
    """The share of a training between two evaluations: 15 is a fifteenth of it, rounded down to whole
    steps, so that a training may have more than 15 intervals."""
    every: Step | None = None
    """The length between two evaluations."""
    metrics: list[Component] = []
    """Metrics beside loss and accuracy, measured on the test set at the end of every training."""
    train: bool = False
    """Measure loss, accuracy and the metrics on the training set as well, without augmentation."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Evaluate:
        if self.points is not None and self.every is not None:
            raise ValueError("`points` and `every` say the same in two ways: give one of them")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the table with its defaults filled in, but for the metrics."""
        # one of the two, as a recipe may set only one
        if self.every:
            table: dict[str, Any] = {"every": str(self.every)}
        else:
            table = {"points": self.points or POINTS}
        return {**table, "train": True} if self.train else table

    def interval(self, clock: Clock) -> int:
        """Return the steps between two evaluations; 0 if `every` is less than one step."""
        if self.every:
            return clock.steps(self.every)
        return max(1, clock.total // (self.points or POINTS))


def _kernel(name: str) -> str:
    if name not in KERNELS:
        raise ValueError(f"there is no kernel '{name}'; {nearest(name, KERNELS)}")
    return name


Seed = Annotated[int, Field(ge=0)]


_RANGE = r"(\d{1,12})\.\.(\d{1,12})"


def listed(value: Any) -> Any:
    """Return the integers that "0..4" stands for, as a list; anything else as it is.

    Raises ValueError for a range that is empty, or longer than any list of a recipe may be.
    """
    match = re.fullmatch(_RANGE, value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ValueError(f"'{value}' is empty: write the smaller number first")
    # counted before the list is made
    if CELLS.exceeded_by(last - first + 1):
        raise ValueError(f"has {CELLS.excess(last - first + 1, 'numbers')} ({CELLS.remedy})")
    return list(range(first, last + 1))


_LIST = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
Numbers = Annotated[
    list[Annotated[int, Field(ge=0)]],
    Field(min_length=1),
    AfterValidator(_distinct),
    BeforeValidator(listed),
    WithJsonSchema({"anyOf": [_LIST, {"type": "string", "pattern": f"^{_RANGE}$"}]}),
]


class RandomnessTable(Table):
    """The seeds of single streams. An integer, or a list of integers as an axis of the grid.

    A stream that is left out has the cell's seed, one of `seeds`.
    """

    init: Seed | None = None
    """Draws first weights, and weights that are drawn afresh."""
    order: Seed | Literal["fresh", "same"] = "fresh"
    """Draws the order of training examples, and what modules such as dropout draw. An integer is
    its seed. "fresh" draws a new order at every level; "same" repeats that of the dense run."""
    across_levels: Literal["fresh", "same"] | None = None
    """"fresh" or "same", beside an `order` that is an integer. If it is left out, "fresh"."""
    augment: Seed | None = None
    """Draws augmentations."""
    ties: Seed | None = None
    """Decides which of the weights that tie at a threshold stay."""
    scores: Seed | None = None
    """Draws the first scores of masks that are learned, and masks drawn during a training."""

    @model_validator(mode="after")
    def _said_once(self) -> RandomnessTable:
        if self.across_levels and isinstance(self.order, str):
            raise ValueError(
                "`order` and `across_levels` say the same in two ways: give `across_levels` beside "
                "an order that is an integer"
            )
        return self

    def randomness(self) -> Randomness:
        """Return the seeds as a cell has them."""
        seed = None if isinstance(self.order, str) else self.order
        across_levels = self.order if isinstance(self.order, str) else self.across_levels
        return Randomness(
            init=self.init,
            order=seed,
            augment=self.augment,
            ties=self.ties,
            scores=self.scores,
            repeats_order=across_levels == "same",
        )


class Engine(Table):
    """The arithmetic that trainings are computed with."""

    kernel: Annotated[
        str, AfterValidator(_kernel), Field(json_schema_extra={"enum": list(KERNELS)})
    ] = "auto"
    """The kernel of every training. "auto" takes the fastest one that can do a job."""
    sparse_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Density below which the sparse kernel multiplies by a layer's unpruned weights alone. If it is
    left out, it is a fixed figure that depends only on whether numba is installed;
    `benchmarks/sparse_step.py` measures it."""
    memory_format: Literal["contiguous", "channels_last"] | None = None
    """The order of images and convolution kernels in memory. If it is left out, it is "contiguous" for
    float32, and "channels_last", which is faster, for another `train.precision`."""
    deterministic: bool = True
    """On a GPU, convolutions are computed by algorithms that repeat bit for bit. If it is false, cuDNN
    tries its algorithms and takes the fastest, and a training that is repeated differs by rounding."""
    activation_checkpointing: bool = False
    """Compute the activations inside the blocks of a network a second time in the backward pass, in
    place of keeping them: less memory, about a third more time, the same results."""

    devices: Annotated[int, Field(ge=1)] = 1
    """Devices that train one network together, each a share of every batch: GPUs, or processes on
    the CPU."""
    sync_batch_norm: bool = False
    """Beside several `devices`, normalise batches by the statistics of all shares in place of those
    of each."""

    def resolved(self) -> dict[str, Any]:
        """Return the table with its defaults filled in, but for options that came later."""
        # A run folder that was made before there was an option stays the folder of its recipe.
        return {"kernel": self.kernel, **self.model_dump(exclude_defaults=True)}

    compile: bool = False
    """Compile the forward and backward passes of trainings with `torch.compile`. Steps may be faster, and
    the first training of each network in a process begins with the minutes that the compiler takes."""

    def memory_format_for(self, precision: str) -> str:
        """Return the memory format of trainings in a precision."""
        if self.memory_format is not None:
            return self.memory_format
        return "contiguous" if precision == "float32" else "channels_last"


class StudyTable(Table):
    """The parts of a study. Those at the top of a recipe hold for all its studies."""

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
    """The component that learns masks, for searches that learn masks."""
    scores: Component = None
    """The initialiser that draws scores. If it is left out, the parametrization draws them."""
    train: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    start: str = ""
    """A file whose network every search starts from, in the place of drawn weights: a ticket, or a
    plain state dict as safetensors, with a path relative to the recipe; or "torchvision:resnet18":
    the weights that torchvision published, where their file is on this machine."""
    randomness: dict[str, Any] = {}
    seeds: Numbers = [0]
    """Each combination of the grid runs once with each seed: a list, or "0..4" for 0, 1, 2, 3 and 4."""
    analyses: list[Component] = []
    """The analyses of every finished search."""
    analysis_levels: Numbers | None = None
    """The levels that analyses are given beside level 0: a list, or "7..12". If it is left out, all."""
    controls: list[Component] = []
    """The networks that every ticket is compared with. Each name can be used once."""
    control_levels: Numbers | None = None
    """The levels whose tickets have controls: a list, or "7..12". If it is left out, all."""
    target: list[dict[str, Any]] = []
    """Other data, or other trainings, that every ticket is trained on as well."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Dotted paths, each with a list of values. A study has a cell for every combination of values."""


class RecipeFile(StudyTable):
    """A whole recipe."""

    name: Name
    title: str = ""
    about: str = ""
    """The purpose of the study, in as many words as it needs."""
    extends: str = ""
    """Another recipe that this one changes; its path is relative to this file."""
    plugins: list[str] = []
    """Local plugin files. They are code: whoever runs the recipe has to name each with --trust."""
    study: list[dict[str, Any]] = []
    """Studies that share what is written at the top; a merged recipe has them in `studies`."""
    studies: dict[Name, dict[str, Any]] = {}
    """The changes of each study, by its name."""
    profiles: dict[str, dict[str, Any]] = {}
    """Other versions of the whole recipe: the changes of each, by its name."""
    claim: list[dict[str, Any]] = []
    """The statements of the paper."""
