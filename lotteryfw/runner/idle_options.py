"""Finds options of components that decide nothing beside the values of the other options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lotteryfw.api.component import Component
from lotteryfw.search.cell import Cell

Option = tuple[str, str, str]
"""The kind and name of a component, and an option of it."""


def idle_options(cells: Iterable[Cell]) -> list[str]:
    """Return a warning for each option of a study that decides nothing in any cell.

    An option that decides something in one cell of a grid is none of them, and neither is one that
    has its default.
    """
    by_study: dict[str, tuple[dict[Option, str], set[Option]]] = {}
    broken: dict[str, None] = {}
    for cell in cells:
        idle, used = by_study.setdefault(cell.study, ({}, set()))
        for component in _components(cell):
            try:
                reasons = component.idle_options()
                if not isinstance(reasons, dict):
                    raise TypeError(f"returned {reasons!r}, not a dict")
            except Exception as error:
                # a plugin's method may raise anything, and no run needs what it says
                broken.setdefault(_broke(cell.study, component, error))
                continue
            for name, field in type(component).model_fields.items():
                option = component.kind, component.use, name
                if name not in reasons:
                    used.add(option)
                elif getattr(component, name) != field.get_default(call_default_factory=True):
                    idle.setdefault(option, reasons[name])
    warnings = list(broken)
    for study, (idle, used) in by_study.items():
        for option, reason in idle.items():
            if option not in used:
                kind, use, name = option
                warnings.append(
                    f"study {study}: {name} of {kind} '{use}' decides nothing, since {reason}"
                )
    return warnings


def _broke(study: str, component: Component, error: Exception) -> str:
    who = f"{component.kind} '{component.use}'"
    return f"study {study}: {who} broke in idle_options(): {type(error).__name__}: {error}"


def _components(cell: Cell) -> Iterator[Component]:
    """Yield the components of a cell and those within them, each once."""
    seen: set[int] = set()
    for value in vars(cell).values():
        for component in value if isinstance(value, tuple) else (value,):
            if isinstance(component, Component) and id(component) not in seen:
                seen.add(id(component))
                yield component
                yield from component.nested()
