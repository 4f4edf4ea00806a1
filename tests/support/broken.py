"""Components that are broken on purpose, for the trials to notice."""

from __future__ import annotations

from itertools import count
from typing import Any, ClassVar

from lotteryfw import Component

COUNTER = count(1)
"""A source of numbers that never repeat, for what must repeat."""


def component(kind: type[Component], **members: Any) -> type[Any]:
    """Return a component class of this kind, called "broken", with these methods and attributes."""
    base = {"__module__": __name__, "__doc__": "Does something.", "use": "broken"}
    # pydantic takes what is not a ClassVar for an option
    hints = {name: ClassVar[Any] for name, value in members.items() if not callable(value)}
    return type("Broken", (kind,), {**base, "__annotations__": hints, **members})
