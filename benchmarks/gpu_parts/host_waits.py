"""How often a step launches work, copies between host and device, and waits."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lotteryfw.engine.kernels.captured import WARM_UP
from lotteryfw.engine.kernels.dispatch import make_kernel
from lotteryfw.engine.kernels.lockstep import Group

from .report import Report
from .trainings import ADAM, SGD, digit_data, image_data, prepare, training_step

STEPS = 10
CALLS = (
    "cudaGraphLaunch",
    "cudaLaunchKernel",
    "cuLaunchKernel",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "Memcpy",
)


def run(report: Report) -> None:
    """Every kind of step, then evaluations."""
    for name, step in _steps(report).items():
        with report.attempt(name):
            _count(report, name, step())
    for name, measure in _evaluations(report).items():
        with report.attempt(name):
            _count(report, name, measure(), steps=2)


def _count(report: Report, name: str, step: Callable[[], Any], steps: int = STEPS) -> None:
    for _ in range(WARM_UP + 2):
        step()
    report.synchronize()
    with waits(report.device) as lines:
        for _ in range(steps):
            step()
    report.synchronize()
    note = "; ".join(f"{count / steps:.3g} {line}" for line, count in lines.most_common(6))
    report.add(f"{name}: waits", sum(lines.values()) / steps, "a step", note)

    activities = [ProfilerActivity.CPU] + (
        [ProfilerActivity.CUDA] if report.device == "cuda" else []
    )
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
        report.synchronize()
    calls: Counter[str] = Counter()
    kernels, busy = 0, 0.0
    for event in recorded.key_averages():
        if event.device_type == DeviceType.CUDA:
            busy += event.self_device_time_total
            kernels += event.count
        if event.key.startswith(CALLS):
            calls[event.key] += event.count
    note = "; ".join(f"{count / steps:.3g} {call}" for call, count in calls.most_common())
    report.add(f"{name}: device busy", busy / steps, "µs/step", note)
    report.add(f"{name}: device operations", kernels / steps, "a step")


@contextmanager
def waits(device: str) -> Iterator[Counter[str]]:
    """Count the waits of a block by the line of lotteryfw that caused them; only CUDA tells of them."""
    lines: Counter[str] = Counter()

    def count(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" not in str(message):
            return
        for frame in reversed(traceback.extract_stack()):
            if "lotteryfw/" in frame.filename and "benchmarks" not in frame.filename:
                lines[f"{frame.filename.rsplit('lotteryfw/', 1)[-1]}:{frame.lineno}"] += 1
                return
        lines["elsewhere"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def _jobs(report: Report) -> dict[str, tuple[dict[str, Any], str, float]]:
    width = {"width": 0.1} if report.tiny else {}
    batch = 16 if report.tiny else 128
    resnet: dict[str, Any] = {
        "data": image_data(report), "model": {"use": "resnet20"} | width,
        "train": {"length": "400it", "batch": batch, "optimizer": SGD},
    }  # fmt: skip
    lenet: dict[str, Any] = {
        "data": digit_data(report), "model": {"use": "lenet_300_100", "bias": False}, "initialiser": "signed_constant",
        "train": {"length": "400it", "batch": batch, "optimizer": ADAM},
    }  # fmt: skip
    augmented = {**resnet, "train": {**resnet["train"], "augment": ["crop", "flip"]}}
    boxes = {**resnet, "train": {**resnet["train"], "augment": ["random_resized_crop"]}}
    popup = {"search": {"use": "edge_popup", "density": 0.5}, "parametrization": "top_k"}
    supermask = {"search": "supermask", "parametrization": "bernoulli"}
    return {
        "LeNet, reference": (lenet, "reference", 1.0),
        "LeNet, reference, masked": (lenet, "reference", 0.2),
        "LeNet, lockstep of one": (lenet, "lockstep", 0.2),
        "ResNet-20": (resnet, "reference", 1.0),
        "ResNet-20, masked": (resnet, "reference", 0.2),
        "ResNet-20, crop + flip": (augmented, "reference", 1.0),
        "ResNet-20, random_resized_crop": (boxes, "reference", 1.0),
        "LeNet, edge-popup": (lenet | popup, "auto", 1.0),
        "LeNet, supermask": (lenet | supermask, "auto", 1.0),
        "ResNet-20, supermask": (resnet | supermask, "auto", 1.0),
    }


def _steps(report: Report) -> dict[str, Callable[[], Callable[[], Any]]]:
    made: dict[str, Callable[[], Callable[[], Any]]] = {}
    for name, (table, kernel, density) in _jobs(report).items():
        made[name] = lambda table=table, kernel=kernel, density=density: training_step(
            *prepare(report, table, kernel, density)
        )

    def group_step(own_orders: bool) -> Callable[[], Any]:
        table, _, _ = _jobs(report)["LeNet, reference"]
        job, engine_context = prepare(report, table, "lockstep")
        seeds = range(16) if own_orders else [0] * 16
        group = Group([replace(job, order_seed=seed) for seed in seeds], engine_context)
        steps = iter(range(10**9))
        return lambda: group.update(next(steps), 1.0)

    if report.tiny:
        made = {name: made[name] for name in ("LeNet, reference", "LeNet, supermask")}
    made["LeNet, lockstep of 16"] = lambda: group_step(False)
    made["LeNet, lockstep of 16, own orders"] = lambda: group_step(True)
    return made


def _evaluations(report: Report) -> dict[str, Callable[[], Callable[[], Any]]]:
    def measured(name: str) -> Callable[[], Any]:
        table, kernel_name, density = _jobs(report)[name]
        job, engine_context = prepare(report, table, kernel_name, density)
        kernel = make_kernel([job], engine_context)
        kernel.update(0, 1.0)
        return lambda: kernel.members[0].evaluate("validation")

    chosen = ("LeNet, reference", "ResNet-20", "LeNet, edge-popup", "LeNet, supermask")[
        : 1 if report.tiny else 4
    ]
    return {f"{name}: evaluation": lambda name=name: measured(name) for name in chosen}
