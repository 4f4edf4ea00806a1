"""The bytes that a training holds: as the plan counts them without a device, and the peak that is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lotteryfw.engine import EngineContext
from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.dispatch import make_kernel
from lotteryfw.engine.memory import training_memory

from .convs import _table
from .report import Report, free_memory
from .trainings import prepare


def run(report: Report) -> None:
    """Each network in float32 and in bf16, and with activations that are computed twice."""
    width = {"width": 0.1} if report.tiny else {}
    for name in ("resnet20",) if report.tiny else ("conv4", "resnet20", "resnet18"):
        job, engine_context = prepare(report, _table(report, {"use": name} | width, []))
        variants = {
            "float32": job,
            "bf16": replace(job, precision="bf16", memory_format="channels_last"),
            "float32, activations twice": replace(job, activation_checkpointing=True),
        }
        for label, variant in variants.items():
            with report.attempt(f"{name}, {label}", 30):
                _measure(report, f"{name}, {label}", variant, engine_context)


def _measure(report: Report, name: str, job: Any, engine_context: EngineContext) -> None:
    on_host = replace(engine_context, device="cpu", _cached=None)
    planned = training_memory(job, on_host).of_training
    report.add(f"{name}: planned", planned / 2**20, "MiB", "without the data set")
    if report.device != "cuda":
        return
    engine_context.dataset_of(job)
    free_memory(report.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernel = make_kernel([job], engine_context)
    for step in range(WARM_UP + 3):
        kernel.update(step, 1.0)
    report.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    report.add(f"{name}: peak", peak / 2**20, "MiB", f"{peak / planned:.2f} of the plan's")
