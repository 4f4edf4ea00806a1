"""Metrics of classifiers, beside the objective's loss and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import Metric

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET = "Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks"
CALIBRATION = "Guo et al. 2017, On Calibration of Modern Neural Networks, section 2"


class TopK(Metric):
    """Counts an example as correct where its label is among the `k` largest logits.

    Of equal logits the class of the lower number comes first.
    """

    use = "top_k"
    formula = "mean of [rank of logits[label] ≤ k]"
    source = IMAGENET

    k: Annotated[int, Field(ge=1)] = 5
    """The number of classes that are looked at."""

    def name(self) -> str:
        return f"top_{self.k}"

    def why_not(self, classes: int) -> str | None:
        if self.k >= classes:
            return f"the label is always among the {self.k} largest logits of {classes} classes"
        return None

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        order = outputs.argsort(dim=1, descending=True, stable=True)
        is_label: Tensor = order[:, : self.k] == labels[:, None]
        return is_label.any(1)

    def result(self, values: Tensor) -> float:
        return float(values.double().mean())


class NegativeLogLikelihood(Metric):
    """Computes the mean of -log of the probability of the label, whatever the objective is."""

    use = "nll"
    formula = "mean of -log softmax(logits)[label]"
    source = CALIBRATION
    unit = "number"

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs.double(), labels, reduction="none")

    def result(self, values: Tensor) -> float:
        return float(values.mean())


class ExpectedCalibrationError(Metric):
    """Computes how far confidence is from accuracy: the mean of |accuracy - confidence| over bins.

    Confidence is the largest probability; bins are (0, 1/bins], …, (1 - 1/bins, 1], weighted with
    their numbers of examples.
    """

    use = "ece"
    formula = "Σ_bin |bin| / n · |accuracy(bin) - mean confidence(bin)|"
    source = CALIBRATION

    bins: Annotated[int, Field(ge=1, le=1000)] = 15
    """The number of bins, of equal width."""

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        import torch

        confidence, predicted = outputs.double().softmax(1).max(1)
        return torch.stack([confidence, (predicted == labels).double()], 1)

    def result(self, values: Tensor) -> float:
        import torch

        confidence, correct = values.unbind(1)
        # Of a bin the upper end belongs to it: ceil(confidence * bins) - 1.
        bins = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        gaps = torch.zeros(self.bins, dtype=values.dtype).index_add(0, bins, correct - confidence)
        return float(gaps.abs().sum() / len(values))


class MeanClassAccuracy(Metric):
    """Computes the mean of the accuracies of all classes that have examples."""

    use = "mean_class_accuracy"
    formula = "mean over classes of the share of the class's examples that are correct"
    source = "Brodersen et al. 2010, The Balanced Accuracy and Its Posterior Distribution"

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return _label_and_correct(outputs, labels)

    def result(self, values: Tensor) -> float:
        return float(_class_accuracies(values).mean())


class WorstClassAccuracy(Metric):
    """Computes the accuracy of the class that has the lowest, of those that have examples."""

    use = "worst_class_accuracy"
    formula = "minimum over classes of the share of the class's examples that are correct"
    source = "Hooker et al. 2019, What Do Compressed Deep Neural Networks Forget?"

    def per_example(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return _label_and_correct(outputs, labels)

    def result(self, values: Tensor) -> float:
        return float(_class_accuracies(values).min())


def _label_and_correct(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return [n, 2] int64: the label, and 1 where the largest logit is the label's."""
    import torch

    return torch.stack([labels, (outputs.argmax(1) == labels).long()], 1)


def _class_accuracies(values: Tensor) -> Tensor:
    """Return the accuracy of each class that has examples, float64."""
    import torch

    labels, correct = values.unbind(1)
    examples = torch.bincount(labels)
    hits = torch.bincount(labels, weights=correct.double())
    has_examples = examples > 0
    return hits[has_examples] / examples[has_examples]
