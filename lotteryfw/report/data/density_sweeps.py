"""Axes of a grid without the density that a search ends at, so that a density sweep is one curve.

A density is an axis of that name ("search.density"), or an option of that name of a component.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lotteryfw.api.labels import component_label

_OPTION = "density"


def without_density(axes: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the axes that are not densities, and labels without the option.

    `axes` are labels and `values` the entries that they stand for (see `LevelRow`).

    >>> axes = {"search": "edge_popup(density=0.1)", "search.density": "0.1"}
    >>> without_density(axes, {"search": {"use": "edge_popup", "density": 0.1}})
    {'search': 'edge_popup'}
    """
    remaining = {}
    for axis, label in axes.items():
        # the last part of the name, because the axis may be a component's option
        if axis.rpartition(".")[2] != _OPTION:
            remaining[axis] = any_density(label, values.get(axis))
    return remaining


def any_density(label: str, value: Any) -> str:
    """Return a component's label without its option `density`; any other label as it is.

    >>> any_density("imp(density=0.1, rate=2)", {"use": "imp", "density": 0.1, "rate": 2})
    'imp(rate=2)'
    """
    if not is_component(value) or _OPTION not in value:
        return label
    # Made anew from the entry, because the text of the label is not safe to cut: another option's
    # value may read "density=0.1", too.
    options = dict(value)
    del options[_OPTION]
    return component_label(options)


def bare_name(label: str, value: Any) -> str:
    """Return a component's name, whatever its options; any other label as it is."""
    return str(value["use"]) if is_component(value) else label


def is_component(value: Any) -> bool:
    """Return True for a component's entry."""
    return isinstance(value, Mapping) and "use" in value
