"""Checks that the parts of a recipe can read its data, by what is known before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.resolve import ComponentResolver


def check_data_fit(
    parts: Mapping[str, Any], resolver: ComponentResolver, faults: FaultCollector
) -> None:
    """Report an objective that cannot read the labels, and augmentations of tokens."""
    data, objective = parts["data"], parts["objective"]
    info = None if data is None else resolver.dataset_info(data)
    if info is None:
        return
    if objective is not None:
        where = faults.at("train", "objective")
        try:
            reason = objective.why_not(info)
        except Exception as error:
            # A plugin's own method may raise anything.
            where.add(resolver.broke(objective, "`why_not`", error))
        else:
            if reason:
                name = f"'{resolver.name(objective)}' cannot read the data '{resolver.name(data)}'"
                where.add(f"{name}: {reason}")
    if info.vocabulary:
        for index, augmentation in enumerate(parts["augment"]):
            if augmentation is not None:
                text = f"'{resolver.name(augmentation)}' changes images, and the inputs are tokens"
                faults.at("train", "augment", index).add(text, "leave it out")
