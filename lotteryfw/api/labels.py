"""Labels: the values of a recipe's grid as a person would write them, in short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def label_of(value: Any) -> str:
    """Return the label of a plain value.

    >>> label_of(0.10), label_of([1, True]), label_of({"fc1": 0.2})
    ('0.1', '[1, true]', '{fc1=0.2}')
    """
    if isinstance(value, list):
        return "[" + ", ".join(map(label_of, value)) + "]"
    if isinstance(value, dict) and "use" in value:
        return component_label(value)
    if isinstance(value, dict):
        return "{" + _options(value) + "}"
    # TOML writes true; Python's True is an int as well, and would be 1 as a number.
    if isinstance(value, bool):
        return str(value).lower()
    # 0.1 + 0.2 is written as 0.3: 12 digits distinguish what a person wrote.
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def component_label(entry: Mapping[str, Any]) -> str:
    """Return the label of a component: its name, and the options that its entry has.

    >>> component_label({"use": "edge_popup", "density": 0.1})
    'edge_popup(density=0.1)'
    """
    options = {name: value for name, value in entry.items() if name != "use"}
    return f"{entry['use']}({_options(options)})" if options else str(entry["use"])


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={label_of(value)}" for name, value in options.items())
