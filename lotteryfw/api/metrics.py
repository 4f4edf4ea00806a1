"""The figures of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """The measurements during a training, one entry for each evaluation.

    `train_loss` is the mean since the evaluation before.

    Where a mask was learned, `dying_ratio` is the share of edges that no step had selected by
    then, and `turnover` the share of the edges selected at the evaluation before that are not any
    more.
    """

    step: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    validation_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    dying_ratio: tuple[float, ...] = ()
    turnover: tuple[float, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """The figures of one training.

    Accuracies are in [0, 1], losses in nats per example, steps in optimizer updates.

    The early-stopping step is the step of the lowest validation loss; test data is read there and
    at the end only.
    """

    steps: int
    early_stop_step: int
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    early_validation_loss: float
    early_validation_accuracy: float
    early_test_loss: float
    early_test_accuracy: float
    curve: Curve
