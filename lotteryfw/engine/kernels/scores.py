"""The kernel that learns masks: the reference's step with scores in the place of weights.

Weights are constants: the optimizer never sees them, so they stay what they are bit for bit, but for what a
parametrization itself does to them after a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.rng import stream
from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.kernels.selected import UNITS, Selected
from lotteryfw.engine.masking import Masking, measure_job
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    from torch import Tensor

_MASK = "mask/"


class Scores:
    """Works for every job with a parametrization."""

    def __init__(self, job: Train, shop: Workshop):
        self._job, self._shop = job, shop
        self._plain = Reference(job, shop)
        self._masking = Masking(
            job, shop, self._plain.module, self._plain.values() | self._plain.parameters
        )
        self._refresh = self._masking.how.refresh()
        self._masks: dict[str, Tensor] | None = None
        self._selected = Selected(
            {name: edges.allowed for name, edges in self._masking.net.edges.items()}
        )
        self._after_step = type(self._masking.how).after_step is not Parametrization.after_step

    def update(self, step: int, factor: float) -> Tensor:
        """One optimizer update of the scores; the batch's loss, 0-d, on the device."""
        import torch

        if self._masks is None or (step - self._job.start) % self._refresh == 0:
            self._masks = self._masking.sampled(step)
            self._selected.see(self._masks)
        loss = self._plain.descend(step, factor, self._masking.weights(self._masks))
        if self._after_step:
            with torch.no_grad():
                rng = stream(self._job.mask_seed or 0, "after step", step)
                self._masking.how.after_step(step, self._masking.net, self._masks, rng)
        return loss

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over a part of the data; the loss is NaN where scores have diverged, since masks can
        be made of those all the same."""
        plain = self._plain
        if not self._masking.is_finite():
            return nan, 0.0
        return measure_job(
            self._job, self._shop, plain.module, plain.values(), plain.feed, part, self._masking
        )

    def values(self) -> dict[str, Tensor]:
        """Every parameter, buffer and score now (not copies), and the mask in use where it outlives a step."""
        lasting = self._masks if self._masks and self._refresh > 1 else {}
        lasting = {_MASK + name: mask for name, mask in lasting.items()}
        return self._plain.values() | self._selected.values() | lasting

    @property
    def units(self) -> Mapping[str, FigureUnit]:
        """The units of its figures."""
        return UNITS

    def figures(self) -> dict[str, float]:
        """How the search for a mask goes (see `Selected.figures`); to be asked for once an evaluation."""
        return self._selected.figures(self._masking.selected())

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        return self._plain.optimizer_state()

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        self._masks = {
            name.removeprefix(_MASK): each
            for name, each in values.items()
            if name.startswith(_MASK)
        }
        self._masks = self._masks or None
        self._selected.restore(values)
        self._plain.restore(values, optimizer_state)
