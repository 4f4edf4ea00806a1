"""Trainings that every kernel is tried with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.small import cell, dense_job, kernel
from torch import nn

from lotteryfw.api.rng import stream
from lotteryfw.engine import EngineContext
from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"use": "sgd", "lr": 0.1},
    "decay": {"use": "sgd", "lr": 0.1, "weight_decay": 1e-2},
    "momentum": {"use": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"use": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"use": "adam", "lr": 3e-3, "weight_decay": 1e-3},
    "adamw": {"use": "adamw", "lr": 3e-3, "weight_decay": 1e-1},
    "rmsprop": {"use": "rmsprop", "lr": 1e-3, "momentum": 0.9},
}

IMAGES = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [3, 8, 8], "noise": 0.5}
CONV = {"use": "conv2", "width": 0.1}
FROZEN = 0.01
"""The value of the masked weights of `masked_job`."""


def masked_job(steps: int, **changes: Any) -> Train:
    """A training of a convolutional network whose masked weights are frozen at another value than 0."""
    settings = {"data": IMAGES, "model": CONV, "optimizer": OPTIMIZERS["momentum"]} | changes
    job = dense_job(cell(steps, **settings))
    rng = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(mask.shape, generator=rng) < 0.5 for name, mask in job.mask.items()}
    values = dict(job.values)
    for name, mask in masks.items():
        values[name] = values[name].where(mask, torch.tensor(FROZEN))
    return replace(job, mask=masks, values=values, kernel=kernel("reference"))


def of_network(job: Train, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Train:
    """The job with another network, whatever its data and model are: every build returns it."""
    monkeypatch.setattr(EngineContext, "network", lambda self, *what: network)
    values = {name: value.detach().clone() for name, value in network.state_dict().items()}
    mask = {}
    for name, value in values.items():
        if name.endswith(".weight"):
            mask[name] = torch.ones(value.shape, dtype=torch.bool)
    scores = {}
    if job.scores:
        for name in mask:
            scores[name] = torch.randn(mask[name].shape, generator=stream("scores", name))
    return replace(job, values=values, mask=mask, scores=scores)


def minus_zero(job: Train) -> Train:
    """The job with dead weights at -0.0."""
    dead = {name: job.values[name].masked_fill(~mask, -0.0) for name, mask in job.mask.items()}
    return replace(job, values={**job.values, **dead})


def jobs_of(
    count: int,
    steps: int = 40,
    *,
    shared: bool = False,
    density: float = 0.5,
    frozen: float = 0.5,
    **changes: Any,
) -> list[Train]:
    """Trainings that go together: each of its own seed and mask, all on the same batches where `shared`."""
    jobs = []
    for seed in range(count):
        job = dense_job(cell(steps, seed=seed, **changes))
        mask = {
            name: torch.rand(m.shape, generator=stream("m", seed, name)) < density
            for name, m in job.mask.items()
        }
        values = {
            n: torch.where(mask[n], v, v * frozen + 0.0) if n in mask else v
            for n, v in job.values.items()
        }
        seeds: dict[str, Any] = {"order_seed": 7, "augment_seed": 8} if shared else {}
        jobs.append(replace(job, mask=mask, values=values, kernel=kernel("lockstep"), **seeds))
    return jobs


def nothing(training: Training) -> None:
    """Watch a training without a look at it."""


def run_training(
    group: TrainingGroup,
    until: int | None = None,
    at_step: Callable[[Training], None] = nothing,
) -> Training:
    """Train the one member of a group, and call `at_step` at its start and after every update."""
    (training,) = group.trainings
    until = training.end if until is None else until
    if not training.curve["step"]:
        training.count(0)
        at_step(training)
    while training.step < until:
        training.count(group.update(training.step, training.step + 1, lambda step: False))
        at_step(training)
    return training
