"""The first layer's products where most inputs are 0, as they are in images of digits, jitted.

An input that is 0 adds nothing to any output, and its weights get nothing from the example: both
products of the layer take the other inputs alone. The weights lie transposed, [in, padded], so that
the loops run over neighbouring numbers; `padded` is the number of outputs rounded up by
`whole_tiles`. The columns that are added are 0 and stay so. The loops take a tile of outputs at a
time for all examples or inputs: what they read again and again then lies in the nearest cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotteryfw.engine.kernels.sparse import numba_vectors as vectors
from lotteryfw.engine.kernels.sparse.loops import LONG_TILE, TILE, Floats, Ints, Longs
from lotteryfw.engine.kernels.sparse.numba_loops import jit, sum_of_rows

_NO_MASK = np.empty((0, 0), np.float32)


class SparseBatch(NamedTuple):
    """The inputs of some examples that are not 0, in CSR by example and, once sorted, by input.

    `columns` and `values` of example c lie from `starts[c]` up to `starts[c + 1]`; `examples` and
    `sorted_values` of input j from `input_starts[j]` up to `input_starts[j + 1]`.
    """

    starts: Ints
    columns: Ints
    values: Floats
    input_starts: Ints
    examples: Ints
    sorted_values: Floats
    output_gradient: Floats
    """[examples, padded]: the gradient of the layer's outputs, by example."""


