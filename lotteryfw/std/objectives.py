"""Objectives: the loss that a training minimises, and the figure that is reported."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import Objective

if TYPE_CHECKING:
    from torch import Tensor


class Classification(Objective):
    """Cross-entropy; an example counts as right where its label has the largest logit."""

    use = "classification"
    loss_unit = "nats per example"
    formula = "-log softmax(logits)[label]"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 2"
    default = True

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes, in the measured loss as well."""

    def closed_form(self) -> str:
        # a subclass may do something else, and must say so itself
        if type(self) is not Classification:
            return ""
        # the kernels with a gradient of their own have that of plain labels only
        return "cross_entropy" if self.label_smoothing == 0 else ""

    def loss(
        self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]
    ) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(
            outputs, labels, reduction=reduction, label_smoothing=self.label_smoothing
        )

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(1) == labels


class Reconstruction(Objective):
    """The squared error of giving an input back, as autoencoders do; labels are not used.

    The share of an input's variance that is explained, at least 0, is reported in place of an
    accuracy.
    """

    use = "reconstruction"
    formula = (
        "mean over pixels of (output - input)²; "
        "explained variance 1 - |output - input|² / |input - mean|²"
    )
    source = "Hinton & Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks"
    labels_are_classes = False
    figure_name = "explained variance"

    def output_size(self, shape: tuple[int, ...], classes: int) -> int:
        return prod(shape)

    def loss(
        self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]
    ) -> Tensor:
        # the mean over pixels also under "sum", which sums over examples
        losses = (outputs - inputs.flatten(1)).square().mean(1)
        return losses.mean() if reduction == "mean" else losses.sum()

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        spread = (flat - flat.mean(1, keepdim=True)).square().sum(1)
        # an image of one colour has no variance to explain, and would divide by 0
        return (1 - (outputs - flat).square().sum(1) / spread.clamp(min=1e-12)).clamp(min=0)
