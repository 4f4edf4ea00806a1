"""Components, the ingredients of a recipe: each a named, frozen, validated set of options.

The pydantic fields of a component are its keys in the recipe, its help text, its bounds and its
error messages at once.
"""

from __future__ import annotations

import inspect
from abc import ABC
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from lotteryfw.api.steps import Clock, Step


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

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring, without its full stop."""
        doc = inspect.getdoc(cls) if cls.__doc__ else None
        return doc.splitlines()[0].rstrip(".") if doc else ""

    def options(self, clock: Clock | None = None) -> dict[str, Any]:
        """Return every option with its value as plain JSON data.

        With a clock, lengths become steps, so that `1ep` equals as many steps.
        """
        return {name: _plain(getattr(self, name), clock) for name in type(self).model_fields}


def _plain(value: Any, clock: Clock | None) -> Any:
    if isinstance(value, Step):
        return clock.steps(value) if clock else str(value)
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name), clock) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _plain(item, clock) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item, clock) for item in items]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
