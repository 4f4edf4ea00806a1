"""What a kernel is: the arithmetic of one training, apart from everything that is kept about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lotteryfw.api.metrics import FigureUnit

if TYPE_CHECKING:
    from torch import Tensor


class Kernel(Protocol):
    """Advances one masked network. Masked weights are at their mask-0 values, bit for bit, after every update."""

    def update(self, step: int, factor: float) -> Tensor | float:
        """The optimizer update from `step` to `step + 1`, at `factor` times the learning rate; the batch's loss."""
        ...

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss (nats) and accuracy in [0, 1] now, over every example of "validation" or "test"."""
        ...

    def values(self) -> dict[str, Tensor]:
        """Every parameter and buffer now, dense, in their own shapes. Not to be written to; may change at an update."""
        ...

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, in the form of `lotteryfw.engine.checkpoint`."""
        ...

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        ...


@runtime_checkable
class Watched(Kernel, Protocol):
    """A kernel that has more curves than loss and accuracy."""

    @property
    def units(self) -> Mapping[str, FigureUnit]:
        """The further curves that it measures, with their units."""
        ...

    def figures(self) -> dict[str, float]:
        """Return the figure of each of these curves now; to be called once an evaluation."""
        ...
