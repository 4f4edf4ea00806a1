"""Makes a component from its options, then tries what all kinds promise, and what its own does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from lotteryfw.api.component import BUILD, Component
from lotteryfw.api.errors import ContractError, LotteryError, UsageError
from lotteryfw.api.kinds import kinds
from lotteryfw.recipe.pydantic_errors import problems
from lotteryfw.registry import Registry
from lotteryfw.search.jobs import digest
from lotteryfw.testkit import datasets, evaluation, learning, pruning, searching, training, updating
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fixtures import CLOCKS

TRIALS: dict[str, Callable[[ComponentTrial], None]] = {
    "search": searching.try_search,
    "criterion": pruning.try_criterion,
    "scope": pruning.try_scope,
    "mask1": pruning.try_mask1,
    "mask0": pruning.try_mask0,
    "rewind": pruning.try_rewind,
    "parametrization": learning.try_parametrization,
    "model": training.try_model,
    "initialiser": training.try_initialiser,
    "data": datasets.try_data,
    "augmentation": training.try_augmentation,
    "objective": evaluation.try_objective,
    "metric": evaluation.try_metric,
    "optimizer": training.try_optimizer,
    "schedule": training.try_schedule,
    "mask_update": updating.try_mask_update,
    "control": pruning.try_control,
    "analysis": evaluation.try_analysis,
}
"""The trial of each kind."""


def trial(cls: type[Component], options: Mapping[str, Any] | None = None) -> None:
    """Try a component on small, realistic inputs. Return if it keeps the promises of its kind.

    `options` are written as in a recipe; options that are left out have their default. Raises
    ContractError, which says what was broken; UsageError if options are missing or refused; Skipped
    for a data source without its files, which are looked for where recipes look ($LOTTERYFW_DATA, or
    the user's cache folder).
    """
    if not (isinstance(cls, type) and issubclass(cls, Component) and cls.kind in kinds()):
        raise UsageError(
            f"{cls!r} is no component class: it must subclass one of lotteryfw's kinds"
        )
    try_component(make_component(cls, options))


def try_component(component: Component) -> None:
    """Try a component that is made. Raises ContractError for everything that its code breaks with.

    Errors that it raises on purpose (LotteryError) pass through.
    """
    component_trial = ComponentTrial(component)
    try:
        _try_options(component_trial)
        TRIALS[component.kind](component_trial)
    except LotteryError:
        raise
    except (Exception, SystemExit) as error:
        # what it returned runs its code too: a generator, a gradient, a container of its own
        raise ContractError(
            f"{component.kind} '{component.use}': its trial ended with "
            f"{type(error).__name__}: {error}"
        ) from error


def make_component(
    cls: type[Component], written_options: Mapping[str, Any] | None = None
) -> Component:
    """Return a component with these options. Raises UsageError if some are missing or refused."""
    options = dict(written_options or {})
    if not cls.use:
        raise ContractError(
            f"{cls.kind} '{cls.__name__}': it has no name; it needs a line like `use = \"my_name\"`"
        )
    registry = Registry.load()
    missing = []
    for name, field in cls.model_fields.items():
        if not field.is_required() or name in options:
            continue
        # an option that is a component is tried with the default of its kind, a list with two
        kind = field.annotation
        is_list = get_origin(kind) is list
        if is_list:
            (kind,) = get_args(kind)
        default = None
        if isinstance(kind, type) and issubclass(kind, Component):
            default = registry.default(kind.kind)
        if default is None:
            missing.append(name)
        else:
            options[name] = [default.full_name] * 2 if is_list else default.full_name
    if missing:
        example = "{" + ", ".join(f'"{name}": …' for name in missing) + "}"
        raise UsageError(
            f"{cls.kind} '{cls.use}' has options without a default: {', '.join(missing)}; pass "
            f"them to its trial: trial({cls.__name__}, {example})"
        )
    try:
        return cls.model_validate(options, context={BUILD: registry.create_nested})
    except ValidationError as error:
        texts = []
        for problem in problems(error, options, cls.model_fields, f"{cls.kind} '{cls.use}'"):
            text = f"{'.'.join(map(str, problem.keys))} {problem.text}"
            texts.append(f"{text} ({problem.remedy})" if problem.remedy else text)
        raise UsageError(f"{cls.kind} '{cls.use}': {'; '.join(texts)}") from None
    except LotteryError:
        raise
    except (Exception, SystemExit) as error:
        # a validator of its own may raise anything
        raise ContractError(
            f"{cls.kind} '{cls.use}': its options could not be checked: "
            f"{type(error).__name__}: {error}"
        ) from error


def _try_options(trial: ComponentTrial) -> None:
    """Require a name, a summary, and options that cannot change and survive as plain data."""
    component = trial.component
    cls = type(component)
    trial.require(
        bool(cls.summary()),
        "it has no summary; write a docstring whose first line says what it does",
    )
    trial.require(
        bool(cls.model_config.get("frozen")),
        "it is not frozen; a component's options cannot change",
    )
    trial.require(
        cls.model_config.get("extra") == "forbid",
        'it accepts options that it does not have, misspelt ones too; leave `extra` at "forbid"',
    )
    reasons = trial.call("idle_options", on="its options")
    unknown = [name for name in reasons if name not in cls.model_fields]
    trial.require(
        not unknown, f"idle_options() on its options names {unknown}, of which it has none"
    )
    # components among the options need not be registered, so they are built again by their classes
    classes = {(nested.kind, nested.use): type(nested) for nested in component.nested()}

    def build(kind: str, entry: Mapping[str, Any]) -> Component:
        nested = dict(entry)
        nested_cls = classes[kind, nested.pop("use")]
        return nested_cls.model_validate(nested, context={BUILD: build})

    # recipes show options without a clock; jobs have every length in steps
    for clock in (None, CLOCKS[0]):
        try:
            options = component.options(clock)
            digest(options)
            copy = cls.model_validate(options, context={BUILD: build})
        except (Exception, SystemExit) as error:  # of pydantic, of json, or of a validator
            reason = (
                str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            )
            trial.require(
                False, f"it cannot be built again from its own options as plain data: {reason}"
            )
        trial.require(
            copy.options(clock) == options,
            f"built again from its options {options}, it has others",
        )