class SparseInputProducts:
    """A first layer that reads the inputs that are not 0 (see `LayerProducts`, `InputReader`).

    values and gradient: [in · padded] float32, the transposed weights, with 0 in the columns that
    are added. A mask [out, in] bool holds the gradient of its masked weights at 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        mask: Tensor | None,
        values: Tensor,
        gradient: Tensor,
        bias: Tensor,
        bias_gradient: Tensor,
    ):
        self._outputs, self._inputs = shape
        self._weights = values.view(self._inputs, -1).numpy()
        self._gradient = gradient.view(self._inputs, -1).numpy()
        self._bias, self._bias_gradient = bias.numpy(), bias_gradient.numpy()
        self._mask = _NO_MASK
        if mask is not None:
            # A factor of 0 or 1; the columns that are added have no gradient anyway.
            factors = torch.zeros(self._weights.shape)
            factors[:, : self._outputs] = mask.t()
            self._mask = factors.numpy()
        self.reads: Ints = np.arange(self._inputs, dtype=np.int32)

    def buffer(self, examples: int) -> SparseBatch:
        """Return room for so many examples, as `whole_tiles` gives it."""
        room = examples * self._inputs
        return SparseBatch(
            np.zeros(examples + 1, np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.float32),
            np.empty(self._inputs + 1, np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.float32),
            np.zeros((examples, self._weights.shape[1]), np.float32),
        )

    def read(self, rows: NDArray[Any], chosen: Longs, scale: float, batch: SparseBatch) -> None:
        """Fill the batch with scale · rows[chosen]; rows are [N, in], uint8 or float32."""
        loop = _read_bytes if rows.dtype == np.uint8 else _read_floats
        loop(rows, chosen, scale, batch.starts, batch.columns, batch.values)

    def forward(self, x: SparseBatch, y: Floats, rectify: bool) -> None:
        _forward(x.starts, x.columns, x.values, self._weights, self._bias, rectify, y)

    def backward(self, dy: Floats, x: SparseBatch, dx: Floats | None) -> None:
        assert dx is None, "the inputs of a network have no gradient"
        _sort_by_input(x.starts, x.columns, x.values, x.input_starts, x.examples, x.sorted_values)
        _by_example(dy, x.output_gradient, self._bias_gradient)
        _weight_gradient(
            x.input_starts,
            x.examples,
            x.sorted_values,
            x.output_gradient,
            self._mask,
            self._gradient,
        )


@jit
def _read_floats(
    rows: Floats, chosen: Longs, scale: float, starts: Ints, columns: Ints, values: Floats
) -> None:
    factor = np.float32(scale)
    k = 0
    for c in range(len(chosen)):
        row = rows[chosen[c]]
        for j in range(len(row)):
            # Written in any case, and kept by counting it: cheaper than a branch.
            columns[k], values[k] = j, factor * row[j]
            k += row[j] != 0
        starts[c + 1] = k
    starts[len(chosen) + 1 :] = k


@jit
def _read_bytes(
    rows: NDArray[np.uint8],
    chosen: Longs,
    scale: float,
    starts: Ints,
    columns: Ints,
    values: Floats,
) -> None:
    """Read bytes: eight that are 0 are passed over at once, as one word."""
    factor = np.float32(scale)
    whole = rows.shape[1] // 8 * 8
    k = 0
    for c in range(len(chosen)):
        row = rows[chosen[c]]
        words = row[:whole].view(np.uint64)
        for w in range(len(words) + 1):
            if w < len(words) and words[w] == 0:
                continue
            for j in range(8 * w, min(8 * w + 8, len(row))):
                columns[k], values[k] = j, factor * np.float32(row[j])
                k += row[j] != 0
        starts[c + 1] = k
    starts[len(chosen) + 1 :] = k


@jit
def _sort_by_input(
    starts: Ints,
    columns: Ints,
    values: Floats,
    input_starts: Ints,
    examples: Ints,
    sorted_values: Floats,
) -> None:
    """Bring the inputs of a batch into the order of their columns; within one, examples ascend."""
    input_starts[:] = 0
    for k in range(starts[-1]):
        input_starts[columns[k] + 1] += 1
    for j in range(1, len(input_starts)):
        input_starts[j] += input_starts[j - 1]
    free = input_starts[:-1].copy()
    for c in range(len(starts) - 1):
        for k in range(starts[c], starts[c + 1]):
            place = free[columns[k]]
            examples[place], sorted_values[place] = c, values[k]
            free[columns[k]] = place + 1


@jit
def _forward(
    starts: Ints,
    columns: Ints,
    values: Floats,
    weights: Floats,
    bias: Floats,
    rectify: bool,
    y: Floats,
) -> None:
    """Compute y = W x + bias, or its positive part."""
    if weights.shape[1] % LONG_TILE == 0:
        _forward_tiles(vectors.long_zeros(), starts, columns, values, weights, bias, rectify, y)
    else:
        _forward_tiles(vectors.short_zeros(), starts, columns, values, weights, bias, rectify, y)


@jit
def _forward_tiles(
    zeros: Any,
    starts: Ints,
    columns: Ints,
    values: Floats,
    weights: Floats,
    bias: Floats,
    rectify: bool,
    y: Floats,
) -> None:
    tile = np.empty((TILE, vectors.length(zeros)), np.float32)
    for output in range(0, weights.shape[1], vectors.length(zeros)):
        here = y[output : output + vectors.length(zeros)]
        for first in range(0, y.shape[1], TILE):
            for c in range(TILE):
                start, stop = starts[first + c], starts[first + c + 1]
                out = sum_of_rows(zeros, values, columns, start, stop, weights, output)
                vectors.store(out, tile, c, 0)
            for i in range(len(here)):
                for c in range(TILE):
                    total = tile[c, i] + bias[output + i]
                    here[i, first + c] = np.float32(0) if rectify and total < 0 else total


@jit
def _by_example(dy: Floats, rows: Floats, bias_gradient: Floats) -> None:
    """Set rows[c, i] = dy[i, c], and bias_gradient[i] = Σ dy[i]."""
    for i in range(dy.shape[0]):
        total = np.float32(0)
        for c in range(dy.shape[1]):
            total += dy[i, c]
            rows[c, i] = dy[i, c]
        bias_gradient[i] = total


@jit
def _weight_gradient(
    input_starts: Ints,
    examples: Ints,
    values: Floats,
    output_gradient: Floats,
    mask: Floats,
    gradient: Floats,
) -> None:
    """Set gradient[j] = Σ over examples c of x[j, c] · output_gradient[c], times the mask if any."""
    if gradient.shape[1] % LONG_TILE == 0:
        _weight_gradient_tiles(
            vectors.long_zeros(), input_starts, examples, values, output_gradient, mask, gradient
        )
    else:
        _weight_gradient_tiles(
            vectors.short_zeros(), input_starts, examples, values, output_gradient, mask, gradient
        )


@jit
def _weight_gradient_tiles(
    zeros: Any,
    input_starts: Ints,
    examples: Ints,
    values: Floats,
    output_gradient: Floats,
    mask: Floats,
    gradient: Floats,
) -> None:
    for output in range(0, gradient.shape[1], vectors.length(zeros)):
        for j in range(gradient.shape[0]):
            start, stop = input_starts[j], input_starts[j + 1]
            out = sum_of_rows(zeros, values, examples, start, stop, output_gradient, output)
            if len(mask):
                out = vectors.multiply(out, vectors.load(zeros, mask, j, output))
            vectors.store(out, gradient, j, output)
