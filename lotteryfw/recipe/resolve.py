"""Resolves entries of a recipe to components, and describes components as recipes write them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lotteryfw.api.component import BUILD, Component, plain_option
from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.errors import DataError, UsageError, nearest
from lotteryfw.api.functions import FUNCTION, ImportedFunction
from lotteryfw.api.kinds import DataSource, MaskUpdate, RewindPolicy, Schedule, SearchAlgorithm
from lotteryfw.api.labels import component_label
from lotteryfw.api.layers import LATEST
from lotteryfw.api.limits import NUMBER
from lotteryfw.api.steps import Clock, Step
from lotteryfw.api.tickets import RewindPoint
from lotteryfw.recipe.bounds import too_many_levels
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.local_plugins import offering_file
from lotteryfw.recipe.pydantic_errors import Problem, as_error, problems
from lotteryfw.recipe.start_files import start_file
from lotteryfw.registry import RegisteredComponent, Registry
from lotteryfw.search.start_file import StartFile

T = TypeVar("T")
Checked = tuple[T | None, list[Problem]]
"""A value, or None and the problems that prevent it."""


class ComponentResolver:
    """Resolves and checks entries. Answers are memoized: a grid asks for the same ones many times."""

    def __init__(self, registry: Registry, folder: Path, plugin_folders: Sequence[Path] = ()):
        """`folder` has the data sets; plugin files in `plugin_folders` are named in messages."""
        self._registry = registry
        self._folder = folder
        self._plugin_folders = plugin_folders
        self._memo: dict[Hashable, Checked[Any]] = {}
        self._context = {BUILD: self._nested, FUNCTION: self._function}

    def component(self, kind: str, entry: Any) -> Checked[Component]:
        """Return the component that `entry` describes; None stands for the kind's default."""
        return self._memoize((kind, _canonical(entry)), lambda: self._component(kind, entry))

    def table(self, model: type[BaseModel], entry: Any) -> Checked[Any]:
        """Return a table of the recipe as its validated model."""
        return self._memoize((model, _canonical(entry)), lambda: _validated(model, entry))

    def clock(self, data: DataSource, length: Step, batch: int) -> Checked[Clock]:
        """Return the clock of a training on this data; an epoch leaves out its last partial batch."""
        # `id` is safe in these keys: the memo holds every component, so that none is ever freed
        return self._memoize(
            ("clock", id(data), length, batch), lambda: self._clock(data, length, batch)
        )

    def lengths(self, search: SearchAlgorithm, clock: Clock) -> Checked[tuple[int, ...]]:
        """Return how many steps each round of a search has."""
        return self._memoize(("lengths", id(search), clock), lambda: self._rounds(search, clock))

    def rewind(self, policy: RewindPolicy, clock: Clock, lengths: tuple[int, ...]) -> Checked[None]:
        """Check that the policy's point lies within every round and leaves steps to train."""
        return self._memoize(
            ("rewind", id(policy), clock, lengths),
            lambda: (None, self._rewind(policy, clock, lengths)),
        )

    def schedule(self, schedule: Schedule, clock: Clock) -> Checked[None]:
        """Check that no length among the schedule's options is longer than the training."""
        return self._memoize(
            ("schedule", id(schedule), clock), lambda: (None, _beyond(schedule, clock))
        )

    def start_file(self, path: Any) -> Checked[StartFile]:
        """Return the file that a cell starts from, None where none is named."""
        if not isinstance(path, str) or not path:
            return None, []
        return self._memoize(("start", path), lambda: start_file(path))

    def mask_update(self, update: MaskUpdate, clock: Clock) -> Checked[None]:
        """Check that the update changes masks in a training of this length."""
        return self._memoize(
            ("mask_update", id(update), clock), lambda: (None, self._changes(update, clock))
        )

    def offer(self, kind: str, entry: Any) -> RegisteredComponent | None:
        """Return which component an entry names, None if it names none."""
        try:
            return self._registry.parse(kind, entry)[0]
        except UsageError:
            return None

    def offered(self, kind: str) -> dict[str, type[Component]]:
        """Return the components of a kind by the names that recipes use."""
        offers = self._registry.offers(kind)
        return {self._registry.short_name(offer): offer.cls for offer in offers}

    def name(self, component: Component) -> str:
        """Return its name in recipes: the bare name if that is unambiguous."""
        return self._registry.short_name(self._registry.offer_of(component))

    def full(self, component: Component) -> dict[str, Any]:
        """Return its entry in a recipe, with every option except those that are None."""
        return {"use": self.name(component), **_without_none(component.options(None, self.full))}

    def entry(self, component: Component) -> dict[str, Any]:
        """Return its entry in a recipe, with the options that differ from their defaults."""
        entry: dict[str, Any] = {"use": self.name(component)}
        options = component.options(None, self.entry)
        for name, about in type(component).model_fields.items():
            value = options[name]
            # as its author wrote it: perhaps not validated
            written = about.get_default(call_default_factory=True)
            default = plain_option(written, None, self.entry)
            differs = value != default and _canonical(value) != _canonical(default)
            if about.is_required() or differs:
                entry[name] = value
        return entry

    def label(self, component: Component) -> str:
        """Return its name and its options that differ from their defaults."""
        return component_label(self.entry(component))

    def _memoize(self, key: Hashable, make: Callable[[], Checked[T]]) -> Checked[T]:
        # with its problems: a faulty entry is asked for by every cell, and reported once
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def _component(self, kind: str, entry: Any) -> Checked[Component]:
        if entry is None and self._registry.default(kind) is None:
            names = [offer.name for offer in self._registry.offers(kind)]
            return None, [Problem((), "is required", nearest("", names))]
        try:
            offer, options = self._registry.parse(kind, {} if entry is None else entry)
        except UsageError as error:
            return None, [Problem((), f"{error}{self._local_hint(kind, entry)}")]
        owner = f"the {kind} '{offer.name}'"
        try:
            component, invalid = self._validated(offer.cls, options, owner)
        except Exception as error:
            # a plugin's own validator may raise anything
            return None, [Problem((), _broke(offer, "checking its options", error))]
        if invalid or component is None:
            return None, invalid
        if isinstance(component, SearchAlgorithm):
            excess = too_many_levels(component)
            if excess:
                return None, excess
        return component, []

    def _validated(
        self, cls: type[Component], options: Mapping[str, Any], owner: str
    ) -> tuple[Component | None, list[Problem]]:
        """Return the component with these options, and every problem of the options."""
        wrong_types = self._wrong_types(cls, options, owner)
        try:
            return cls.model_validate(options, context=self._context), wrong_types
        except ValidationError as error:
            invalid = problems(error, options, cls.model_fields, owner)
        # a value of a wrong type may also be out of the bounds of what it would be converted to
        reported = [problem.keys for problem in wrong_types]
        return None, [*wrong_types, *(one for one in invalid if one.keys not in reported)]

    def _wrong_types(
        self, cls: type[Component], options: Mapping[str, Any], owner: str
    ) -> list[Problem]:
        """Return a problem for each number, boolean or string that stands where another type belongs.

        pydantic would convert it: "2" and true to the integers 2 and 1. Classes of components are not
        strict themselves, since strictness also refuses a list where a component has a tuple.
        """
        try:
            # TOML and JSON have the same types, and read as JSON a list may become a tuple.
            cls.model_validate_json(_encoded(options), strict=True, context=self._context)
        except ValidationError as error:
            return problems(error, options, cls.model_fields, owner, counts=_is_wrong_type)
        return []

    def _nested(self, kind: str, entry: Any) -> Component:
        """Return the component that an option of another one describes.

        Raises ValidationError whose errors have the keys below that option.
        """
        component, problems = self._component(kind, entry)
        if component is not None:
            return component
        raise ValidationError.from_exception_data(kind, list(map(as_error, problems)))

    def _function(self, text: str) -> ImportedFunction:
        return self._registry.trusted_code.function(text, self._plugin_folders)

    def _local_hint(self, kind: str, entry: Any) -> str:
        """Return where an unknown component lies in a plugin file that the user did not trust."""
        use = entry.get("use") if isinstance(entry, Mapping) else entry
        if not isinstance(use, str) or any(offer.name == use for offer in self._registry.offers()):
            return ""
        file = offering_file(use, self._plugin_folders)
        if file is None:
            return ""
        path = shlex.quote(str(file))
        return f"; {file} offers one: read it, then run again with --trust {path}"

    def _clock(self, data: DataSource, length: Step, batch: int) -> Checked[Clock]:
        train, problems = self._memoize(("examples", id(data)), lambda: self._examples(data))
        if train is None:
            return None, problems
        if batch > train:
            examples = f"{train} training examples of {self.name(data)}"
            text = f"a batch of {batch} is more than the {examples}"
            return None, [Problem(("train", "batch"), text)]
        # an epoch has whole batches only, and at least one step
        try:
            clock = Clock.of(length, max(1, train // batch))
        except ValueError as error:
            return None, [Problem(("train", "length"), str(error))]
        if clock.total < 1:
            return None, [Problem(("train", "length"), f"'{length}' is less than one step")]
        if NUMBER.exceeded_by(clock.total):
            text = f"'{length}' is {NUMBER.excess(clock.total, 'steps')}"
            return None, [Problem(("train", "length"), text, NUMBER.remedy)]
        return clock, []

    def dataset_info(self, data: DataSource) -> DatasetInfo | None:
        """Return what is known of the data without reading it; None where `clock` reports why not."""
        info, _ = self._memoize(("info", id(data)), lambda: self._info(data))
        return info

    def _examples(self, data: DataSource) -> Checked[int]:
        info, problems = self._memoize(("info", id(data)), lambda: self._info(data))
        return (None if info is None else info.train), problems

    def _info(self, data: DataSource) -> Checked[DatasetInfo]:
        try:
            info = data.facts(self._folder)
            _require_type(info, DatasetInfo)
            for examples in (info.classes, info.train, info.validation, info.test):
                _require_whole(info, examples)
            return info, []
        except DataError as error:
            text = str(error)
        except Exception as error:
            text = self.broke(data, "`facts`", error)
        return None, [Problem(("data",), text)]

    def _rounds(self, search: SearchAlgorithm, clock: Clock) -> Checked[tuple[int, ...]]:
        # a search without cycles has one round, as long as the training
        try:
            lengths = tuple(search.lengths(clock))
            if not lengths or not all(isinstance(length, SupportsIndex) for length in lengths):
                raise TypeError(f"returned {list(lengths)}, not a sequence of whole numbers")
            if min(lengths) > 0:
                return lengths, []
        except Exception as error:
            return None, [Problem((), self.broke(search, "`lengths`", error))]

        # an option that is too short is named; else it is their number that does not fit
        too_short = []
        for keys, step in _lengths(search):
            if clock.steps(step) < 1:
                too_short.append(Problem(keys, f"'{step}' is less than one step"))
        if too_short:
            return None, too_short
        text = (
            f"a training of {clock.total} steps is too short for {len(lengths)} cycles: each needs "
            "at least one step"
        )
        return None, [Problem((), text)]

    def _rewind(self, policy: RewindPolicy, clock: Clock, lengths: Sequence[int]) -> list[Problem]:
        try:
            point = policy.point(Clock(lengths[0], clock.steps_per_epoch))
            _require_type(point, RewindPoint)
            _require_whole(point, point.schedule)
            if point.weights != LATEST:
                _require_whole(point, point.weights)
        except Exception as error:
            return [Problem(("rewind",), self.broke(policy, "`point`", error))]

        # if a policy has one length among its options, that is where the point is written
        options = [keys for keys, _ in _lengths(policy)]
        keys = ("rewind", *options[0]) if len(options) == 1 else ("rewind",)
        if point.weights == LATEST:
            # every cycle goes on from the last one; the schedule's step is one of the first cycle
            end = lengths[0]
            steps = [point.schedule]
        else:
            end = min(lengths)
            steps = [point.weights, point.schedule]
        training = f"{'the training' if end == clock.total else 'a cycle'} of {end} steps"
        for step in steps:
            if not 0 <= step <= end:
                return [Problem(keys, f"points at step {step}, outside {training}")]
        if point.steps is None and point.schedule == end:
            text = f"points at step {end}, where {training} ends: nothing is left to train"
            return [Problem(keys, text)]
        return []

    def broke(self, component: Component, doing: str, error: Exception) -> str:
        """Return whose mistake ended a check: a component's, with its distribution."""
        return _broke(self._registry.offer_of(component), doing, error)

    def _changes(self, update: MaskUpdate, clock: Clock) -> list[Problem]:
        who = f"the mask_update '{self.name(update)}'"
        try:
            # The last step first: an update whose times do not fit mostly says so at any step.
            if update.due(max(1, clock.total - 1), clock):
                return []
            for step in range(1, clock.total):
                if update.due(step, clock):
                    return []
        except UsageError as error:
            return [Problem((), str(error))]
        except Exception as error:
            return [Problem((), self.broke(update, "`due`", error))]
        lengths = []
        for keys, length in _lengths(update):
            lengths.append(f"{'.'.join(map(str, keys))} = {length}")
        text = f"{who} never changes a mask in a training of {clock.total} steps"
        return [Problem((), text, f"its lengths are {', '.join(lengths)}" if lengths else "")]


def _is_wrong_type(error: ErrorDetails) -> bool:
    # a key of a table is text in TOML and in JSON, whatever its option reads it as
    return error["type"] in _SCALAR_ERRORS and error["loc"][-1:] != ("[key]",)


_SCALAR_ERRORS = {"int_type", "float_type", "bool_type", "string_type", "int_from_float"}
"""pydantic's names for values of one scalar type where another belongs."""


def _beyond(schedule: Schedule, clock: Clock) -> list[Problem]:
    problems = []
    for keys, step in _lengths(schedule):
        steps = clock.steps(step)
        if steps > clock.total:
            text = f"'{step}' is {steps} steps; the training has only {clock.total}"
            problems.append(Problem(keys, text))
    return problems


def _lengths(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Step]]:
    """Yield every length in an option's value, however deep, with its path."""
    if isinstance(value, Step):
        yield keys, value
    elif isinstance(value, BaseModel | dict):
        # a pydantic model iterates over its (name, value) pairs
        for name, item in value.items() if isinstance(value, dict) else value:
            yield from _lengths(item, (*keys, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _lengths(item, (*keys, index))


def _validated(model: type[BaseModel], entry: Any) -> Checked[BaseModel]:
    try:
        return model.model_validate(entry), []
    except ValidationError as error:
        return None, problems(error, entry, model.model_fields)


def _broke(offer: RegisteredComponent, doing: str, error: Exception) -> str:
    """Return whose mistake ended a check: a component's, with its distribution."""
    owner = f"the {offer.kind} '{offer.name}' of {offer.provider}"
    return f"{owner} broke in {doing}: {type(error).__name__}: {error}"


def _require_type(value: object, cls: type) -> None:
    if not isinstance(value, cls):
        article = "an" if cls.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"returned {value!r}, not {article} {cls.__name__}")


def _require_whole(owner: object, number: object) -> None:
    if not isinstance(number, SupportsIndex):
        raise TypeError(f"returned {owner!r}, in which {number!r} is no whole number")


_encoded = json.JSONEncoder(sort_keys=True, default=str).encode


def _canonical(value: Any) -> str:
    """Return a text that is equal for equal values.

    Most entries are names, for which JSON would be slow; JSON has no single quotes.
    """
    return f"'{value}'" if isinstance(value, str) else _encoded(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
