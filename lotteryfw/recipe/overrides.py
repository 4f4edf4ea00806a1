"""Finds what `--set` or a profile gives and no study takes: its own keys or its grid count there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lotteryfw.api.errors import Fault
from lotteryfw.recipe.layered_table import Keys, LayeredTable, dotted
from lotteryfw.recipe.paths import is_below, value_at
from lotteryfw.recipe.schema import StudyTable

IsMeant = Callable[[str, Keys], bool]
"""A function that says of a place (a file, and a path in it) if what stands there is checked."""
_NAMED = 3
"""Places that one message names."""


def without_effect(
    tree: LayeredTable, studies: Mapping[str, LayeredTable], is_meant: IsMeant
) -> list[Fault]:
    """Return a fault for each value of a recipe that `is_meant`, and that decides nothing.

    A value has an effect if it counts in one of `studies`, tables by name, in a part at least.
    """
    faults = []
    for keys, (where, written) in tree.origins.items():
        value = value_at(tree.table, keys)
        if value is None or not is_meant(where, written):
            continue
        path, among = keys, studies
        if keys[:1] == ("studies",):
            path, among = keys[2:], {name: studies[name] for name in studies if name in keys[1:2]}
        if not path or path[0] not in StudyTable.model_fields:
            continue
        leaves = dict(_leaves(value, path))
        decisive = _decisive(tree, among, leaves, is_meant)
        if decisive:
            # `--set search.levels=3` where the file has no `search` is said of the levels
            below = next(iter(leaves))[len(path) :] if len(leaves) == 1 else ()
            below = below[:-1] if below[-1:] == ("use",) else below
            named = " and ".join(map(dotted, decisive[:_NAMED]))
            text = f"has no effect: the recipe has {named}"
            remedy = "set that instead" if len(decisive) == 1 else "set those instead"
            faults.append(Fault(where, dotted((*written, *below)), text, remedy))
    return faults


def _leaves(value: Any, path: Keys) -> Iterator[tuple[Keys, Any]]:
    """Yield the path and the value of everything in a table that is no table itself."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, (*path, key))


def _decisive(
    tree: LayeredTable,
    studies: Mapping[str, LayeredTable],
    leaves: Mapping[Keys, Any],
    is_meant: IsMeant,
) -> list[Keys]:
    """Return the paths of what counts in place of the leaves; none if one of these counts."""
    places: dict[Keys, None] = {}
    for name, study in studies.items():
        own_table = value_at(tree.table, ("studies", name))
        for leaf, value in leaves.items():
            path = _path_in_place_of(study, own_table, leaf, value, is_meant)
            if path is None:
                return []
            is_own = value_at(own_table, path) is not None
            places[("studies", name, *path) if is_own else path] = None
    return list(places)


def _path_in_place_of(
    study: LayeredTable, own_table: Any, leaf: Keys, value: Any, is_meant: IsMeant
) -> Keys | None:
    """Return the path of a study that counts in place of a leaf, None if the leaf counts.

    `own_table` is what the study itself has, `value` that of the leaf.
    """
    grid = study.table.get("grid")
    for axis in grid if isinstance(grid, Mapping) else ():
        if is_below(leaf, tuple(axis.split("."))):
            return "grid", axis
    present = value_at(study.table, leaf)
    if present is not None and is_meant(*study.locate(leaf)):
        return None
    # what is there anyway, such as the name of a component that has options
    if value in (present, value_at(present, ("use",))):
        return None
    # the study's own value, or what it has around it
    for length in range(len(leaf), 0, -1):
        if value_at(own_table, leaf[:length]) is not None:
            return leaf[:length]
    return leaf
