"""The values of a grid as plain data and as labels, each the same for every way to write it."""

from __future__ import annotations

from typing import Any

from lotteryfw.api.labels import component_label, label_of
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import SLOTS

AUGMENT = ("train", "augment")


def label(keys: Keys, value: Any, resolver: ComponentResolver) -> str:
    """Return the short name of a grid's value, the same for every way to write it."""
    return label_of_entry(entry_of(keys, value, resolver))


def entry_of(keys: Keys, value: Any, resolver: ComponentResolver) -> Any:
    """Return a grid's value as plain data, the same for every way to write it."""
    if keys == AUGMENT and isinstance(value, list):
        return tuple(_component_entry("augmentation", item, resolver) for item in value)
    return _component_entry(SLOTS[keys], value, resolver) if keys in SLOTS else value


def _component_entry(kind: str, written: Any, resolver: ComponentResolver) -> Any:
    component, _ = resolver.component(kind, written)
    return written if component is None else resolver.entry(component)


def label_of_entry(entry: Any) -> str:
    """Return the short name of an entry."""
    if isinstance(entry, tuple):
        return "+".join(map(label_of_entry, entry)) or "none"
    is_component = isinstance(entry, dict) and "use" in entry
    return component_label(entry) if is_component else label_of(entry)
