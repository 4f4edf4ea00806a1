"""Merges the tables of a recipe, and remembers for each key where it was written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lotteryfw.api.errors import Fault

Keys = tuple[str | int, ...]
"""A path into a recipe: keys of tables, and indices of lists."""
Origin = Callable[[Keys], tuple[str, Keys]]
"""A function from a path to where it was written: the file, and the path in that file."""


def dotted(keys: Keys) -> str:
    """Return a path as people write it.

    >>> dotted(("train", "augment", 1, "padding"))
    'train.augment[1].padding'
    """
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


@dataclass(frozen=True)
class LayeredTable:
    """A merged table. `defaults` has the component that a kind's table without `use` stands for.

    `alternatives` are by table the keys that exclude each other: one that is laid over the table
    replaces the others. `texts` are keys whose strings name no components. `laid` has each table
    that was laid over, with its origins.
    """

    defaults: Mapping[str, str]
    table: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[Keys, tuple[str, Keys]] = field(default_factory=dict)
    alternatives: Mapping[str, Collection[str]] = field(default_factory=dict)
    texts: Collection[str] = ()
    laid: tuple[tuple[Mapping[str, Any], Origin], ...] = ()

    def over(self, table: Mapping[str, Any], origin: Origin) -> LayeredTable:
        """Return this table with `table` laid over it.

        Tables merge key by key, and lists replace each other. A component with another `use` replaces
        the whole table of the old one, whose options it does not have.
        """
        new_origins: dict[Keys, tuple[str, Keys]] = {}
        merged = self._merge(self.table, table, (), origin, new_origins)
        origins = dict(new_origins)
        # in one pass: a recipe with a large grid has thousands of origins
        for keys, where in self.origins.items():
            # whatever was written below a value that is replaced now is gone
            if not _is_at_or_below(keys, new_origins):
                origins[keys] = where
        return replace(self, table=merged, origins=origins, laid=(*self.laid, (table, origin)))

    def over_layers(self, layers: LayeredTable, keys: Keys) -> LayeredTable:
        """Return this table with what was laid at `keys` of another one laid over it, in order.

        The merged table at those keys does not tell a component of the same `use` from another one,
        where its first layers have options alone and the `use` is that of this table.
        """
        result = self
        for table, origin in layers.laid:
            layer = _table_at(table, keys)
            if layer is not None:
                result = result.over(layer, _below(origin, keys))
        return result

    def replaced(self, key: str, value: Any, origin: Origin) -> LayeredTable:
        """Return this table with `value` instead of everything at and below `key`."""
        table = dict(self.table)
        table.pop(key, None)
        origins = {keys: where for keys, where in self.origins.items() if keys[:1] != (key,)}
        laid = []
        for layer, layer_origin in self.laid:
            rest = {other: entry for other, entry in layer.items() if other != key}
            laid.append((rest, layer_origin))
        without = replace(self, table=table, origins=origins, laid=tuple(laid))
        return without.over({key: value}, origin)

    def locate(self, keys: Keys) -> tuple[str, Keys]:
        """Return the file and path where `keys` was written, or the nearest table around it.

        The last file that was read is around everything.
        """
        for length in range(len(keys), 0, -1):
            origin = self.origins.get(keys[:length])
            if origin:
                where, written = origin
                return where, (*written, *keys[length:])
        return self.origins[()][0], keys

    def fault(self, keys: Keys, problem: str, remedy: str = "") -> Fault:
        """Return a fault at `keys`, with the file and path where that was written."""
        where, written = self.locate(keys)
        return Fault(where, dotted(written), problem, remedy)

    def _merge(
        self,
        base: Mapping[str, Any],
        over: Mapping[str, Any],
        path: Keys,
        origin: Origin,
        origins: dict[Keys, tuple[str, Keys]],
    ) -> dict[str, Any]:
        """Return `base` with `over` laid over it; add where each new value is written to `origins`."""
        result = dict(base)
        for key, new in over.items():
            here = (*path, key)
            old = result.get(key)
            old_use = self._use(key, old)
            new_use = new.get("use") if isinstance(new, Mapping) else new
            # the bare name of a component that has options already changes nothing
            if isinstance(old, Mapping) and isinstance(new, str) and new == old_use:
                continue
            is_same_component = new_use in (None, old_use)
            is_text = isinstance(old, str) and not path and key in self.texts
            merges = isinstance(old, Mapping | str) and isinstance(new, Mapping)
            if merges and is_same_component and not is_text:
                below = old if isinstance(old, Mapping) else {"use": old}
                below = self._without_alternatives(str(key), below, new)
                result[key] = self._merge(below, new, here, origin, origins)
                continue
            origins[here] = origin(here)
            result[key] = new
        return result

    def _without_alternatives(
        self, table: str, below: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return a table without the keys that those of `new` are another spelling of."""
        alternatives = self.alternatives.get(table, ())
        if not any(key in new for key in alternatives):
            return below
        return {key: value for key, value in below.items() if key not in alternatives}

    def _use(self, key: str, entry: Any) -> Any:
        return entry.get("use", self.defaults.get(key)) if isinstance(entry, Mapping) else entry


def _table_at(table: Mapping[str, Any], keys: Keys) -> Mapping[str, Any] | None:
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else None


def _below(origin: Origin, path: Keys) -> Origin:
    return lambda keys: origin((*path, *keys))


def _is_at_or_below(keys: Keys, paths: Mapping[Keys, object]) -> bool:
    return any(keys[:length] in paths for length in range(1, len(keys) + 1))
