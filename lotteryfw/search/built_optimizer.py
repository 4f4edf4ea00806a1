"""Optimizers as their components build them, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import Optimizer
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def build_optimizer(
    component: Optimizer, spec: Spec, parameters: Mapping[str, Tensor]
) -> torch.optim.Optimizer:
    """Return the optimizer that a component builds over parameters by name.

    Raises ContractError where it returns anything else, PluginError where it breaks, and what it
    raises for parameters that it refuses.
    """
    import torch

    with blame(spec, "build"):
        optimizer: object = component.build(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ContractError(
            f"{describe(spec)}: build() returned {type(optimizer).__name__}; it must return a "
            "torch.optim.Optimizer"
        )
    return optimizer
