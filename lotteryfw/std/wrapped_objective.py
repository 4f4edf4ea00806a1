"""The part that objectives around another objective share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lotteryfw import DatasetInfo, Objective
from lotteryfw.std.objectives import Classification

if TYPE_CHECKING:
    from torch import Tensor


class WrappedObjective(Objective):
    """Reports loss and figure of the objective `inner`, whatever it adds to a step.

    What `inner` adds to a step, a penalty or a teacher, stays.
    """

    inner: Objective = Classification()
    """The objective that something is added to."""

    # of the instance, not of the class: it depends on the option
    @property
    def labels_are_classes(self) -> bool:  # type: ignore[override]
        """True where the inner objective reads labels as classes."""
        return self.inner.labels_are_classes

    @property
    def needs_teacher(self) -> bool:  # type: ignore[override]
        """True where the inner objective compares with a teacher."""
        return self.inner.needs_teacher

    @property
    def figure_name(self) -> str:  # type: ignore[override]
        """The name of the inner objective's figure."""
        return self.inner.figure_name

    @property
    def loss_unit(self) -> str:  # type: ignore[override]
        """The unit of the inner objective's loss."""
        return self.inner.loss_unit

    def why_not(self, info: DatasetInfo) -> str | None:
        return self.inner.why_not(info)

    def output_size(self, shape: tuple[int, ...], classes: int) -> int:
        return self.inner.output_size(shape, classes)

    def loss(
        self, outputs: Tensor, inputs: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]
    ) -> Tensor:
        return self.inner.loss(outputs, inputs, labels, reduction)

    def correct(self, outputs: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return self.inner.correct(outputs, inputs, labels)

    def taught_loss(
        self, outputs: Tensor, teacher: Tensor, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        return self.inner.taught_loss(outputs, teacher, inputs, labels)

    @abstractmethod
    def own_penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        """Return what this objective adds to the penalty of the inner one; None: nothing."""

    def penalty(self, weights: Mapping[str, Tensor]) -> Tensor | None:
        own, inner = self.own_penalty(weights), self.inner.penalty(weights)
        if own is None or inner is None:
            return inner if own is None else own
        return own + inner
