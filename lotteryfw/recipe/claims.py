"""What a paper reports, in a form that a finished run can be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from lotteryfw.cell import CONTROLS
from lotteryfw.errors import nearest
from lotteryfw.recipe.expand import label, off_grid
from lotteryfw.recipe.schema import SLOTS, Table
from lotteryfw.recipe.slots import Slots
from lotteryfw.recipe.tree import Keys
from lotteryfw.recipe.words import Problem
from lotteryfw.steps import Step
from lotteryfw.views import Metrics

METRICS = tuple(each.name for each in fields(Metrics) if each.name != "curve")
"""The columns that a claim can be about."""
ARM = "arm"
"""The selector's key for "ticket" or the name of a control."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Selector = Mapping[str, Any]


def _metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"there is no metric '{name}'; {nearest(name, METRICS)}")
    return name


class Claim(Table):
    """One statement of a paper: either the mean of one selection lies above another's, or it has a value.

    A selector maps axes of the study's grid to labels as in `Cell.axes`; `arm` selects "ticket" (where it is left out)
    or a control. It means every cell, seed and level that it does not exclude.
    """

    text: str
    """The claim in words."""
    source: str
    """Paper and place in it."""
    study: str = ""
    """The study it is about; may be left out where there is one."""
    metric: Annotated[str, AfterValidator(_metric), Field(json_schema_extra={"enum": list(METRICS)})] = "test_accuracy"
    """Accuracies in [0, 1], losses in nats per example, steps in optimizer updates."""
    density: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    """The levels it is about: lowest and highest density (kept over all), both included."""
    higher: dict[str, Any] | None = None
    """Whose mean is above …"""
    lower: dict[str, Any] | None = None
    """… whose."""
    of: dict[str, Any] | None = None
    """Whose mean is …"""
    expect: float | None = None
    """… this, …"""
    tolerance: Annotated[float, Field(ge=0)] | None = None
    """… give or take this."""
    needs_length: Step | None = None
    """In shorter trainings the claim is not tested."""

    @model_validator(mode="after")
    def _one_form(self) -> Claim:
        order, value = (self.higher, self.lower), (self.of, self.expect, self.tolerance)
        is_order = None not in order and all(each is None for each in value)
        is_value = None not in value and order == (None, None)
        if not (is_order or is_value):
            raise ValueError("say either `higher` and `lower`, or `of`, `expect` and `tolerance`")
        if self.density[0] > self.density[1]:
            raise ValueError("`density` is [lowest, highest]")
        return self

    def selectors(self) -> dict[str, Selector]:
        """Those of `higher`, `lower` and `of` that are said."""
        said = {"higher": self.higher, "lower": self.lower, "of": self.of}
        return {name: selector for name, selector in said.items() if selector is not None}


def settled(claim: Claim, studies: Sequence[str], slots: Slots) -> tuple[Claim, Claim, list[Problem]]:
    """The claim with its study filled in, the same with the labels of cells in its selectors, and what is wrong.

    A selector need not match anything: a profile may have made the grid smaller, and then the claim is not tested.
    What it names has to exist all the same, so that a misspelling is found.
    """
    if not claim.study and len(studies) == 1:
        claim = claim.model_copy(update={"study": studies[0]})
    if claim.study not in studies:
        text = f"there is no study '{claim.study}'" if claim.study else "is required where there are several studies"
        return claim, claim, [Problem(("study",), text, nearest(claim.study, studies))]
    found: list[Problem] = []
    labelled: dict[str, dict[str, str]] = {}
    for name, selector in claim.selectors().items():
        labelled[name] = {}
        for path, value in selector.items():
            labelled[name][path], wrong = _selected(path, value, slots)
            found += [Problem((name, path, *each.keys), each.text, each.remedy) for each in wrong]
    return claim, claim.model_copy(update=labelled), found


def _selected(path: str, value: Any, slots: Slots) -> tuple[str, list[Problem]]:
    keys: Keys = tuple(path.split("."))
    if path == ARM:
        known = value in ("ticket", *CONTROLS)
        return str(value), [] if known else [
            Problem((), f"no arm {value!r}", nearest(str(value), ["ticket", *CONTROLS]))
        ]
    if problem := off_grid(keys):
        return "", [Problem((), *problem)]
    if keys in SLOTS and not (isinstance(value, str) and "(" in value):  # that would be a label already
        component, wrong = slots.component(SLOTS[keys], value)
        return (slots.label(component) if component else ""), wrong
    return label(keys, value, slots), []
