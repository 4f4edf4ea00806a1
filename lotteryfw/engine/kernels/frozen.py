"""Holding masked weights where they are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.store.tensors import is_plus_zero

if TYPE_CHECKING:
    from torch import Tensor


class Frozen:
    """The weights that a mask, bool by parameter, leaves out, and the values they stay at."""

    def __init__(self, masks: Mapping[str, Tensor], parameters: Mapping[str, Tensor]):
        self._held: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for name, mask in masks.items():
            parameter = parameters[name]
            dead = ~mask.to(parameter.device)
            if bool(dead.any()):
                start = None if is_plus_zero(parameter, dead) else parameter.detach().clone()
                self._held.append((parameter, dead, start))

    def hold(self) -> None:
        """Puts every masked weight back to its mask-0 value, bit for bit."""
        import torch

        with torch.no_grad():
            for parameter, dead, value in self._held:
                if value is None:
                    parameter.masked_fill_(dead, 0.0)
                else:
                    torch.where(dead, value, parameter, out=parameter)
