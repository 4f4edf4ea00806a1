"""The loss that a training makes small, that of auxiliary heads included."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lotteryfw.api.kinds import AuxiliaryOutputs, Objective


def training_loss(
    objective: Objective,
    outputs: Tensor | AuxiliaryOutputs,
    inputs: Tensor,
    labels: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Return the objective's loss of what a network in training returned: 0-d float32."""
    if not isinstance(outputs, AuxiliaryOutputs):
        return objective.loss(outputs, inputs, labels, reduction)
    loss = objective.loss(outputs.main, inputs, labels, reduction)
    for auxiliary in outputs.auxiliary:
        loss = loss + outputs.weight * objective.loss(auxiliary, inputs, labels, reduction)
    return loss
