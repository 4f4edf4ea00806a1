"""Layers to try criteria and actions on."""

from __future__ import annotations

import torch
from torch import Tensor

from lotteryfw.api.layers import Layer, LayerInfo
from lotteryfw.api.rng import stream

NAME = "fc1.weight"


def make_layer(
    shape: tuple[int, ...] = (6, 5),
    seed: int = 0,
    level: int = 2,
    purpose: str = "test",
    **given: Tensor,
) -> Layer:
    """A layer as at the second cut of a network: about half was dead before, about half of the rest has just gone.

    All five tensors differ from each other, so that a component that reads the wrong one is found out. `given`
    replaces any of them.
    """

    def values(what: str) -> Tensor:
        return torch.randn(shape, generator=stream(seed, what))

    mask_before = torch.rand(shape, generator=stream(seed, "before")) < 0.5
    fields: dict[str, Tensor] = {
        "original": values("original"),
        "init": values("init"),
        "final": values("final"),
        "rewound": values("rewound"),
        "mask_before": mask_before,
        "mask": mask_before & (torch.rand(shape, generator=stream(seed, "cut")) < 0.5),
    }
    return Layer(
        LayerInfo(NAME, shape), rng=stream(seed, purpose, level, NAME), _resample=lambda: values("resampled"),
        **(fields | given),
    )  # fmt: skip
