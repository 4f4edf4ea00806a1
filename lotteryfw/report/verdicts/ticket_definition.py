"""The published definition of a winning ticket, as far as a recipe decides it.

Frankle & Carbin 2019, section 1, and Frankle et al. 2019, section 3: the kept weights are reset to
their initial values, or to those of an early step of the dense training; the others are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lotteryfw.report.data.series import Series

if TYPE_CHECKING:
    from lotteryfw.recipe.resolve import ComponentResolver

_KEPT, _MASKED = "rewind", "zero"
"""The mask-1 and the mask-0 action of the definition."""

StudyTable = Mapping[str, Any]


def definition_refusal(series: Series, table: StudyTable) -> str:
    """Return why the networks of a series are no tickets by definition; empty if they are.

    `table` is the series' study in the resolved recipe.
    """
    # none: the caller has no recipe, or the search has no such component
    rewind = _entry(series, table, "rewind")
    if rewind is not None:
        reason = _rewind_refusal(rewind)
        if reason:
            return reason
    for kind, published, meaning in (
        (
            "mask1",
            _KEPT,
            "so that the kept weights do not restart from the values of the dense run",
        ),
        ("mask0", _MASKED, "so that the masked weights are not 0"),
    ):
        entry = _entry(series, table, kind)
        if entry is not None and _name(entry) != published:
            return f"its {kind} action is '{_name(entry)}', {meaning}"
    return ""


def _entry(series: Series, table: StudyTable, kind: str) -> Any:
    """Return a component of the series as the resolved recipe has it; None if it has none."""
    if kind not in series.axes:
        return table.get(kind)
    # levels.csv has labels, and a label leaves out the options that have their default
    label = series.axes[kind]
    for entry in table.get("grid", {}).get(kind, []):
        if _label(kind, entry) == label:
            return entry
    return label  # a run whose recipe does not list it


def _label(kind: str, entry: Any) -> str:
    resolver = _resolver()
    component, _ = resolver.component(kind, entry)
    return resolver.label(component) if component else ""


def _name(entry: Any) -> str:
    return str(entry["use"]) if isinstance(entry, Mapping) else str(entry)


def _rewind_refusal(entry: Any) -> str:
    """Return why a rewind policy makes no tickets: it leaves the weights as they were trained."""
    from lotteryfw.api.kinds import RewindPolicy
    from lotteryfw.api.layers import LATEST
    from lotteryfw.api.steps import Clock

    name = _name(entry)
    policy, _ = _resolver().component("rewind", entry)
    if not isinstance(policy, RewindPolicy):
        return f"its rewind policy '{name}' is not installed here, and may not reset weights"
    # any length does: a policy either goes back or does not
    if policy.point(Clock(total=1000, steps_per_epoch=100)).weights == LATEST:
        return f"its rewind policy '{name}' never resets the weights"
    return ""


@lru_cache(maxsize=1)
def _resolver() -> ComponentResolver:
    # here, because a report of a run without a dense network needs no registry
    from pathlib import Path

    from lotteryfw.recipe.resolve import ComponentResolver
    from lotteryfw.registry import Registry

    return ComponentResolver(Registry.load([]), Path())
