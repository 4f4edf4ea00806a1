"""The claims of a recipe: statements of a paper that a finished run is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from lotteryfw.api.errors import nearest
from lotteryfw.api.metrics import Metrics
from lotteryfw.api.steps import Step
from lotteryfw.recipe.pydantic_errors import shown
from lotteryfw.recipe.schema import Table

METRICS = tuple(field.name for field in fields(Metrics) if field.name != "curve")
"""The columns that a claim can be about; an analysis' figure is "its name.the figure"."""
MEASURED = "metric"
"""The beginning of the names of the recipe's metrics: "metric.top_5"."""
VARIANT = "variant"
"""A side's key for "ticket" or the name of another variant, such as a control."""
NEAR = 0.05
"""A level is of the density that a claim names if it differs from it by less than this share."""

Share = Annotated[float, Field(ge=0, le=1)]


def _range_of_one(density: Any) -> Any:
    """Return a single density as the range from itself to itself; a range as it is."""
    if isinstance(density, list | tuple):
        return density
    if isinstance(density, bool) or not isinstance(density, int | float):
        raise ValueError(f"must be [lowest, highest], or one density, got {shown(density)}")
    return [density, density]


def _check_order(density: list[float]) -> list[float]:
    if density[0] > density[1]:
        raise ValueError("must be [lowest, highest], or one density")
    return density


_SHARE_SCHEMA = {"type": "number", "minimum": 0, "maximum": 1}
_RANGE_SCHEMA = {"type": "array", "items": _SHARE_SCHEMA, "minItems": 2, "maxItems": 2}
Density = Annotated[
    list[Share],
    Field(min_length=2, max_length=2),
    BeforeValidator(_range_of_one),
    AfterValidator(_check_order),
    WithJsonSchema({"anyOf": [_SHARE_SCHEMA, _RANGE_SCHEMA]}),
]
SideTable = Mapping[str, Any]
At = Literal["every level", "best level", "last level"]

SIDES = ("higher", "lower", "of", "like", "rises_with", "falls_with")
"""The keys of a claim that are sides."""
_FORMS = (
    ("higher", "lower"),
    ("higher", "lower", "tolerance", "tolerance_reason"),
    ("of", "expect", "tolerance", "tolerance_reason"),
    ("of", "like", "tolerance", "tolerance_reason"),
    ("of", "at_least"),
    ("of", "at_most"),
    ("of", "rises_along"),
    ("of", "rises_with"),
    ("of", "falls_with"),
)


def _check_metric(name: str) -> str:
    if name not in METRICS and "." not in name:
        raise ValueError(f"there is no metric '{name}'; {nearest(name, METRICS)}")
    return name


Metric = Annotated[
    str, AfterValidator(_check_metric), Field(json_schema_extra={"examples": list(METRICS)})
]


@dataclass(frozen=True)
class Side:
    """One side of a claim with everything that holds for it.

    `axes` maps axes of the study's grid to values, `density` is (lowest, highest), both included.
    """

    study: str
    metric: str
    density: tuple[float, float]
    at: At
    variant: str
    axes: Mapping[str, Any]

    def has_level(self, density: float) -> bool:
        """Return True if the side includes a level of this density."""
        low, high = self.density
        if low == high < 1:
            return abs(density - low) <= NEAR * low
        return low - 1e-9 <= density <= high + 1e-9  # decimals are not exact in binary


class SideOptions(Table):
    """The keys of a side that are no axes. Each stands for the claim's key of the same name."""

    study: str | None = None
    metric: Metric | None = None
    density: Density | None = None
    at: At | None = None
    variant: str | None = None


