"""Convolutional networks in float32, bf16 and fp16: right, and how fast beside bare loops of the same work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from lotteryfw.engine.arithmetic import algorithms_of
from lotteryfw.engine.kernels.captured import RECORDERS
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.search.jobs import Train

from .captured import compare
from .convs import Loop, _table, settings
from .graphs import StepByStep, recorder
from .graphs import captured as as_graph
from .report import Report
from .trainings import prepare, training_step

SECONDS = 0.6
"""How long each variant is timed."""


def run(report: Report) -> None:
    """Results first, then speed."""
    width = {"width": 0.1} if report.tiny else {}
    models = [{"use": name} | width for name in ("conv4", "resnet20", "resnet18")]
    with recorder(report, RECORDERS.get(report.device) or StepByStep()):
        for model in models[1:2] if report.tiny else models[:2]:
            for precision in ("bf16", "fp16"):
                with report.attempt(f"{model['use']}, {precision}: results", 40):
                    _right(report, model, precision)
        with report.attempt("an update that overflows", 20):
            _overflow(report, models[1])
        for model in models[:1] if report.tiny else models:
            with report.attempt(f"{model['use']}: speed", 60):
                _speed(report, model)


def _job(
    report: Report, model: dict[str, Any], precision: str, density: float
) -> tuple[Train, Any]:
    job, engine_context = prepare(report, _table(report, model, []), density=density)
    memory_format = "contiguous" if precision == "float32" else "channels_last"
    return replace(job, precision=precision, memory_format=memory_format), engine_context


def _right(report: Report, model: dict[str, Any], precision: str) -> None:
    """Recorded updates have the bits of those made step by step, and a checkpoint goes on to the same bits."""
    job, engine_context = _job(report, model, precision, density=0.2)
    name = f"{model['use']}, {precision}"
    compare(report, name, lambda: Reference(job, engine_context))

    whole, fresh = Reference(job, engine_context), Reference(job, engine_context)
    for step in range(8):
        whole.update(step, 1.0)
    fresh.network.restore(whole.network.state().copied(), whole.network.optimizer_state())
    losses = []
    for step in range(8, 16):
        losses.append([trained.update(step, 0.9).item() for trained in (whole, fresh)])
    equal = all(one == other and math.isfinite(one) for one, other in losses)
    theirs = fresh.network.state().values
    for label, value in whole.network.state().values.items():
        equal = equal and torch.equal(value, theirs[label])
    report.add(f"{name}: checkpoint, bits", "pass" if equal else "FAILED", note=str(losses[-1]))

    float32 = Reference(replace(job, precision="float32"), engine_context)
    for step in range(16):
        float32.update(step, 1.0)
    ours, plain = whole.network.evaluate("validation")[0], float32.network.evaluate("validation")[0]
    report.add(f"{name}: validation loss", ours, "", f"{plain:.4g} in float32, after 16 updates")


def _overflow(report: Report, model: dict[str, Any]) -> None:
    """In fp16, gradients that are not finite must leave the weights as they are, and lower the scale."""
    job, engine_context = _job(report, model, "fp16", density=1.0)
    trained = Reference(job, engine_context)
    for step in range(6):
        trained.update(step, 1.0)
    huge = trained.network.optimizer_state()
    huge["scaler.scale"] = torch.tensor(1e30, dtype=torch.float64)
    trained.network.restore(trained.network.state().copied(), huge)
    before = {name: value.clone() for name, value in trained.network.parameters.items()}
    for step in range(6, 12):  # some of them recorded
        trained.update(step, 1.0)
    equal = all(torch.equal(v, before[name]) for name, v in trained.network.parameters.items())
    scale = float(trained.network.optimizer_state()["scaler.scale"])
    good = equal and math.isclose(scale, 1e30 / 2**6, rel_tol=1e-3)
    report.add(
        "fp16: updates that overflow are left out",
        "pass" if good else "FAILED",
        note=f"scale {scale:.3g}",
    )


def _speed(report: Report, model: dict[str, Any]) -> None:
    """The reference kernel in each precision, recorded and not, beside bare loops with the same cuDNN settings."""
    name = model["use"]
    variants = (
        # label, precision, memory format, recorded
        ("float32, step by step", "float32", "contiguous", False),
        ("float32", "float32", "contiguous", True),
        ("float32 channels last", "float32", "channels_last", True),
        ("bf16 contiguous", "bf16", "contiguous", True),
        ("bf16, step by step", "bf16", "channels_last", False),
        ("bf16", "bf16", "channels_last", True),
        ("fp16", "fp16", "channels_last", True),
    )
    times = {}
    for label, precision, memory_format, is_recorded in variants:
        job, engine_context = _job(report, model, precision, density=1.0)
        job = replace(job, memory_format=memory_format)
        with recorder(report, RECORDERS.get(report.device) if is_recorded else None):
            seconds = report.seconds_per_call(training_step(job, engine_context), SECONDS)
        times[label] = seconds
        report.add(f"{name}: reference, {label}", seconds * 1e3, "ms/step")
    with algorithms_of(replace(job, deterministic=False)):
        job, engine_context = _job(report, model, "bf16", density=1.0)
        seconds = report.seconds_per_call(training_step(job, engine_context), SECONDS)
    report.add(f"{name}: reference, bf16, fastest cuDNN", seconds * 1e3, "ms/step")
    report.add(f"{name}: gain of bf16", times["float32"] / times["bf16"], "×", "both recorded")

    with settings(tf32=False, fastest=False):
        for label, bf16 in (("float32", False), ("bf16", True)):
            step: Any = Loop(report, model, channels_last=bf16, bf16=bf16).step
            if report.device == "cuda":
                step = as_graph(step)
            seconds = report.seconds_per_call(step, SECONDS)
            note = f"ours takes {times[label] / seconds:.3f} times as long"
            report.add(f"{name}: bare {label}, graph", seconds * 1e3, "ms/step", note)
    if report.device == "cuda":
        with settings(tf32=False, fastest=True):
            step = as_graph(Loop(report, model, channels_last=True, bf16=True).step)
            seconds = report.seconds_per_call(step, SECONDS)
            report.add(f"{name}: bare bf16, graph, fastest cuDNN", seconds * 1e3, "ms/step")
