"""A training that starts from a later step of the dense run, nothing removed, repeats its rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.small import cell, dense_job, engine_context, make
from support.trainings import run_training
from torch import Tensor

from lotteryfw.engine.train import Training, TrainingGroup
from lotteryfw.search.jobs import Train

RESNET = {"use": "resnet20", "width": 0.125}
SQUEEZENET = {"use": "torchvision", "name": "squeezenet1_1"}
"""It has a dropout, which draws in every update."""


def images(side: int) -> dict[str, Any]:
    return {"use": "synthetic", "examples": 60, "classes": 3, "shape": [3, side, side]}


def job_of(model: dict[str, Any], side: int, precision: str = "float32") -> Train:
    of = cell(
        9, model=model, data=images(side), batch=8, precision=precision,
        optimizer={"use": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
        augment=(make("augmentation", "flip"), make("augmentation", {"use": "crop", "padding": 1})),
    )  # fmt: skip
    return dense_job(of)


def trained(job: Train) -> Training:
    return run_training(TrainingGroup([job], engine_context()))


def bits(values: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in values.items()}


@pytest.mark.parametrize(
    ("model", "side", "precision"),
    [(RESNET, 8, "float32"), (RESNET, 8, "bf16"), (SQUEEZENET, 32, "float32")],
    ids=["resnet20", "resnet20 in bf16", "dropout"],
)
def test_the_rest_of_the_dense_run_is_repeated_bit_for_bit(
    model: dict[str, Any], side: int, precision: str
) -> None:
    job = job_of(model, side, precision)
    first, whole = trained(replace(job, steps=4)), trained(job)
    values = {name: value.detach().clone() for name, value in first.member.state().values.items()}
    momenta = {name: value.clone() for name, value in first.member.optimizer_state().items()}
    rest = replace(job, start=4, steps=5, values=values, optimizer_state=momenta)

    torch.manual_seed(99)  # what happened before makes no difference
    continued = trained(rest)
    assert bits(continued.member.state().values) == bits(whole.member.state().values)
    assert bits(continued.member.optimizer_state()) == bits(whole.member.optimizer_state())
    # and is no accident: the order goes on from step 4, where another start would take others
    early = trained(replace(rest, start=3))
    assert bits(early.member.state().values) != bits(whole.member.state().values)


def test_the_draws_of_dropout_differ_from_step_to_step() -> None:
    """The same batch at two steps: only what dropout draws can make the losses differ."""
    job = replace(job_of(SQUEEZENET, 32), augment=())
    network = TrainingGroup([job], engine_context()).kernel.network  # type: ignore[attr-defined]
    batch = network.batch(0)
    losses = []
    for step in (0, 1, 0):
        network.seed(step)
        losses.append(float(network.backward(*batch, network.tensors.values)))
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
