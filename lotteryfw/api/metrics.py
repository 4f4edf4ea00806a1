"""The figures of a training, and of a network that is measured as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FigureUnit = Literal["share", "number"]
"""The unit of a figure: reports show a share, of which 1 is all there is, in per cent."""


@dataclass(frozen=True)
class Curve:
    """The measurements during a training, one entry for each evaluation.

    `train_loss` is the mean since the evaluation before. `extra` are further curves, by name, that
    the training's kernel measures, and `units` their units. Where a mask is learned there are two:
    `dying_ratio` is the share of edges that no step had selected by then, and `turnover` the share
    of the edges selected at the evaluation before that are not any more.
    """

    step: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    validation_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    extra: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    units: Mapping[str, FigureUnit] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Curve:
        """Return the curve that `plain()` describes."""
        extra: dict[str, tuple[float, ...]] = {}
        for name, values in plain.items():
            # A file has further curves beside the fixed ones, so that older readers need not know them.
            if name not in cls.__dataclass_fields__:
                extra[name] = tuple(values)
        return cls(
            tuple(plain["step"]),
            tuple(plain["train_loss"]),
            tuple(plain["validation_loss"]),
            tuple(plain["validation_accuracy"]),
            extra,
            dict(plain.get("units", {})),
        )

    def plain(self) -> dict[str, Any]:
        """Return the curves by name as JSON-able data, and the units of the extra ones."""
        plain = {name: list(values) for name, values in vars(self).items() if name in _CURVES}
        for name, values in self.extra.items():
            plain[name] = list(values)
        # Curves without further figures keep the form that they always had.
        return {**plain, "units": dict(self.units)} if self.extra else plain


_CURVES = ("step", "train_loss", "validation_loss", "validation_accuracy")


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

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Metrics:
        """Return the figures that `plain()` describes."""
        return cls(**{**plain, "curve": Curve.of(plain["curve"])})

    def plain(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return {**vars(self), "curve": self.curve.plain()}


@dataclass(frozen=True)
class Evaluation:
    """The figures of a network over one part of a data set.

    `loss` is in nats per example, `accuracy` in [0, 1]; both are the objective's. `metrics` are the
    figures of further metrics by their names (see `lotteryfw.Metric`).
    """

    loss: float
    accuracy: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Evaluation:
        """Return the figures that `plain()` describes."""
        # A copy, since the caller may go on using its own.
        return cls(plain["loss"], plain["accuracy"], dict(plain["metrics"]))

    def plain(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return {"loss": self.loss, "accuracy": self.accuracy, "metrics": dict(self.metrics)}
