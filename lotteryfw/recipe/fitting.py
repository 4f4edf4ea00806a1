"""Whether a search has what learning masks takes, and nothing that it has no use for."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from lotteryfw.api.kinds import Parametrization, SearchAlgorithm
from lotteryfw.recipe.schema import MASK_SLOTS
from lotteryfw.recipe.slots import Slots
from lotteryfw.recipe.tree import Keys, dotted
from lotteryfw.recipe.words import Problem

_UNSUITED = {True: "never", False: "always"}
"""By whether a search gives a density, the use of densities that does not go with it."""


def misfits(
    parts: Mapping[str, Any], slots: Slots, meant_for_others: Container[Keys]
) -> list[Problem]:
    """What only learned masks need, said of a search that learns none; and the other way round.

    Of what is `meant_for_others`, other searches of the study, nothing is said.
    """
    search = parts["search"]
    if search is None:
        return []
    if search.learns_masks:
        return _unsuited(search, parts["parametrization"], slots)
    places = [keys for slot, (keys, _) in MASK_SLOTS.items() if parts[slot] is not None]
    text = f"does nothing: the search '{search.use}' learns no masks"
    return [
        Problem(keys, text, f"leave {dotted(keys)} out")
        for keys in places
        if keys not in meant_for_others
    ]


def _unsuited(
    search: SearchAlgorithm, chosen: Parametrization | None, slots: Slots
) -> list[Problem]:
    """What is wrong with a parametrization, or with none, for a search that learns masks."""
    unsuited = None if search.gives_density is None else _UNSUITED[search.gives_density]
    if chosen is None:
        text = f"is required: the search '{search.use}' learns masks"
    elif chosen.uses_density != unsuited:
        return []
    elif search.gives_density:
        text = f"'{chosen.use}' keeps to no density, and the search '{search.use}' gives one that nothing would heed"
    else:
        text = f"'{chosen.use}' needs a density, and the search '{search.use}' gives none"
    fitting = [
        f'"{name}"'
        for name, cls in slots.offered("parametrization").items()
        if issubclass(cls, Parametrization) and cls.uses_density != unsuited
    ]
    return [
        Problem(("parametrization",), text, f"such as parametrization = {' or '.join(fitting)}")
    ]
