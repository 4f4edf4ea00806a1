"""The trials of objectives, metrics and analyses notice each kind of fault."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor
from torch.nn.functional import cross_entropy

from lotteryfw import ContractError, Metric, Objective
from lotteryfw.std.objectives import Classification
from lotteryfw.testkit import trial


class Focal(Classification):
    """Cross-entropy with less weight on what is classified well."""

    use = "focal"

    def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Any) -> Tensor:
        losses = cross_entropy(outputs, labels, reduction="none")
        losses = (1 - (-losses).exp()).square() * losses
        return losses.mean() if reduction == "mean" else losses.sum()


class ClosedForm(Objective):
    """Plain cross-entropy, which kernels have built in."""

    use = "closed_form"

    def loss(self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Any) -> Tensor:
        return cross_entropy(outputs, labels, reduction=reduction)

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(1) == labels

    def closed_form(self) -> str:
        return "cross_entropy"


def steeper(self: Any, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Any) -> Tensor:
    doubled: Tensor = 2 * outputs
    # the value is that of the outputs, and the gradient twice theirs
    return cross_entropy(doubled - outputs.detach(), labels, reduction=reduction)


FORM_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "another loss": ({"loss": Focal.loss}, r'loss\(…, "mean"\) is .* and the cross-entropy is'),
    "another gradient": ({"loss": steeper}, "gradient of loss.* is not that of cross-entropy"),
    "another figure": (
        {"correct": lambda self, outputs, inputs, labels: outputs.argmin(1) == labels},
        "not True where the largest logit is the label's",
    ),
    "misspelt": ({"closed_form": lambda self: "crossentropy"}, "returned 'crossentropy', not one"),
    "no classes": (
        {
            "labels_are_classes": False,
            "why_not": lambda self, info: None if info.label_shape == (2,) else "it reads pairs",
            "loss": lambda self, outputs, inputs, labels, reduction: cross_entropy(
                outputs, labels[:, 0], reduction=reduction
            ),
            "correct": lambda self, outputs, inputs, labels: outputs.argmax(1) == labels[:, 0],
        },
        "does not read one class for each example",
    ),
}


class Pictures(Metric):
    """Measures how far output images are from the inputs."""

    use = "pictures"
    unit = "number"
    needs_classes = False

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - inputs.flatten(1)).square().mean(1)

    def result(self, values: Tensor) -> float:
        return float(values.mean())


def test_a_metric_that_needs_no_classes_sees_outputs_like_inputs() -> None:
    trial(Pictures)


def test_a_subclass_of_classification_is_not_trained_in_closed_form() -> None:
    trial(Focal)
    assert Focal().closed_form() == ""
    assert Classification().closed_form() == "cross_entropy"


@pytest.mark.parametrize("fault", FORM_FAULTS)
def test_an_objective_must_be_what_its_closed_form_says(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial(ClosedForm)
    members, message = FORM_FAULTS[fault]
    for name, value in members.items():
        monkeypatch.setattr(ClosedForm, name, value)
    with pytest.raises(ContractError, match=message):
        trial(ClosedForm)
