"""The loss that a training makes small, that of auxiliary heads included."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import AuxiliaryOutputs
from lotteryfw.engine.component_errors import described
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Train


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


def check_outputs(job: Train, outputs: object) -> None:
    """Raise ContractError for what a network in training must not return."""
    if isinstance(outputs, Tensor | AuxiliaryOutputs):
        return
    raise ContractError(
        f"{describe(job.model)}: forward() returned {described(outputs)} in training; it must "
        "return a tensor or AuxiliaryOutputs"
    )


def constant_loss(job: Train, outputs: Tensor | AuxiliaryOutputs) -> ContractError:
    """Return the error for a loss that no parameter decides: the objective's, or the model's."""
    main = outputs.main if isinstance(outputs, AuxiliaryOutputs) else outputs
    if main.requires_grad:
        return ContractError(
            f"{describe(job.objective)}: loss() returned a value without a gradient; it must be "
            "differentiable in `outputs`"
        )
    return ContractError(
        f"{describe(job.model)}: the outputs in training have no gradient; forward() must compute "
        "them with torch from the parameters"
    )
