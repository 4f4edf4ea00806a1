"""Finds where a study's parts are written, for checks that need a plan of its searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lotteryfw.recipe.expand import ExpandedStudy
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import SLOTS

CHECKED_SLOTS = ("criterion", "scope", "mask1", "mask0", "rewind", "initialiser")
"""The components that every cell has and that some searches do not use. The recipe schema checks
those of `OPTIONAL_SLOTS`, and every training uses the others."""

_ENGINE_KEYS = (("engine", "kernel"), ("engine", "devices"))
"""Keys that checks of trainings are about, as they are about components."""

Place = tuple[str, str]
"""A file, and the key in it that something is written at."""


@dataclass(frozen=True)
class WrittenParts:
    """The places of a study's parts.

    `axes` has them by the path of an axis with several values, `components` by slot. A component
    that equals its kind's default is left out, since a resolved recipe writes every default.
    `slots` has the place of every component, of the kernel and of the devices: its axis, or where
    it is or would be written.
    """

    study: str
    axes: Mapping[str, Place]
    components: Mapping[str, Place]
    slots: Mapping[str, Place]


def written_parts(study: ExpandedStudy, resolver: ComponentResolver) -> WrittenParts:
    """Return where the axes and components of a study are written."""
    axes: dict[str, Place] = {}
    varied = set()
    for axis in study.axes:
        varied.add(axis.keys[0])
        if len(axis.values) > 1:
            axes[axis.path] = study.locate(axis.written)

    components: dict[str, Place] = {}
    for slot in CHECKED_SLOTS:
        # What an axis gives, or gives options to, is checked as an axis.
        if slot in varied or not study.cells:
            continue
        # equal components are equal in class and options, however they are written
        default, _ = resolver.component(slot, None)
        if getattr(study.cells[0], slot) != default:
            components[slot] = study.locate((slot,))
    slots: dict[str, Place] = {"start": study.locate(("start",))}
    for keys in (*SLOTS, *_ENGINE_KEYS):
        # a slot is called by the last of its keys: "optimizer" for train.optimizer
        slots[str(keys[-1])] = study.locate(keys)
        for axis in study.axes:
            if axis.keys == keys:
                slots[str(keys[-1])] = study.locate(axis.written)
    return WrittenParts(study.name, axes, components, slots)
