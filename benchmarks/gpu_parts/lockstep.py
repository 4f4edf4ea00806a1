"""LeNet-300-100 trained in lockstep: steps a second by members, against one network alone and the device's limit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from math import isnan
from typing import Any

import torch

from lotteryfw.engine.kernels.lockstep import KERNEL, Group
from lotteryfw.search.jobs import KernelSpec

from .graphs import recorder
from .report import Report
from .trainings import ADAM, digit_data, prepare, training_step

MEMBERS = (1, 16, 64, 256)
BATCH = 60
SEEN = {"adam": 6, "sgd": 2}
"""Reads and writes of every parameter's numbers that a step cannot do without: Adam's weights and two means."""


def run(report: Report) -> None:
    """Adam as in the papers, and plain SGD, whose update is fused into the products."""
    for optimizer in (ADAM, {"use": "sgd", "lr": 0.1}):
        name = str(optimizer["use"])
        table = {
            "data": digit_data(report), "model": "lenet_300_100",
            "train": {"length": "1000it", "batch": BATCH, "optimizer": optimizer},
        }  # fmt: skip
        job, engine_context = prepare(report, table)
        with report.attempt(f"{name}, reference"):
            seconds = report.seconds_per_call(training_step(job, engine_context))
            report.add(f"{name}, reference, 1 network", 1 / seconds, "steps/s")

        for members in (1, 4) if report.tiny else MEMBERS:
            with report.attempt(f"{name}, {members} members"):
                _measure(report, name, job, engine_context, members)


def _measure(report: Report, name: str, job: Any, engine_context: Any, members: int) -> None:
    """Members that see one order of the examples, members with an order of their own, and without a recording."""
    jobs = [replace(job, kernel=KernelSpec(KERNEL.name, KERNEL.revision))] * members
    least = least_seconds(report, name, job, members)
    own = [replace(each, order_seed=number) for number, each in enumerate(jobs)]
    for label, members_jobs in (
        ("shared order", jobs),
        ("own orders", own),
        ("shared order, not recorded", jobs),
    ):
        if members == 1 and label == "own orders":
            continue
        with recorder(report, None) if "not recorded" in label else nullcontext():
            group = Group(members_jobs, engine_context)
        steps = iter(range(10**9))
        losses = torch.zeros(members, device=report.device)

        def update(group: Group = group, steps: Any = steps, losses: Any = losses) -> None:
            losses.add_(group.update(next(steps), 1.0))

        seconds = report.seconds_per_call(update)
        note = f"{seconds * 1e6:.0f} µs a step of all"
        if not isnan(least):
            note += f", {seconds / least:.1f}× the least"
        report.add(f"{name}, {members} members, {label}", members / seconds, "steps/s", note)


def least_seconds(report: Report, name: str, job: Any, members: int) -> float:
    """The time that no step of all members can be faster than: products at the float32 rate, or bytes at the copy's
    rate, whichever is longer."""
    weights = [value.numel() for value in job.values.values() if value.dim() == 2]
    operations = 2 * min(BATCH, job.batch) * (3 * sum(weights) - weights[0])
    moved = 4 * SEEN[name] * sum(value.numel() for value in job.values.values())
    return members * max(operations / report.rate("product fp32"), moved / report.rate("copy"))
