"""Penalties: what components add to the loss of a step, beside the objective's loss of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import Objective
from lotteryfw.engine.component_errors import described


def check_penalty(penalty: object, what: str) -> None:
    """Raise ContractError for a penalty that is no floating-point number on a device.

    Its value is not looked at, since that would wait for the device at every step.
    """
    if isinstance(penalty, Tensor) and penalty.dim() == 0 and penalty.is_floating_point():
        return
    raise ContractError(
        f"{what} returned {described(penalty)}; a 0-d floating-point tensor belongs there"
    )


def has_penalty(objective: Objective) -> bool:
    """Return True for an objective with a penalty of its own, whose value may be None all the same.

    One that wraps another objective has one if it has the method, since options may turn it off.
    """
    return type(objective).penalty is not Objective.penalty


def with_penalty(loss: Tensor, penalty: Tensor | None) -> Tensor:
    """Return the loss that a step makes small. What is reported is the loss alone."""
    return loss if penalty is None else torch.add(loss, penalty)
