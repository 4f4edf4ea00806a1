"""Small, fast pieces that several tests are made of: cells, labs, jobs and stores on synthetic data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.api.steps import Clock
from lotteryfw.engine import Workshop
from lotteryfw.registry import Registry
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Spec, Train
from lotteryfw.search.lab import CellLab

REGISTRY = Registry.load()
DATA = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5}
"""Small enough to train in milliseconds; 330 examples leave a partial batch in every part."""


def describe(component: Component, clock: Clock) -> Spec:
    """A component as jobs name it."""
    offer = REGISTRY.offer_of(component)
    return Spec(offer.kind, offer.full_name, offer.provider, component.options(clock))


def make(kind: str, table: Any) -> Any:
    """A component by its recipe table."""
    return REGISTRY.create(kind, table)


def cell(steps: int = 20, **changes: Any) -> Cell:
    """A cell on synthetic data; `changes` are recipe tables by slot, or fields of the cell."""
    tables: dict[str, Any] = {
        "search": {"use": "imp", "levels": 2}, "criterion": "large_final", "scope": "layerwise", "mask1": "rewind",
        "mask0": "zero", "rewind": "to_init", "model": {"use": "mlp", "hidden": [8, 6]},
        "initialiser": "glorot_normal", "data": DATA, "objective": "classification",
        "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}, "schedule": "constant",
    }  # fmt: skip
    tables |= {slot: changes.pop(slot) for slot in list(changes) if slot in tables}
    batch = changes.pop("batch", 16)
    slots = {
        slot: make(slot, table) if not isinstance(table, Component) else table
        for slot, table in tables.items()
    }
    plain = Cell(
        study="s", id="s/seed=0", axes={}, seed=0, augment=(), batch=batch, evaluate_every=5, **slots,
        clock=Clock(steps, slots["data"].facts(Path("unused")).train // batch),
    )  # fmt: skip
    return replace(plain, **changes)


def lab(of: Cell, device: str = "cpu") -> CellLab:
    """The lab of a cell."""
    return CellLab(of, describe, Path("unused"), device)


def dense_job(of: Cell) -> Train:
    """The training of a cell's dense network."""
    desk = lab(of)
    return desk.job(desk.dense())


def shop() -> Workshop:
    """A workshop on the CPU."""
    return Workshop(REGISTRY, Path("unused"), "cpu")
