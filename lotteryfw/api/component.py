"""Components, the ingredients of a recipe: each a named, frozen, validated set of options.

The pydantic fields of a component are its keys in the recipe, its help text, its bounds and its
error messages at once.
"""

from __future__ import annotations

import inspect
from abc import ABC
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lotteryfw.api.functions import ImportedFunction
from lotteryfw.api.steps import Clock, Step

BUILD = "build"
"""The name, in pydantic's validation context, of a function of a kind and an entry that returns the
component which the entry describes."""
KIND_OF_OPTION = "x-kind"
"""Stands in the JSON Schema of an option whose value is a component, with its kind."""
Describe = Callable[["Component"], dict[str, Any]]
"""A function that returns a component as plain data, its own options included."""


class Component(BaseModel, ABC):
    """Base of all kinds; authors subclass a kind, never this.

    A component states, beside its options: `use` (its name in recipes), `formula` and `source`
    (the paper and section that it follows). The first line of its docstring is its summary.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )

    kind: ClassVar[str] = ""
    """The kind's name, set by the kind: the recipe table that this component can stand in."""
    use: ClassVar[str] = ""
    """The name that recipes call this component by."""
    formula: ClassVar[str] = ""
    """The formula that it computes, in a line."""
    source: ClassVar[str] = ""
    """The paper and section that it follows."""
    default: ClassVar[bool] = False
    """True for the component a recipe gets when it leaves this kind out."""

    @model_validator(mode="wrap")
    @classmethod
    def _build_from_entry(
        cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """Build the component that an option of another one names, such as `inner = "movement"`.

        The type of such an option is a kind, which has no name of its own.
        """
        # Outside a recipe, as in a script, options are given as components.
        build = (info.context or {}).get(BUILD)
        if cls.use or build is None or isinstance(value, Component):
            return handler(value)
        # The registry knows which class has a name, and the contract does not know the registry.
        component = build(cls.kind, value)
        if not isinstance(component, cls):
            raise PydanticCustomError(
                "component", f"'{type(component).use}' is no {cls.__name__}, which belongs here"
            )
        return component

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # The value of an option that is a component: any component of the kind may stand there.
        return handler(schema) if cls.use else {KIND_OF_OPTION: cls.kind}

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring, without its full stop."""
        # `getdoc` would return the docstring of the kind for a class that has none.
        doc = inspect.getdoc(cls) if cls.__doc__ else None
        return doc.splitlines()[0].rstrip(".") if doc else ""

    def options(
        self, clock: Clock | None = None, describe: Describe | None = None
    ) -> dict[str, Any]:
        """Return every option with its value as plain JSON data.

        With a clock, lengths become steps, so that `1ep` equals as many steps. `describe` says how
        components among the options are written; by default as tables with their `use`.
        """
        plain = {}
        for name in type(self).model_fields:
            plain[name] = plain_option(getattr(self, name), clock, describe)
        return plain

    def idle_options(self) -> dict[str, str]:
        """Return the options that decide nothing beside the values of the others, with the reason.

        A recipe that gives one of them another value than its default is warned of. Default: none.
        """
        # A warning and no error: in a grid an option may matter in some cells only.
        return {}

    def nested(self) -> Iterator[Component]:
        """Yield the components among its options, and those among theirs."""
        for value in _option_values(self):
            if isinstance(value, Component):
                yield value
                yield from value.nested()

    def named_functions(self) -> list[ImportedFunction]:
        """Return the functions that its options name, also in lists and tables.

        Those that components among its options name are not among them.
        """
        return [value for value in _option_values(self) if isinstance(value, ImportedFunction)]


def plain_option(value: Any, clock: Clock | None = None, describe: Describe | None = None) -> Any:
    """Return the value of an option as plain JSON data (see `Component.options`)."""
    if isinstance(value, Component):
        # Without its name, two components with the same options would be one in a key.
        return describe(value) if describe else {"use": value.use, **value.options(clock)}
    # Half of a training and as many steps are the same job.
    if isinstance(value, Step):
        return clock.steps(value) if clock else str(value)
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    # A recipe names a member of an enum by its value.
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, dict):
        plain = {}
        for key, item in value.items():
            name = key.value if isinstance(key, Enum) else key
            plain[str(name)] = plain_option(item, clock, describe)
        return plain
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain_option(item, clock, describe) for item in value]
        # A set has another order in every process, and the text goes into keys.
        return sorted(items) if isinstance(value, set | frozenset) else items
    # Paths and whatever else pydantic validated: their text is what JSON can hold.
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _option_values(component: Component) -> list[Any]:
    """Return the values of its options, and in the place of a list or a table what is in it."""
    values: list[Any] = []
    waiting: deque[Iterable[Any]] = deque([_fields(component)])
    while waiting:
        for value in waiting.popleft():
            if isinstance(value, BaseModel) and not isinstance(value, Component):
                waiting.append(_fields(value))
            elif isinstance(value, dict):
                waiting.append(value.values())
            elif isinstance(value, list | tuple | set | frozenset):
                waiting.append(value)
            else:
                values.append(value)
    return values


def _fields(model: BaseModel) -> list[Any]:
    return [getattr(model, name) for name in type(model).model_fields]
