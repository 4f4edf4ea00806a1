"""The compact kernel: the reference's step on a network without its dead units (see `shrunk`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.engine.kernels.reference import Reference
from lotteryfw.engine.kernels.shrunk import Layer, Shrunk, layers_of
from lotteryfw.engine.kernels.sparse import optimizer_of
from lotteryfw.engine.measure import measure
from lotteryfw.engine.workshop import Workshop
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    from torch import Tensor

WORK = 0.65
"""The kernel is chosen where at most this share of a convolutional network's multiply-adds is left: from there on it is
measurably faster (benchmarks/convolution.py). Above, whole convolutions are, for they work on 16 channels at a time."""


class Compact:
    """Works for sequential networks (see `layers_of`) under torch's elementwise optimizers, on any device, at any
    mask-0 values. The whole parameters are the reference's; only the products are smaller."""

    def __init__(self, job: Train, shop: Workshop):
        self._plain = Reference(job, shop)
        layers = layers_of(self._plain.module, self._plain.feed.shape)
        assert not isinstance(layers, str), layers
        self._shrunk = Shrunk(layers, self._plain.parameters, job.mask)

    def update(self, step: int, factor: float) -> Tensor:
        """One optimizer update; the batch's loss, 0-d, on the device."""
        loss = self._plain.descend(step, factor, self._shrunk.parameters())
        self._plain.frozen.hold()
        return loss

    def measure(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over a part of the data."""
        import torch

        with torch.no_grad():
            living = self._shrunk.parameters()
        return measure(self._plain.module, living, self._plain.feed, part, self._plain.objective)

    def values(self) -> dict[str, Tensor]:
        """Every parameter and buffer now (not copies)."""
        return self._plain.values()

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        return self._plain.optimizer_state()

    def restore(self, values: Mapping[str, Tensor], optimizer_state: Mapping[str, Tensor]) -> None:
        """Goes back to values and a state that this kernel gave."""
        self._plain.restore(values, optimizer_state)


def unfit_optimizer(job: Train, shop: Workshop) -> str | None:
    """Why a job's optimizer is not for this kernel, or None: one weight's update must not hang on other gradients,
    since masked weights of dead units have none here."""
    from torch import optim

    optimizer = optimizer_of(job, shop)
    if type(optimizer) in (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop):
        return None
    return (
        f"{type(optimizer).__name__} is not known to update each weight by its own gradient alone"
    )


def is_worth_it(job: Train, layers: list[Layer] | str) -> bool:
    """Whether the network has convolutions and enough of its work lies in dead units."""
    if isinstance(layers, str) or not any(layer.uses > 1 for layer in layers):
        return False
    return Shrunk(layers, job.values, job.mask).work() <= WORK
