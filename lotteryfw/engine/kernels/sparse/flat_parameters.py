"""The layouts of weights and biases in the flat arrays of `MlpProducts`, one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from lotteryfw.engine.kernels.sparse.loops import whole_tiles


class FlatParameter(ABC):
    """A weight [out, in] or a bias [out], whose entries lie in a flat array from `start` on.

    mask: bool of its shape, True = alive, or None.
    """

    def __init__(self, shape: Sequence[int], mask: Tensor | None, start: int, size: int):
        self.shape = shape
        self.mask = mask
        self.span = slice(start, start + size)

    @abstractmethod
    def compress(self, dense: Tensor) -> Tensor:
        """Return the entries of the span, [size], for a tensor of the parameter's shape."""

    @abstractmethod
    def expand(self, entries: Tensor) -> Tensor:
        """Return the entries of the span, [size], in the parameter's shape: a copy."""


class WholeParameter(FlatParameter):
    """A weight or a bias whose entries all lie in the flat array, in order."""

    def __init__(self, shape: Sequence[int], mask: Tensor | None, start: int):
        super().__init__(shape, mask, start, prod(shape))

    def compress(self, dense: Tensor) -> Tensor:
        return dense.flatten()

    def expand(self, entries: Tensor) -> Tensor:
        return entries.reshape(*self.shape).clone()


class KeptParameter(FlatParameter):
    """A weight of which the kept entries alone lie in the flat array; the others are 0."""

    def __init__(self, shape: Sequence[int], mask: Tensor, start: int):
        # Flat indices in ascending order: rows of the matrix lie one after another, as CSR has
        # them.
        self.kept = mask.flatten().nonzero().flatten()
        super().__init__(shape, mask, start, len(self.kept))

    def compress(self, dense: Tensor) -> Tensor:
        return dense.flatten()[self.kept]

    def expand(self, entries: Tensor) -> Tensor:
        dense = entries.new_zeros(prod(self.shape))
        dense[self.kept] = entries
        return dense.reshape(*self.shape)


class TransposedParameter(FlatParameter):
    """A weight that lies in the flat array transposed: [in, out], out rounded up to whole tiles."""

    def __init__(self, shape: Sequence[int], mask: Tensor | None, start: int):
        outputs, inputs = shape
        super().__init__(shape, mask, start, inputs * whole_tiles(outputs))

    def compress(self, dense: Tensor) -> Tensor:
        outputs, inputs = self.shape
        padded = dense.new_zeros(inputs, whole_tiles(outputs))
        padded[:, :outputs] = dense.t()
        return padded.flatten()

    def expand(self, entries: Tensor) -> Tensor:
        outputs, inputs = self.shape
        padded = entries.view(inputs, -1)
        return padded[:, :outputs].t().clone(memory_format=torch.contiguous_format)
