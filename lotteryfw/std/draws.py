"""Draws that more than one kind of component makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def shuffled(values: Tensor, places: Tensor, rng: torch.Generator) -> Tensor:
    """[s]: `values` [s] with those at `places` [s] bool permuted among themselves, the others where they were."""
    import torch

    moving = values[places]
    result = values.clone()
    result[places] = moving[torch.randperm(len(moving), generator=rng).to(moving.device)]
    return result
