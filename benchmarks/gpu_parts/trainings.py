"""Jobs and kernels on synthetic images, as the engine gets them from a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotteryfw.engine import Chooser, Workshop
from lotteryfw.engine.kernels.choose import kernel_of
from lotteryfw.runner import Desk
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
    desk = Desk(plain | table | {"engine": {"kernel": kernel}}, store=report.folder / "store")
    shop = Workshop(desk.registry, Path("no-data-needed"), report.device)
    lab = CellLab(
        desk.recipe.cells[0], desk.describe, shop.data_folder, report.device, Chooser(shop)
    )
    job = lab.job(first_ticket(lab))
    if density < 1:
        rng = torch.Generator().manual_seed(0)
        mask = {
            name: torch.rand(part.shape, generator=rng) < density for name, part in job.mask.items()
        }
        values = {name: value * mask.get(name, 1.0) + 0.0 for name, value in job.values.items()}
        job = replace(job, mask=mask, values=values)
    return job, shop


def first_ticket(lab: CellLab) -> Any:
    """The dense network; of a search that learns masks, the network with scores."""
    if lab.cell.parametrization is None:
        return lab.dense()
    return lab.learn_mask(getattr(lab.cell.search, "density", None))


def training_step(job: Train, shop: Workshop) -> Callable[[], Any]:
    """A function that does the next update of a job, its loss left on the device."""
    kernel = kernel_of(job, shop)
    step = -1

    def update() -> Any:
        nonlocal step
        step += 1
        return kernel.update(step, 1.0)

    return update
