"""Checks that a recipe has the parts that its search requires, and none that it cannot use."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from lotteryfw.api.kinds import MaskCriterion, SearchAlgorithm
from lotteryfw.api.layers import Need
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.layered_table import Keys, dotted
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import LEVEL_KEYS, OPTIONAL_SLOTS, SLOTS, Train


def uses(search: SearchAlgorithm, slot: str) -> bool:
    """Return whether a search uses a component that only some searches do."""
    return slot in search.required or slot in search.optional


def check_compatible(
    parts: Mapping[str, Any],
    written: Container[Keys],
    resolver: ComponentResolver,
    shared_keys: Container[Keys],
) -> list[Problem]:
    """Report parts that the search requires and that are not written, and parts it cannot use.

    A part at one of `shared_keys` is not reported: another search of the study uses it.
    """
    search = parts["search"]
    # a search that is not valid has been reported
    if search is None:
        return []

    problems = []
    for slot, reason in search.required.items():
        keys = _keys_of(slot)
        if keys not in written:
            text = f"is required: the search '{search.use}' {reason}"
            names = '" or "'.join(resolver.offered(SLOTS[keys]))
            remedy = f'such as {dotted(keys)} = "{names}"'
            if not names:
                remedy = f"no plugin that is installed has a {SLOTS[keys]}"
            problems.append(Problem(keys, text, remedy))

    for slot, (keys, _) in OPTIONAL_SLOTS.items():
        if parts[slot] is not None and keys not in shared_keys and not uses(search, slot):
            text = f"has no effect: the search '{search.use}' does not use it"
            problems.append(Problem(keys, text, f"leave {dotted(keys)} out"))
    return problems


def check_variants(parts: Mapping[str, Any], faults: FaultCollector) -> None:
    """Report controls that would be recorded under a name that is in use in their cell."""
    search = parts["search"]
    used = {"ticket": "what a search finds is"}
    for variant in search.variants if search else ():
        used[variant] = f"a network of the search '{search.use}' is"
    for index, control in enumerate(parts["controls"]):
        if control is None:
            continue
        if control.use in used:
            text = f"{used[control.use]} recorded under the name '{control.use}' already"
            faults.at("controls", index).add(text, "each name can be used once")
        used[control.use] = "another control is"


def check_analyses(parts: Mapping[str, Any], faults: FaultCollector) -> None:
    """Report analyses that are listed twice: their figures would have one name."""
    # analyses.jsonl tells figures apart by the name of their analysis, not by its options
    listed: set[str] = set()
    for index, analysis in enumerate(parts["analyses"]):
        if analysis is None:
            continue
        if analysis.use in listed:
            text = f"'{analysis.use}' is listed twice, and its figures would have one name"
            remedy = "list it once; a second study of the recipe can have it with other options"
            faults.at("analyses", index).add(text, remedy)
        listed.add(analysis.use)


def check_levels(
    parts: Mapping[str, Any], table: Mapping[str, Any], faults: FaultCollector
) -> None:
    """Report levels of controls, or of analyses, in a study that has none."""
    for key, of in LEVEL_KEYS.items():
        if key in table and not parts[of]:
            faults.at(key).add(f"has no effect: the study has no {of}", f"leave {key} out")


def shared_slots(searches: Sequence[SearchAlgorithm | None]) -> list[str]:
    """Return the slots that some search of a study uses; a search that is not known may be one."""
    slots = []
    for slot in OPTIONAL_SLOTS:
        # None: a search that an axis completes, of which nothing is known yet
        if any(search is None or uses(search, slot) for search in searches):
            slots.append(slot)
    return slots


def misplaced_criteria(parts: Mapping[str, Any]) -> list[Problem]:
    """Report criteria of whole networks inside components that cannot have them run.

    The engine runs the recipe's criterion. One that scores whole networks itself may hold another.
    """
    problems = []
    for slot in ("criterion", "search"):
        component = parts[slot]
        if component is None or (slot == "criterion" and Need.PROBE in component.needs):
            continue
        for nested in component.nested():
            if isinstance(nested, MaskCriterion) and Need.PROBE in nested.needs:
                text = (
                    f"the criterion '{nested.use}' scores whole networks, and the {slot} "
                    f"'{component.use}' only layer by layer"
                )
                remedy = "it can be the recipe's criterion, or an option of a NetworkCriterion"
                problems.append(Problem((slot,), text, remedy))
    return problems


def _keys_of(slot: str) -> Keys:
    if slot in OPTIONAL_SLOTS:
        return OPTIONAL_SLOTS[slot][0]
    return (slot,) if (slot,) in SLOTS else ("train", slot)


def check_batch_parts(train: Train, devices: int, faults: FaultCollector) -> None:
    """Report a batch that cannot be divided into as many parts as `accumulate` and `devices` say."""
    if devices == 1 and train.accumulate > train.batch:
        faults.at("train", "accumulate").add(
            f"a batch of {train.batch} has no {train.accumulate} parts", f"at most {train.batch}"
        )
    elif train.accumulate * devices > train.batch:
        faults.at("train", "batch").add(
            f"{train.batch} examples are fewer than the {train.accumulate * devices} parts of a "
            f"batch, of which each of {devices} devices computes {train.accumulate}",
            "a larger batch, or fewer engine.devices",
        )
