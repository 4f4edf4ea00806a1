"""The face of the trials: makes the component from its options, then asks what all kinds, and its kind, promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from lotteryfw.api.component import Component
from lotteryfw.api.errors import UsageError
from lotteryfw.api.kinds import kinds
from lotteryfw.recipe.pydantic_errors import problems
from lotteryfw.search.jobs import digest
from lotteryfw.testkit import cutting, judging, learning, searching, training
from lotteryfw.testkit.fixtures import CLOCKS
from lotteryfw.testkit.subject import Subject

TRIALS: dict[str, Callable[[Subject], None]] = {
    "search": searching.try_search,
    "criterion": cutting.try_criterion,
    "scope": cutting.try_scope,
    "mask1": cutting.try_mask1,
    "mask0": cutting.try_mask0,
    "rewind": cutting.try_rewind,
    "parametrization": learning.try_parametrization,
    "model": training.try_model,
    "initialiser": training.try_initialiser,
    "data": training.try_data,
    "augmentation": training.try_augmentation,
    "objective": judging.try_objective,
    "optimizer": training.try_optimizer,
    "schedule": training.try_schedule,
    "control": cutting.try_control,
    "analysis": judging.try_analysis,
}
"""The trial of each kind."""


def trial(cls: type[Component], options: Mapping[str, Any] | None = None) -> None:
    """Puts a component to work on small, realistic inputs; returns when it keeps what its kind promises.

    `options` are written as in a recipe; what they leave out has its default. Raises ContractError, which says what
    was broken; UsageError where options are missing or refused; Skipped where a data source's files are not here
    (they are looked for where recipes look: $LOTTERYFW_DATA or the user's cache folder).
    """
    if not (isinstance(cls, type) and issubclass(cls, Component) and cls.kind in kinds()):
        raise UsageError(
            f"{cls!r} is no component class: it must subclass one of lotteryfw's kinds"
        )
    subject = Subject(_made(cls, dict(options or {})))
    _try_options(subject)
    TRIALS[cls.kind](subject)


def _made(cls: type[Component], options: dict[str, Any]) -> Component:
    missing = [
        name
        for name, field in cls.model_fields.items()
        if field.is_required() and name not in options
    ]
    if missing:
        example = "{" + ", ".join(f'"{name}": …' for name in missing) + "}"
        raise UsageError(
            f"{cls.kind} '{cls.use}' has options without a default: {', '.join(missing)}; pass them to its trial: "
            f"trial({cls.__name__}, {example})"
        )
    try:
        return cls.model_validate(options)
    except ValidationError as error:
        found = problems(error, options, cls.model_fields, f"{cls.kind} '{cls.use}'")
        told = "; ".join(
            f"{'.'.join(map(str, each.keys))} {each.text}"
            + (f" ({each.remedy})" if each.remedy else "")
            for each in found
        )
        raise UsageError(f"{cls.kind} '{cls.use}': {told}") from None


def _try_options(subject: Subject) -> None:
    """Every kind: it says what it is, cannot be changed, and can be built again from its options as plain data."""
    component = subject.component
    cls = type(component)
    subject.demand(bool(cls.use), 'it has no name; it needs a line like `use = "my_name"`')
    subject.demand(
        bool(cls.summary()),
        "it has no summary; write a docstring whose first line says what it does",
    )
    subject.demand(
        bool(cls.model_config.get("frozen")),
        "it is not frozen; a component's options cannot change",
    )
    for clock in (None, CLOCKS[0]):
        try:
            options = component.options(clock)
            digest(options)
            again = cls.model_validate(options)
        except ValueError as error:  # what pydantic and json raise
            subject.demand(
                False, f"it cannot be built again from its own options as plain data: {error}"
            )
        subject.demand(
            again.options(clock) == options,
            f"built again from its options {options}, it has others",
        )
