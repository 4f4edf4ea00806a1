"""The draws of the built-in components: their streams, and a draw that several kinds make."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class OwnStream(StrEnum):
    """The purposes that built-in components draw for from streams of their own."""

    SPLIT = "split"
    """It is decided which examples are the validation part."""
    SYNTHETIC = "synthetic"
    """The data source `synthetic` draws its prototypes and examples."""
    WEIGHT_SCATTER = "weight scatter"
    """The analysis `weight_scatter` chooses the weights that it shows."""


def shuffled(values: Tensor, places: Tensor, rng: torch.Generator) -> Tensor:
    """Return `values` [s] with those at `places` [s] bool permuted among themselves.

    The other values stay where they are.
    """
    import torch

    moving = values[places]
    result = values.clone()
    # the permutation is drawn on the CPU, so that every device gets the same
    result[places] = moving[torch.randperm(len(moving), generator=rng).to(moving.device)]
    return result
