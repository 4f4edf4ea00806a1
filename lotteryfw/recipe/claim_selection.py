"""The combinations of a grid that a side of a claim selects, by the labels of their axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def select_combinations(
    candidates: Sequence[tuple[Mapping[str, str], T]], axes: Mapping[str, str]
) -> list[T]:
    """Return the candidates whose axes have these labels; a candidate has its axes beside it.

    A component's label selects the combinations of exactly this label; if there are none, those
    that differ from it in an option `density` alone; if there are none, those that have all of its
    options and any others.
    """
    # one axis after the other: each keeps the best kind of match among what is left
    selected = list(candidates)
    for axis, label in axes.items():
        selected = _with_label(selected, axis, label)
    return [candidate for _, candidate in selected]


def _with_label(
    candidates: Sequence[tuple[Mapping[str, str], T]], axis: str, label: str
) -> list[tuple[Mapping[str, str], T]]:
    name, options = _parsed(label)
    without_density = {option for option in options if not option.startswith("density=")}
    exact, but_for_density, including = [], [], []
    for candidate in candidates:
        if axis not in candidate[0]:
            continue
        other = candidate[0][axis]
        other_name, other_options = _parsed(other)
        if other == label:
            exact.append(candidate)
        elif other_name == name:
            rest = {option for option in other_options if not option.startswith("density=")}
            if rest == without_density and options == without_density:
                but_for_density.append(candidate)
            if options <= other_options:
                including.append(candidate)
    return exact or but_for_density or including


def _parsed(label: str) -> tuple[str, set[str]]:
    """Return a component's name and the options in its label."""
    name, _, inner = label.partition("(")
    if not inner.endswith(")"):
        return label, set()
    return name, set(_split(inner[:-1]))


def _split(inner: str) -> Iterator[str]:
    """Split at the commas that are not inside of brackets."""
    depth = 0
    start = 0
    for index, letter in enumerate(inner):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if depth == 0 and inner.startswith(", ", index):
            yield inner[start:index]
            start = index + 2
    yield inner[start:]
