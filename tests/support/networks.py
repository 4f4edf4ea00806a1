"""Networks that the model `factory` builds in its trial."""

from __future__ import annotations

from math import prod

from torch import nn


def chain(shape: tuple[int, ...], classes: int, units: int = 8) -> nn.Module:
    """Return a network with one hidden layer."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(prod(shape), units), nn.ReLU(), nn.Linear(units, classes)
    )
