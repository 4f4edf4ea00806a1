"""Axes of a grid without the density that a search ends at, so that a density sweep is one curve.

A density is an axis of that name ("search.density"), or an option in a component's label:
"edge_popup(density=0.1)".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_OPTION = "density"


def without_density(axes: Mapping[str, str]) -> dict[str, str]:
    """Return the axes that are not densities, their labels without the option.

    >>> without_density({"search": "edge_popup(density=0.1)", "search.density": "0.1"})
    {'search': 'edge_popup'}
    """
    remaining = {}
    for axis, label in axes.items():
        if axis.rpartition(".")[2] != _OPTION:
            remaining[axis] = any_density(label)
    return remaining


def any_density(label: str) -> str:
    """Return a component's label without its option `density`; any other label as it is.

    >>> any_density("iterative_edge_popup(density=0.1, cycles=3)")
    'iterative_edge_popup(cycles=3)'
    """
    name, _, inner = label.partition("(")
    if not inner.endswith(")"):
        return label

    kept = []
    for option in _options(inner[:-1]):
        if not option.startswith(f"{_OPTION}="):
            kept.append(option)
    return f"{name}({', '.join(kept)})" if kept else name


def _options(inner: str) -> Iterator[str]:
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
