"""Checks that a search has what it needs for learning masks, and nothing that it cannot use."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.recipe.layered_table import Keys, dotted
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import MASK_SLOTS


def check_compatible(
    parts: Mapping[str, Any], resolver: ComponentResolver, shared_keys: Container[Keys]
) -> list[Problem]:
    """Report a missing parametrization, or components that a search has no use for.

    A component at one of `shared_keys` is not reported: another search of the study uses it.
    """
    search = parts["search"]
    if search is None:
        return []
    if search.learns_masks:
        if parts["parametrization"] is not None:
            return []
        text = f"is required: the search '{search.use}' learns masks"
        names = " or ".join(f'"{name}"' for name in resolver.offered("parametrization"))
        remedy = f"such as parametrization = {names}"
        return [Problem(("parametrization",), text, remedy)]

    problems = []
    for slot, (keys, _) in MASK_SLOTS.items():
        if parts[slot] is None or keys in shared_keys:
            continue
        text = f"has no effect: the search '{search.use}' learns no masks"
        problems.append(Problem(keys, text, f"leave {dotted(keys)} out"))
    return problems


def check_rewind_is_named(search: SearchAlgorithm, lengths: Sequence[int]) -> list[Problem]:
    """Report a recipe that names no rewind policy for a search that learns masks in several cycles.

    The default policy returns scores to their start, so a cycle would learn nothing from the last.
    """
    if not search.learns_masks or len(lengths) < 2:
        return []
    text = (
        f"is required: the search '{search.use}' learns masks in {len(lengths)} cycles, and the "
        "rewind policy says what a cycle takes over from the last"
    )
    return [Problem(("rewind",), text, 'such as rewind = "learning_rate"')]
