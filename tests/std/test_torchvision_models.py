"""The classification networks of torchvision: each is built, and the families are pruned."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision import models

from lotteryfw import UsageError, run
from lotteryfw.std.torchvision_models import Name, TorchvisionModel

NAMES: tuple[str, ...] = typing.get_args(Name)
SMALL = ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet"]
LARGE = [
    "inception_v3", "efficientnet_b0", "resnet18", "densenet121", "resnext50_32x4d", "convnext_tiny", "swin_t",
    "mobilenet_v3_small", "regnet_y_400mf", "alexnet", "vit_b_32", "wide_resnet50_2", "maxvit_t", "vgg11_bn",
]  # fmt: skip
"""At least one of every family, the smallest that there is."""
SIDES = {"inception_v3": 75, "alexnet": 64, "maxvit_t": 224}


def named(name: str, **options: Any) -> TorchvisionModel:
    return TorchvisionModel.model_validate({"name": name, **options})


def test_every_network_that_torchvision_has_can_be_named() -> None:
    assert set(models.list_models(module=models)) <= set(NAMES)


@pytest.mark.parametrize("name", [*SMALL, "resnet50", "vit_b_16", "swin_t", "vgg16", "alexnet"])
def test_outputs_and_prunable_layers(name: str) -> None:
    side = SIDES.get(name, 64)
    with torch.device("meta"):
        network = named(name).build((3, side, side), 7)
        assert network.eval()(torch.zeros(2, 3, side, side)).shape == (2, 7)
    parameters = dict(network.named_parameters())
    prunable = named(name).prunable(network)
    layers = [part for part in network.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert len(prunable) == len(layers)
    assert parameters[prunable[-1]].shape[0] == 7


def prune_once(tmp_path: Path, name: str) -> None:
    side = SIDES.get(name, 32)
    finished = run(
        {
            "name": "families",
            "data": {"use": "synthetic", "examples": 40, "classes": 4, "shape": [3, side, side]},
            "model": {"use": "torchvision", "name": name},
            "search": {"use": "imp", "levels": 1},
            "train": {"length": "1it", "batch": 8, "optimizer": {"use": "sgd", "lr": 0.01}},
            "evaluate": {"points": 1},
        },
        out=tmp_path / "run", store=tmp_path / "store", data=tmp_path, jobs=1, device="cpu",
    )  # fmt: skip
    assert [level.steps for level in finished.levels] == [1, 1]
    assert [round(level.density, 2) for level in finished.levels] == [1, 0.8]


@pytest.mark.parametrize("name", SMALL)
def test_a_level_of_imp_on_tiny_images(tmp_path: Path, name: str) -> None:
    prune_once(tmp_path, name)


@pytest.mark.large
@pytest.mark.parametrize("name", LARGE)
def test_a_level_of_imp_of_a_large_network(tmp_path: Path, name: str) -> None:
    prune_once(tmp_path, name)


def test_grey_images_and_no_biases() -> None:
    network = named("mobilenet_v3_small", bias=False, affine=False).build((1, 32, 32), 3)
    assert network.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    prunable = named("mobilenet_v3_small").prunable(network)
    assert {name for name, _ in network.named_parameters()} == set(prunable)


def test_misfits_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="torchvision's resnet50 reads images"):
        named("resnet50").build((784,), 10)
    with pytest.raises(UsageError, match="vit_b_16 reads square images, not 32×48"):
        named("vit_b_16").build((3, 32, 48), 10)
    with pytest.raises(ValidationError, match="'resnet50'"):
        named("resnet51")
