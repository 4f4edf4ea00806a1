"""The loss that a training makes small, that of auxiliary heads included."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lotteryfw.api.kinds import AuxiliaryOutputs


def training_loss(
    loss_of: Callable[[Tensor], Tensor], outputs: Tensor | AuxiliaryOutputs
) -> Tensor:
    """Return the loss of what a network in training returned: 0-d float32.

    `loss_of` returns the loss of the outputs of one head.
    """
    if not isinstance(outputs, AuxiliaryOutputs):
        return loss_of(outputs)
    loss = loss_of(outputs.main)
    for auxiliary in outputs.auxiliary:
        loss = loss + outputs.weight * loss_of(auxiliary)
    return loss
