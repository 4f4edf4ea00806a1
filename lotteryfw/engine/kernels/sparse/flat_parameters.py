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
    def write(self, dense: Tensor, entries: Tensor) -> None:
        """Write a tensor of the parameter's shape into entries of the span, [size].

        Entries that stand for no weight are left as they are.
        """

    def compress(self, dense: Tensor) -> Tensor:
        """Return the entries of the span, [size], for a tensor of the parameter's shape.

        Entries that stand for no weight are 0.
        """
        entries = dense.new_zeros(self.span.stop - self.span.start)
        self.write(dense, entries)
        return entries

    @abstractmethod
    def expand(self, entries: Tensor) -> Tensor:
        """Return the entries of the span, [size], in the parameter's shape: a copy."""


class WholeParameter(FlatParameter):
    """A weight or a bias whose entries all lie in the flat array, in order."""

    def __init__(self, shape: Sequence[int], mask: Tensor | None, start: int):
        super().__init__(shape, mask, start, prod(shape))

    def write(self, dense: Tensor, entries: Tensor) -> None:
        entries.view(*self.shape).copy_(dense)

    def expand(self, entries: Tensor) -> Tensor:
        return entries.reshape(*self.shape).clone()


class KeptParameter(FlatParameter):
    """A weight of which the kept entries alone lie in the flat array; the others are 0."""

    def __init__(self, shape: Sequence[int], mask: Tensor, start: int):
        # Flat indices in ascending order: rows of the matrix lie one after another, as CSR has
        # them.
        self.kept = mask.flatten().nonzero().flatten()
        super().__init__(shape, mask, start, len(self.kept))

    def write(self, dense: Tensor, entries: Tensor) -> None:
        torch.index_select(dense.flatten(), 0, self.kept, out=entries)

    def expand(self, entries: Tensor) -> Tensor:
        dense = entries.new_zeros(prod(self.shape))
        dense[self.kept] = entries
        return dense.reshape(*self.shape)


class TransposedParameter(FlatParameter):
    """A weight that lies in the flat array transposed: [in, out], out rounded up to whole tiles."""

    def __init__(self, shape: Sequence[int], mask: Tensor | None, start: int):
        outputs, inputs = shape
        super().__init__(shape, mask, start, inputs * whole_tiles(outputs))

    def write(self, dense: Tensor, entries: Tensor) -> None:
        outputs, inputs = self.shape
        entries.view(inputs, -1)[:, :outputs].copy_(dense.t())

    def expand(self, entries: Tensor) -> Tensor:
        outputs, inputs = self.shape
        padded = entries.view(inputs, -1)
        return padded[:, :outputs].t().clone(memory_format=torch.contiguous_format)
