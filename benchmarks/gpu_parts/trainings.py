"""Jobs and kernels on synthetic images, as the engine gets them from a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotteryfw.engine import EngineContext, KernelDispatcher
from lotteryfw.engine.kernels.dispatch import make_kernel
from lotteryfw.runner import StudyContext
from lotteryfw.search.jobs import Train
from lotteryfw.search.lab import CellLab

from .report import Report

SGD = {"use": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
ADAM = {"use": "adam", "lr": 1.2e-3}


def image_data(report: Report, side: int = 32) -> dict[str, Any]:
    """Images of CIFAR's size."""
    side = 8 if report.tiny else side
    return {"use": "synthetic", "examples": 64 if report.tiny else 5120, "shape": [3, side, side]}


def digit_data(report: Report) -> dict[str, Any]:
    """Images of MNIST's size."""
    side = 8 if report.tiny else 28
    return {"use": "synthetic", "examples": 64 if report.tiny else 6000, "shape": [1, side, side]}


def prepare(
    report: Report, table: dict[str, Any], kernel: str = "reference", density: float = 1.0
) -> Any:
    """The first training of a recipe, as a job for a kernel, under a random mask; and a workshop to run it in."""
    plain = {"name": "gpu-benchmark", "search": {"use": "imp", "levels": 1}}
    context = StudyContext(
        plain | table | {"engine": {"kernel": kernel}}, store=report.folder / "store"
    )
    engine_context = EngineContext(context.registry, Path("no-data-needed"), report.device)
    lab = CellLab(
        context.recipe.cells[0],
        context.describe,
        engine_context.data_folder,
        report.device,
        KernelDispatcher(engine_context),
    )
    job = lab.job(first_ticket(lab))
    if density < 1:
        rng = torch.Generator().manual_seed(0)
        mask = {
            name: torch.rand(part.shape, generator=rng) < density for name, part in job.mask.items()
        }
        values = {name: value * mask.get(name, 1.0) + 0.0 for name, value in job.values.items()}
        job = replace(job, mask=mask, values=values)
    return job, engine_context


def first_ticket(lab: CellLab) -> Any:
    """The dense network; of a search that learns masks, the network with scores."""
    if lab.cell.parametrization is None:
        return lab.dense()
    return lab.learn_mask(getattr(lab.cell.search, "density", None))


def training_step(job: Train, engine_context: EngineContext) -> Callable[[], Any]:
    """A function that does the next update of a job, its loss left on the device."""
    kernel = make_kernel([job], engine_context)
    step = -1

    def update() -> Any:
        nonlocal step
        step += 1
        return kernel.update(step, 1.0)

    return update
