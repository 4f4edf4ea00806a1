"""Axes of a grid without the density that a search is told to end at, so that a sweep over densities is one curve.

A density is an axis of that name ("search.density"), or an option in a component's label: "edge_popup(density=0.1)".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_OPTION = "density"


def without_density(axes: Mapping[str, str]) -> dict[str, str]:
    """The axes that are left, their labels without the option.

    >>> without_density({"search": "edge_popup(density=0.1)", "search.density": "0.1"})
    {'search': 'edge_popup'}
    """
    return {
        axis: any_density(label)
        for axis, label in axes.items()
        if axis.rpartition(".")[2] != _OPTION
    }


def any_density(label: str) -> str:
    """A component's label without its option `density`; any other label as it is.

    >>> any_density("iterative_edge_popup(density=0.1, cycles=3)")
    'iterative_edge_popup(cycles=3)'
    """
    name, _, inner = label.partition("(")
    if not inner.endswith(")"):
        return label
    options = ", ".join(each for each in _options(inner[:-1]) if not each.startswith(f"{_OPTION}="))
    return f"{name}({options})" if options else name


def _options(inner: str) -> Iterator[str]:
    """What stands between commas, but for those inside of brackets."""
    depth = start = 0
    for place, letter in enumerate(inner):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and inner.startswith(", ", place):
            yield inner[start:place]
            start = place + 2
    yield inner[start:]
