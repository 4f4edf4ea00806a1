"""Keeps masked weights at the values that they are frozen at."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lotteryfw.store.tensors import is_plus_zero


class MaskConstraint:
    """The weights that a mask, bool by parameter, leaves out, and the values that they keep."""

    def __init__(self, masks: Mapping[str, Tensor], parameters: Mapping[str, Tensor]):
        self._constrained: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for name, mask in masks.items():
            parameter = parameters[name]
            # In the parameter's order of memory, in which an operation reads both faster.
            masked = torch.empty_like(parameter, dtype=torch.bool, requires_grad=False)
            torch.logical_not(mask.to(parameter.device), out=masked)
            if bool(masked.any()):
                # Zeros, the usual case, need no copy of the values and take a faster operation.
                is_zero = is_plus_zero(parameter, masked)
                values = None if is_zero else parameter.detach().clone()
                self._constrained.append((parameter, masked, values))

    def apply(self) -> None:
        """Put every masked weight back to its mask-0 value, bit for bit."""
        # Written in place into parameters, which autograd would refuse.
        with torch.no_grad():
            for parameter, masked, values in self._constrained:
                if values is None:
                    parameter.masked_fill_(masked, 0.0)
                else:
                    torch.where(masked, values, parameter, out=parameter)