class Claim(Table):
    """One statement of a paper about one side, or about two.

    A side is a table. It maps axes of its study's grid to labels as in `Cell.axes`; `variant`
    selects "ticket" (where it is left out), a control, or another network that its search records.
    `study`, `metric`, `density` and `at` stand there, too, where they differ from the claim's own.
    A side means every cell and level that it does not exclude.
    """

    text: str
    """The claim in words. With `for_each`, `{key}` stands for the value of a key."""
    source: str
    """Paper and place in it."""
    published: str = ""
    """The number that the paper states, in words, for tables; left out: `expect` or the bound."""
    study: str = ""
    """The study it is about; may be left out if there is one."""
    metric: Metric = "test_accuracy"
    """A column of levels.csv (accuracies in [0, 1], losses in nats per example, steps in optimizer
    updates), among them those of the recipe's metrics, such as "metric.top_5" and
    "metric.train_accuracy", or a figure of an analysis of the study about the whole network, such as
    "mask_diagnostics.sign_agreement"."""
    density: Density = [0.0, 1.0]
    """The levels it is about: the lowest and the highest density (kept over all), both included,
    or one density, which means the level that differs from it by less than 5 %."""
    at: At = "every level"
    """The mean over those levels; or the level of the highest validation accuracy, chosen once for
    all seeds among those that were pruned; or the last level of each search."""
    higher: dict[str, Any] | None = None
    """The side whose mean is above that of `lower`."""
    lower: dict[str, Any] | None = None
    """The side whose mean is below that of `higher`."""
    of: dict[str, Any] | None = None
    """The side that the claim is about."""
    expect: float | None = None
    """The published value: the mean of `of` is this, up to `tolerance`."""
    like: dict[str, Any] | None = None
    """The mean of `of` is that of this side, up to `tolerance`."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """The largest difference, on either side, from `expect` or from the mean of `like`; with
    `higher` and `lower`, by how much `higher` may be the lower one all the same."""
    tolerance_reason: Annotated[str, Field(min_length=1)] | None = None
    """The reason for this tolerance, such as the paper's own spread."""
    at_least: float | None = None
    """A lower bound that the paper states for the mean of `of`."""
    at_most: float | None = None
    """An upper bound that the paper states for the mean of `of`."""
    rises_along: dict[str, Annotated[list[Any], Field(min_length=2)]] | None = None
    """A key of sides (an axis, `density` or `variant`) that `of` leaves out, with its values in order:
    the mean of `of` rises from each to the next."""
    rises_with: dict[str, Any] | None = None
    """A side whose figure rises with that of `of`, over the cells and levels of both."""
    falls_with: dict[str, Any] | None = None
    """A side whose figure falls as that of `of` rises, over the cells and levels of both."""
    needs_length: Step | None = None
    """The claim is not tested in shorter trainings; their numbers are shown all the same."""
    family: str = ""
    """The claims of one family are corrected together for their number, by Holm's method."""
    for_each: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Keys of sides with values: the claim is repeated for each value, or each combination. A key
    means every side that does not say it itself; "lower.criterion" means that of one side. Each key
    reaches a side, and no two values are equal."""
    untested: str = ""
    """The reason why this recipe does not test the claim; empty if it does."""

    @model_validator(mode="after")
    def _check_form(self) -> Claim:
        keys = {key for form in _FORMS for key in form}
        present = {key for key in keys if getattr(self, key) is not None}
        if present not in map(set, _FORMS):
            if {"tolerance"} <= present and "tolerance_reason" not in present:
                raise ValueError("`tolerance` needs its reason: say it in `tolerance_reason`")
            choices = ["`" + "` and `".join(form) + "`" for form in _FORMS]
            raise ValueError("say either " + ", or ".join(choices))
        if self.rises_along is not None and len(self.rises_along) != 1:
            raise ValueError("`rises_along` has one key")
        if self.needs_length is not None and self.needs_length.unit == "%":
            raise ValueError(
                "`needs_length` is a number of steps or epochs, such as 50000it or 30ep"
            )
        return self

    def side_tables(self) -> dict[str, SideTable]:
        """Return the sides that the claim has, as written, by their keys."""
        tables = {}
        for key in SIDES:
            table = getattr(self, key)
            if table is not None:
                tables[key] = table
        return tables

    def sides(self) -> dict[str, Side]:
        """Return the sides by their keys.

        Those of `rises_along` are called "1", "2", … in order.
        """
        if self.rises_along is None:
            return {key: self._side(table) for key, table in self.side_tables().items()}

        assert self.of is not None, "the form of such a claim"
        [(key, values)] = self.rises_along.items()
        sides = {}
        for number, value in enumerate(values, 1):
            sides[str(number)] = self._side({**self.of, key: value})
        return sides

    def _side(self, table: SideTable) -> Side:
        axes = {key: value for key, value in table.items() if key not in SideOptions.model_fields}
        low, high = _range_of_one(table.get("density", self.density))
        return Side(
            study=table.get("study", self.study),
            metric=table.get("metric", self.metric),
            density=(low, high),
            at=table.get("at", self.at),
            variant=table.get(VARIANT, "ticket"),
            axes=axes,
        )
