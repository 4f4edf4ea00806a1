"""Tables laid over tables, each key remembering where it was said: the merge rule of recipes lives here."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lotteryfw.api.errors import Fault

Keys = tuple[str | int, ...]
"""A path into a recipe: keys of tables, and indices of lists."""
Origin = Callable[[Keys], tuple[str, Keys]]
"""Where a path was said: in which file, and at which path there."""


def dotted(keys: Keys) -> str:
    """A path as people write it.

    >>> dotted(("train", "augment", 1, "padding"))
    'train.augment[1].padding'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(
        "."
    )


@dataclass(frozen=True)
class LayeredTable:
    """A merged table. `defaults` names each kind's default component, which a table without `use` stands for.

    `whole` are keys of tables whose keys exclude each other, so that they replace and do not merge.
    """

    defaults: Mapping[str, str]
    table: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[Keys, tuple[str, Keys]] = field(default_factory=dict)
    whole: Container[str] = ()

    def over(self, table: Mapping[str, Any], origin: Origin) -> LayeredTable:
        """This tree with `table` laid over it. Tables merge key by key and lists replace; a component is replaced
        whole by one with another `use`."""
        places: dict[Keys, tuple[str, Keys]] = {}
        merged = self._laid(self.table, table, (), origin, places)
        # whatever stood below a value that was replaced is gone
        kept = {
            keys: place for keys, place in self.origins.items() if not _at_or_below(keys, places)
        }
        return replace(self, table=merged, origins=kept | places)

    def replaced(self, key: str, value: Any, origin: Origin) -> LayeredTable:
        """This tree with everything below `key` forgotten, and `value` there."""
        rest = replace(
            self,
            table={name: old for name, old in self.table.items() if name != key},
            origins={keys: place for keys, place in self.origins.items() if keys[:1] != (key,)},
        )
        return rest.over({key: value}, origin)

    def locate(self, keys: Keys) -> tuple[str, Keys]:
        """Where `keys` was said, or where the table around it was; the last file read is around everything."""
        for length in range(len(keys), 0, -1):
            if found := self.origins.get(keys[:length]):
                return found[0], (*found[1], *keys[length:])
        return self.origins[()][0], keys

    def fault(self, keys: Keys, problem: str, remedy: str = "") -> Fault:
        """A fault at `keys`, placed where that was said."""
        where, shown = self.locate(keys)
        return Fault(where, dotted(shown), problem, remedy)

    def _laid(
        self,
        base: Mapping[str, Any],
        over: Mapping[str, Any],
        path: Keys,
        origin: Origin,
        places: dict[Keys, tuple[str, Keys]],
    ) -> dict[str, Any]:
        """`base` with `over` laid over it; where each value that was set stands goes to `places`."""
        result = dict(base)
        for key, new in over.items():
            here = (*path, key)
            old = result.get(key)
            old_use, new_use = (
                self._use(key, old),
                new.get("use") if isinstance(new, Mapping) else new,
            )
            if isinstance(old, Mapping) and isinstance(new, str) and new == old_use:
                continue
            if (
                key not in self.whole
                and isinstance(old, Mapping | str)
                and isinstance(new, Mapping)
                and new_use in (None, old_use)
            ):
                below = old if isinstance(old, Mapping) else {"use": old}
                result[key] = self._laid(below, new, here, origin, places)
                continue
            places[here] = origin(here)
            result[key] = new
        return result

    def _use(self, key: str, entry: Any) -> Any:
        return entry.get("use", self.defaults.get(key)) if isinstance(entry, Mapping) else entry


def _at_or_below(keys: Keys, places: Mapping[Keys, object]) -> bool:
    return any(keys[:length] in places for length in range(1, len(keys) + 1))
