"""The components of a study's table, built and checked slot by slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.grid_values import AUGMENT
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.metrics import METRICS
from lotteryfw.recipe.paths import value_at
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import OPTIONAL_SLOTS, TABLE_SLOTS, TRAIN_SLOTS

MakeComponent = Callable[[str, Any], tuple[Any, list[Any]]]
_LISTS: Mapping[str, tuple[Keys, str]] = {
    "augment": (AUGMENT, "augmentation"),
    "metrics": (METRICS, "metric"),
    "controls": (("controls",), "control"),
    "analyses": (("analyses",), "analysis"),
}
"""Lists of components: by their names in a cell, their keys and kinds."""


def components_of(
    table: Mapping[str, Any], resolver: ComponentResolver, faults: FaultCollector
) -> dict[str, Any]:
    """Return the component of every slot, None for an invalid one."""
    component = resolver.component
    parts: dict[str, Any] = {}
    for slot in TABLE_SLOTS:
        parts[slot] = faults.at(slot).value_of(component(slot, table.get(slot)))
    for slot in TRAIN_SLOTS:
        keys: Keys = ("train", slot)
        parts[slot] = faults.at(*keys).value_of(component(slot, value_at(table, keys)))
    for slot, (keys, kind) in OPTIONAL_SLOTS.items():
        # no default: only some searches have a use for these
        entry = value_at(table, keys)
        parts[slot] = None if entry is None else faults.at(*keys).value_of(component(kind, entry))
    for name, (keys, kind) in _LISTS.items():
        parts[name] = _listed(value_at(table, keys), kind, component, faults.at(*keys))
    return parts


def _listed(
    entries: Any, kind: str, component: MakeComponent, faults: FaultCollector
) -> tuple[Any, ...]:
    """Return the components of a list, None for each invalid one."""
    # Anything but a list was reported with the table around it.
    if not isinstance(entries, list):
        return ()
    components = []
    for index, entry in enumerate(entries):
        components.append(faults.at(index).value_of(component(kind, entry)))
    return tuple(components)
