"""Every metric against scikit-learn, or against a plain loop over the examples."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    log_loss,
    recall_score,
    top_k_accuracy_score,
)
from torch import Tensor

from lotteryfw import Metric
from lotteryfw.std.metrics import (
    ExpectedCalibrationError,
    MeanClassAccuracy,
    NegativeLogLikelihood,
    TopK,
    WorstClassAccuracy,
)

EXAMPLES, CLASSES = 500, 9


@pytest.fixture(name="outputs")
def _outputs() -> Tensor:
    return 2 * torch.randn(EXAMPLES, CLASSES, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="labels")
def _labels() -> Tensor:
    # Some classes have many examples, and the last one has none.
    weights = torch.tensor([9.0, 5, 3, 1, 1, 1, 1, 1, 0])
    rng = torch.Generator().manual_seed(2)
    return torch.multinomial(weights, EXAMPLES, replacement=True, generator=rng)


def measured(metric: Metric, outputs: Tensor, labels: Tensor) -> float:
    """The metric's result, from batches as the engine makes them."""
    inputs = torch.zeros(EXAMPLES, 1)
    values = []
    for start in range(0, EXAMPLES, 128):
        rows = slice(start, start + 128)
        values.append(metric.per_example(outputs[rows], inputs[rows], labels[rows]))
    return metric.result(torch.cat(values))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_scikit_learns(outputs: Tensor, labels: Tensor, k: int) -> None:
    classes = range(CLASSES)
    expected = top_k_accuracy_score(labels.numpy(), outputs.numpy(), k=k, labels=list(classes))
    assert measured(TopK(k=k), outputs, labels) == pytest.approx(expected, abs=1e-12)
    assert TopK(k=k).name() == f"top_{k}"


def test_of_equal_logits_the_lower_class_comes_first() -> None:
    outputs = torch.zeros(EXAMPLES, CLASSES)
    labels = torch.arange(EXAMPLES) % CLASSES
    expected = sum(int(label) < 2 for label in labels) / EXAMPLES
    assert measured(TopK(k=2), outputs, labels) == expected


def test_the_negative_log_likelihood_is_scikit_learns(outputs: Tensor, labels: Tensor) -> None:
    probabilities = outputs.double().softmax(1).numpy()
    expected = log_loss(labels.numpy(), probabilities, labels=list(range(CLASSES)))
    assert measured(NegativeLogLikelihood(), outputs, labels) == pytest.approx(expected, abs=1e-9)


def test_class_accuracies_are_scikit_learns(outputs: Tensor, labels: Tensor) -> None:
    predicted, truth = outputs.argmax(1).numpy(), labels.numpy()
    # scikit-learn warns of the class that is predicted and has no examples, and leaves it out.
    with pytest.warns(UserWarning, match="classes not in y_true"):
        mean = balanced_accuracy_score(truth, predicted)
    worst = recall_score(truth, predicted, average=None, labels=list(range(CLASSES - 1))).min()
    assert measured(MeanClassAccuracy(), outputs, labels) == pytest.approx(mean, abs=1e-12)
    assert measured(WorstClassAccuracy(), outputs, labels) == pytest.approx(worst, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_a_plain_loops(outputs: Tensor, labels: Tensor, bins: int) -> None:
    confidences: list[list[float]] = [[] for _ in range(bins)]
    hits: list[list[bool]] = [[] for _ in range(bins)]
    for row, label in zip(outputs.double().softmax(1), labels, strict=True):
        confidence = float(row.max())
        for index in range(bins):
            if index / bins < confidence <= (index + 1) / bins:
                confidences[index].append(confidence)
                hits[index].append(bool(row.argmax() == label))
    expected = 0.0
    for index in range(bins):
        expected += abs(sum(hits[index]) - sum(confidences[index])) / EXAMPLES
    result = measured(ExpectedCalibrationError(bins=bins), outputs, labels)
    assert result == pytest.approx(expected, abs=1e-12)


def test_a_network_that_is_sure_and_right_has_no_calibration_error() -> None:
    labels = torch.arange(EXAMPLES) % CLASSES
    outputs = torch.full((EXAMPLES, CLASSES), -math.inf)
    outputs[torch.arange(EXAMPLES), labels] = 0
    assert measured(ExpectedCalibrationError(), outputs, labels) == 0
    assert measured(ExpectedCalibrationError(), outputs, (labels + 1) % CLASSES) == 1
