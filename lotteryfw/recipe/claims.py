"""What a paper reports, in a form that a finished run can be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lotteryfw.api.errors import nearest
from lotteryfw.api.metrics import Metrics
from lotteryfw.api.steps import Step
from lotteryfw.recipe.expand import ExpandedStudy, check_grid_path, label
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import SLOTS, Table

METRICS = tuple(each.name for each in fields(Metrics) if each.name != "curve")
"""The columns that a claim can be about, beside "metric.NAME" for a metric of the recipe.

What an analysis finds is "its name.the figure"."""
MEASURED = "metric"
"""What stands before the name of a metric of the recipe."""
ARM = "variant"
"""The selector's key for "ticket" or the name of a control."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Selector = Mapping[str, Any]


def _metric(name: str) -> str:
    if name not in METRICS and "." not in name:
        raise ValueError(f"there is no metric '{name}'; {nearest(name, METRICS)}")
    return name


class Claim(Table):
    """One statement of a paper: the mean of one selection lies above another's, or equals it, or has a value.

    A selector maps axes of the study's grid to labels as in `Cell.axes`; `variant` selects "ticket" (where it is left out)
    or a control. It means every cell, seed and level that it does not exclude.
    """

    text: str
    """The claim in words."""
    source: str
    """Paper and place in it."""
    study: str = ""
    """The study it is about; may be left out where there is one."""
    metric: Annotated[
        str, AfterValidator(_metric), Field(json_schema_extra={"examples": list(METRICS)})
    ] = "test_accuracy"
    """A column of levels.csv (accuracies in [0, 1], losses in nats per example, steps in optimizer updates), among them
    those of the recipe's metrics, such as "metric.top_5" and "metric.train_accuracy", or what an
    analysis of the study found about the whole network, such as "mask_diagnostics.sign_agreement"."""
    density: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    """The levels it is about: lowest and highest density (kept over all), both included."""
    at: Literal["every level", "best level"] = "every level"
    """The mean over those levels, or for each seed the one of highest validation accuracy among those that were cut."""
    higher: dict[str, Any] | None = None
    """The selection whose mean is above that of `lower`."""
    lower: dict[str, Any] | None = None
    """The selection whose mean is below that of `higher`."""
    of: dict[str, Any] | None = None
    """The selection whose mean is compared with `expect`, `like`, `at_least` or `at_most`."""
    expect: float | None = None
    """The mean of `of` is this, up to `tolerance`."""
    like: dict[str, Any] | None = None
    """The mean of `of` is that of this selection, up to `tolerance`."""
    tolerance: Annotated[float, Field(ge=0)] | None = None
    """How far the mean may be from `expect` or from that of `like`."""
    at_least: float | None = None
    """The mean of `of` is this or more."""
    at_most: float | None = None
    """The mean of `of` is this or less."""
    needs_length: Step | None = None
    """In shorter trainings the claim is not tested."""

    @model_validator(mode="after")
    def _one_form(self) -> Claim:
        forms = (
            ("higher", "lower"), ("of", "expect", "tolerance"), ("of", "like", "tolerance"), ("of", "at_least"),
            ("of", "at_most"),
        )  # fmt: skip
        keys = {key for form in forms for key in form}
        present = {key for key in keys if getattr(self, key) is not None}
        if present not in map(set, forms):
            choices = ["`" + "` and `".join(form) + "`" for form in forms]
            raise ValueError("say either " + ", or ".join(choices))
        if self.density[0] > self.density[1]:
            raise ValueError("`density` is [lowest, highest]")
        return self

    def selectors(self) -> dict[str, Selector]:
        """Return the selectors that the claim has, by their keys."""
        selectors = {}
        for key in ("higher", "lower", "of", "like"):
            selector = getattr(self, key)
            if selector is not None:
                selectors[key] = selector
        return selectors


def resolve_claim(
    claim: Claim, studies: Mapping[str, ExpandedStudy], resolver: ComponentResolver
) -> tuple[Claim, Claim, list[Problem]]:
    """The claim with its study filled in, the same with the labels of cells in its selectors, and what is wrong.

    A selector need not match anything: a profile may have made the grid smaller, and then the claim is not tested. What
    it names has to exist all the same, so that a misspelling is found.
    """
    if not claim.study and len(studies) == 1:
        claim = claim.model_copy(update={"study": next(iter(studies))})
    if claim.study not in studies:
        text = (
            f"there is no study '{claim.study}'"
            if claim.study
            else "is required where there are several studies"
        )
        return claim, claim, [Problem(("study",), text, nearest(claim.study, studies))]
    study = studies[claim.study]
    found: list[Problem] = []
    analysis, _, figure = claim.metric.partition(".")
    if analysis == MEASURED:
        found += _unmeasured(figure, study)
    elif claim.metric not in METRICS and analysis not in study.analyses:
        known = resolver.offered("analysis")
        remedy = (
            f"add '{analysis}' to its analyses" if analysis in known else nearest(analysis, known)
        )
        found.append(
            Problem(
                ("metric",), f"the study '{study.name}' asks for no analysis '{analysis}'", remedy
            )
        )
    labelled: dict[str, dict[str, str]] = {}
    for name, selector in claim.selectors().items():
        labelled[name] = {}
        for path, value in selector.items():
            labelled[name][path], wrong = _selected(path, value, study.variants, resolver)
            found += [Problem((name, path, *each.keys), each.text, each.remedy) for each in wrong]
    return claim, claim.model_copy(update=labelled), found


def _unmeasured(figure: str, study: ExpandedStudy) -> list[Problem]:
    """Return a problem where the study measures no such figure."""
    if figure in study.metrics:
        return []
    text = f"the study '{study.name}' measures no '{figure}'"
    remedy = nearest(figure, study.metrics) or "name its metrics in evaluate.metrics"
    return [Problem(("metric",), text, remedy)]


def _selected(
    path: str, value: Any, variants: Sequence[str], resolver: ComponentResolver
) -> tuple[str, list[Problem]]:
    keys: Keys = tuple(path.split("."))
    if path == ARM:
        controls = [cls.use for cls in resolver.offered("control").values()]
        known = ["ticket", *variants, *controls]
        return str(value), [] if value in known else [
            Problem((), f"no variant {value!r}", nearest(str(value), known))
        ]
    if problem := check_grid_path(keys):
        return "", [Problem((), *problem)]
    if keys in SLOTS and not (
        isinstance(value, str) and "(" in value
    ):  # that would be a label already
        component, wrong = resolver.component(SLOTS[keys], value)
        return (resolver.label(component) if component else ""), wrong
    return label(keys, value, resolver), []
