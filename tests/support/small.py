"""Small, fast pieces that several tests are made of: cells, labs, jobs and stores on synthetic data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.api.steps import Clock
from lotteryfw.engine import EngineContext, execute
from lotteryfw.engine.kernels.dispatch import descriptions
from lotteryfw.registry import Registry
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Job, KernelSpec, ProbeJob, Spec, Train
from lotteryfw.search.lab import CellLab
from lotteryfw.store import Store

REGISTRY = Registry.load()
DATA = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5}
"""Small enough to train in milliseconds; 330 examples leave a partial batch in every part."""


def describe(component: Component, clock: Clock) -> Spec:
    """A component as jobs name it."""
    offer = REGISTRY.offer_of(component)
    options = REGISTRY.options_for_job(component, clock)
    return Spec(offer.kind, offer.full_name, offer.provider, options)


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
    slots: dict[str, Any] = {
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
    return CellLab(of, describe, Path("unused"), device, reference_kernel)


def kernel(name: str, **options: Any) -> KernelSpec:
    """A kernel as jobs name it."""
    revisions = {description.name: description.revision for description in descriptions()}
    return KernelSpec(name, revisions[name], options)


def reference_kernel(job: Train, choice: str, sparse_below: float | None) -> KernelSpec:
    """The kernel that can train a job whatever it is made of, without a look at its network."""
    return kernel("reference" if job.parametrization is None else "mask_training")


def dense_job(of: Cell) -> Train:
    """The training of a cell's dense network."""
    desk = lab(of)
    job = desk.job(desk.dense())
    assert isinstance(job, Train)
    return job


def probe_job(of: Train, component: Spec, *stream_labels: str | int) -> ProbeJob:
    """The probe of a component on the network that a training starts from."""
    return ProbeJob(
        of.model,
        of.data,
        of.fingerprint,
        of.objective,
        component,
        tuple(of.mask),
        stream_labels,
        of.device,
        of.values,
        of.mask,
    )


def gradient_job(of: Train) -> ProbeJob:
    """The gradient at the values that a training starts from."""
    return probe_job(of, Spec("probe", "gradient", "lotteryfw", {"batch": of.batch}))


def engine_context() -> EngineContext:
    """An engine on the CPU."""
    return EngineContext(REGISTRY, Path("unused"), "cpu")


def execute_one(
    job: Job,
    store: Store,
    context: EngineContext,
    on_step: Callable[[int, int], bool],
    checkpoint_seconds: float = 60.0,
) -> str | None:
    """Run one job into the store, and return its warning."""
    warnings: dict[str, str | None] = {}
    execute([job], store, context, on_step, warnings.__setitem__, checkpoint_seconds)
    return warnings[job.key]
