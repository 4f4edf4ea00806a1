"""Objectives that add a penalty on weights, or a teacher, to another objective."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from lotteryfw import Objective
from lotteryfw.std.wrapped_objective import WrappedObjective

if TYPE_CHECKING:
    from torch import Tensor

Strength = Annotated[float, Field(ge=0, description="Factor of the penalty.")]


class L1(WrappedObjective):
    """Adds the magnitudes of all prunable weights to the loss of each step."""

    use = "l1"
    formula = "loss + strength Σ |w|"
    source = "Tibshirani 1996, Regression Shrinkage and Selection via the Lasso"

    strength: Strength = 1e-5

    def own_penalty(self, weights: Mapping[str, Tensor]) -> Tensor:
        import torch

        # one sum for each layer, so that nothing is copied into one long vector
        magnitudes = [weight.abs().sum() for weight in weights.values()]
        return self.strength * torch.stack(magnitudes).sum()


class GroupLasso(WrappedObjective):
    """Adds the norms of all units' incoming weights to the loss of each step.

    It drives whole units, or channels of a convolution, to zero.
    """

    use = "group_lasso"
    formula = "loss + strength Σ sqrt(fan_in) ||w_unit||"
    source = (
        "Yuan & Lin 2006, Model selection and estimation in regression with grouped variables; "
        "Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks"
    )

    strength: Strength = 1e-5

    def own_penalty(self, weights: Mapping[str, Tensor]) -> Tensor:
        import torch

        norms = []
        for weight in weights.values():
            units = weight.flatten(1)
            # the norm has no slope at 0, where autograd gives 0, which keeps a pruned unit at rest
            size = sqrt(units.shape[1])
            norms.append(size * torch.linalg.vector_norm(units, dim=1).sum())
        return self.strength * torch.stack(norms).sum()


class Distillation(WrappedObjective):
    """Trains tickets to give the outputs of the cell's dense network, beside the inner loss.

    The dense network itself is trained by the inner loss. A penalty of the inner objective stays;
    an inner objective with a teacher is refused, since there is one teacher. Loss and accuracy on
    validation and test data are those of the inner objective, so that they compare with other
    trainings.
    """

    use = "distillation"
    formula = "(1 - share) loss + share T² KL(softmax(teacher / T) || softmax(outputs / T))"
    source = "Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2"
    needs_teacher = True

    share: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the teacher in the loss."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """T, which both networks' logits are divided by."""

    @field_validator("inner")
    @classmethod
    def _has_no_teacher(cls, inner: Objective) -> Objective:
        if inner.needs_teacher:
            raise ValueError(
                f"'{inner.use}' compares with the teacher itself: name an objective that does not"
            )
        return inner

    def own_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        return None

    def taught_loss(
        self, outputs: Tensor, teacher: Tensor, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        from torch.nn.functional import kl_div, log_softmax

        student = log_softmax(outputs / self.temperature, 1)
        taught = log_softmax(teacher / self.temperature, 1)
        # T² makes up for gradients that shrink with 1 / T², so that the share means the same at any T
        divergence = kl_div(student, taught, reduction="batchmean", log_target=True)
        distilled = self.temperature**2 * divergence
        loss = self.inner.loss(outputs, inputs, labels, "mean")
        return (1 - self.share) * loss + self.share * distilled
