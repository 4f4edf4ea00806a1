"""The sparse kernel's loops (see `loops`), jitted: each is one pass in one thread.

The products of a batch take `LONG_TILE` examples at a time, or `TILE` where the batch is narrow: so
their sums stay in registers (see `numba_vectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lotteryfw.api.errors import UsageError
from lotteryfw.engine.kernels.sparse import loops
from lotteryfw.engine.kernels.sparse.loops import (
    LONG_TILE,
    TILE,
    Floats,
    Ints,
    Longs,
    patterns,
)

try:
    from numba import njit

    from lotteryfw.engine.kernels.sparse import numba_vectors as vectors
except ImportError as error:
    raise UsageError("the loops of numba need numba: install lotteryfw[fast]") from error

_Loop = TypeVar("_Loop", bound=Callable[..., Any])


@cache
def _shared_digest() -> str:
    """Return a digest of the files with functions and constants that loops of others use."""
    digest = sha256()
    for file in (loops.__file__, vectors.__file__, __file__):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:12]


def jit(loop: _Loop) -> _Loop:
    """Compile a loop at its first call, and keep it on disk.

    Sums may be reordered; NaN and infinity keep their meaning, since a training that diverges is
    noticed by them.

    What a loop calls, and the constants that it reads, are compiled into it, and numba notices a
    change of the loop's own file alone. So the files that are shared are part of the name under
    which it is kept.
    """
    loop.__qualname__ += f"-{_shared_digest()}"
    freely = {"reassoc", "contract", "nsz", "arcp"}
    return cast(_Loop, njit(fastmath=freely, error_model="numpy", nogil=True, cache=True)(loop))


def gather(rows: NDArray[Any], chosen: Longs, columns: Ints, scale: float, x: Floats) -> None:
    """Set x[j, c] = scale · rows[chosen[c], j] for the `columns` j.

    rows are [N, in], uint8 or float32. They go through a copy of `TILE` rows that stays in the
    nearest cache: a transposition straight from the data set takes three times as long, a gather
    out of a transposed data set ten times.
    """
    loop = _gather_bytes if rows.dtype == np.uint8 else _gather_floats
    loop(rows, chosen, columns, scale, x)


@jit
def _gather_floats(rows: Floats, chosen: Longs, columns: Ints, scale: float, x: Floats) -> None:
    # A Python float would make the whole expression double, at half the speed.
    factor = np.float32(scale)
    tile = np.zeros((TILE, rows.shape[1]), np.float32)
    for first in range(0, len(chosen), TILE):
        for c in range(min(TILE, len(chosen) - first)):
            row = rows[chosen[first + c]]
            for j in range(rows.shape[1]):
                tile[c, j] = row[j]
        for j in columns:
            for c in range(TILE):
                x[j, first + c] = factor * tile[c, j]


@jit
def _gather_bytes(
    rows: NDArray[np.uint8], chosen: Longs, columns: Ints, scale: float, x: Floats
) -> None:
    """Gather bytes: four are transposed at a time, as one word, and taken apart in rows of x.

    It takes half the time of one by one. Words are little-endian, as on every machine that numba
    supports.
    """
    factor = np.float32(scale)
    tile = np.zeros((TILE, -(-rows.shape[1] // 4) * 4), np.uint8)
    words = tile.view(np.uint32)
    across = np.zeros((words.shape[1], x.shape[1]), np.uint32)
    for first in range(0, len(chosen), TILE):
        for c in range(min(TILE, len(chosen) - first)):
            row = rows[chosen[first + c]]
            for j in range(rows.shape[1]):
                tile[c, j] = row[j]
        for w in range(words.shape[1]):
            for c in range(TILE):
                across[w, first + c] = words[c, w]
    for j in columns:
        word, out, shift = across[j >> 2], x[j], np.uint32(8 * (j & 3))
        for c in range(len(out)):
            out[c] = factor * np.float32(np.uint8(word[c] >> shift))


@jit
def sum_of_rows(
    total: Any, values: Floats, rows: Ints, start: int, stop: int, x: Floats, column: int
) -> Any:
    """Return total + Σ values[k] · x[rows[k]], over the k from `start` up to `stop`.

    `total` is a vector; of the rows of x it takes its length from `column` on.
    """
    for k in range(start, stop):
        total = vectors.multiply_add(values[k], vectors.load(total, x, rows[k], column), total)
    return total


@jit
def forward(
    starts: Ints, columns: Ints, values: Floats, bias: Floats, x: Floats, rectify: bool, y: Floats
) -> None:
    """Compute y = W x + bias, or its positive part."""
    if x.shape[1] % LONG_TILE == 0:
        _forward(vectors.long_zeros(), starts, columns, values, bias, x, rectify, y)
    else:
        _forward(vectors.short_zeros(), starts, columns, values, bias, x, rectify, y)


@jit
def _forward(
    zeros: Any,
    starts: Ints,
    columns: Ints,
    values: Floats,
    bias: Floats,
    x: Floats,
    rectify: bool,
    y: Floats,
) -> None:
    for c in range(0, x.shape[1], vectors.length(zeros)):
        for i in range(y.shape[0]):
            out = vectors.filled(zeros, bias[i])
            out = sum_of_rows(out, values, columns, starts[i], starts[i + 1], x, c)
            vectors.store(vectors.where_positive(out, out) if rectify else out, y, i, c)


@jit
def parameter_gradients(
    starts: Ints, columns: Ints, dy: Floats, x: Floats, gradient: Floats, bias: Floats
) -> None:
    """Set gradient[k] = ⟨dy of k's row, x of k's column⟩ for the kept weights alone.

    Sets bias[i] = Σ dy[i] too.
    """
    if x.shape[1] % LONG_TILE == 0:
        _parameter_gradients(vectors.long_zeros(), starts, columns, dy, x, gradient, bias)
    else:
        _parameter_gradients(vectors.short_zeros(), starts, columns, dy, x, gradient, bias)


@jit
def _parameter_gradients(
    zeros: Any,
    starts: Ints,
    columns: Ints,
    dy: Floats,
    x: Floats,
    gradient: Floats,
    bias: Floats,
) -> None:
    none, line = vectors.short_zeros(), gradient.reshape((1, len(gradient)))
    for i in range(dy.shape[0]):
        sum_of_row = np.float32(0)
        for c in range(dy.shape[1]):
            sum_of_row += dy[i, c]
        bias[i] = sum_of_row

        # Four kept weights at a time: their sums do not wait for one another.
        k, stop = starts[i], starts[i + 1]
        while k + 4 <= stop:
            s0 = s1 = s2 = s3 = none
            for c in range(0, x.shape[1], vectors.length(zeros)):
                row = vectors.load(zeros, dy, i, c)
                s0 = vectors.add_products(row, vectors.load(zeros, x, columns[k], c), s0)
                s1 = vectors.add_products(row, vectors.load(zeros, x, columns[k + 1], c), s1)
                s2 = vectors.add_products(row, vectors.load(zeros, x, columns[k + 2], c), s2)
                s3 = vectors.add_products(row, vectors.load(zeros, x, columns[k + 3], c), s3)
            vectors.store(vectors.four_sums(s0, s1, s2, s3), line, 0, k)
            k += 4
        while k < stop:
            s0 = none
            for c in range(0, x.shape[1], vectors.length(zeros)):
                row = vectors.load(zeros, dy, i, c)
                s0 = vectors.add_products(row, vectors.load(zeros, x, columns[k], c), s0)
            gradient[k] = vectors.first(vectors.four_sums(s0, none, none, none))
            k += 1


@jit
def input_gradient(
    starts: Ints, rows: Ints, order: Ints, values: Floats, dy: Floats, x: Floats, dx: Floats
) -> None:
    """Compute dx = Wᵀ dy where x > 0, else 0; x is the output of the ReLU before.

    `starts` and `rows` are the pattern by columns, `order` the indices of its weights in `values`.
    """
    # Gathered once, so that the loop below reads neighbouring numbers.
    transposed = values[order]
    if x.shape[1] % LONG_TILE == 0:
        _input_gradient(vectors.long_zeros(), starts, rows, transposed, dy, x, dx)
    else:
        _input_gradient(vectors.short_zeros(), starts, rows, transposed, dy, x, dx)


@jit
def _input_gradient(
    zeros: Any, starts: Ints, rows: Ints, transposed: Floats, dy: Floats, x: Floats, dx: Floats
) -> None:
    for c in range(0, x.shape[1], vectors.length(zeros)):
        for j in range(dx.shape[0]):
            out = sum_of_rows(zeros, transposed, rows, starts[j], starts[j + 1], dy, c)
            # The input x came out of a ReLU, whose derivative at 0 is 0.
            vectors.store(vectors.where_positive(out, vectors.load(zeros, x, j, c)), dx, j, c)


class Products:
    """A layer on the pattern of its kept weights."""

    def __init__(
        self,
        shape: Sequence[int],
        kept: Tensor,
        values: Tensor,
        gradient: Tensor,
        bias: Tensor,
        bias_gradient: Tensor,
    ):
        by_row, by_column, order = patterns(shape, kept)
        self._starts, self._columns = by_row.starts.numpy(), by_row.columns.numpy()
        self._column_starts, self._rows = by_column.starts.numpy(), by_column.columns.numpy()
        self._order = order.int().numpy()
        self._values, self._gradient = values.numpy(), gradient.numpy()
        self._bias, self._bias_gradient = bias.numpy(), bias_gradient.numpy()
        self.reads: Ints = np.unique(self._columns)

    def forward(self, x: Floats, y: Floats, rectify: bool) -> None:
        forward(self._starts, self._columns, self._values, self._bias, x, rectify, y)

    def backward(self, dy: Floats, x: Floats, dx: Floats | None) -> None:
        parameter_gradients(self._starts, self._columns, dy, x, self._gradient, self._bias_gradient)
        if dx is not None:
            input_gradient(self._column_starts, self._rows, self._order, self._values, dy, x, dx)


@jit
def cross_entropy(logits: Floats, labels: Longs, chosen: Longs, gradient: Floats) -> float:
    """Return the mean of -log softmax(logits)[label] over the batch (nats); fill `gradient`.

    logits and gradient: [classes, width]; example c has the label labels[chosen[c]], in
    [0, classes).
    """
    batch = len(chosen)
    classes = logits.shape[0]
    # The largest logit is taken off, so that no exponential overflows.
    largest = logits[0, :batch].copy()
    for i in range(1, classes):
        for c in range(batch):
            largest[c] = max(largest[c], logits[i, c])
    total = np.zeros(batch, np.float32)
    for i in range(classes):
        for c in range(batch):
            gradient[i, c] = np.exp(logits[i, c] - largest[c])
            total[c] += gradient[i, c]
    share = np.float32(1) / (np.float32(batch) * total)
    for i in range(classes):
        for c in range(batch):
            gradient[i, c] *= share[c]
    # Added up in double precision: the loop's order then hardly rounds.
    loss = 0.0
    for c in range(batch):
        label = labels[chosen[c]]
        gradient[label, c] -= np.float32(1) / np.float32(batch)
        loss += np.log(total[c]) + largest[c] - logits[label, c]
    return loss / batch


@jit
def sgd(values: Floats, gradient: Floats, rate: float, decay: float) -> None:
    """Make one step of torch.optim.SGD without momentum."""
    # Numbers of the type of the arrays: doubles would halve the width of a vector.
    lr, wd = np.float32(rate), np.float32(decay)
    for k in range(len(values)):
        values[k] -= lr * (gradient[k] + wd * values[k])


@jit
def momentum_sgd(
    values: Floats,
    gradient: Floats,
    buffer: Floats,
    rate: float,
    decay: float,
    momentum: float,
    fresh: float,
    nesterov: bool,
) -> None:
    """Make one step of torch.optim.SGD with momentum.

    The gradient enters the buffer `fresh` times.
    """
    lr, wd, kept, new = np.float32(rate), np.float32(decay), np.float32(momentum), np.float32(fresh)
    from_gradient, from_buffer = (
        (np.float32(1), kept) if nesterov else (np.float32(0), np.float32(1))
    )
    for k in range(len(values)):
        decayed = gradient[k] + wd * values[k]
        buffer[k] = kept * buffer[k] + new * decayed
        values[k] -= lr * (from_gradient * decayed + from_buffer * buffer[k])


@jit
def adam(
    values: Floats,
    gradient: Floats,
    mean: Floats,
    square: Floats,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    coupled: float,
    decoupled: float,
) -> None:
    """Make step number `step`, from 1 on, of torch.optim.Adam or AdamW.

    Adam has a `coupled` weight decay, AdamW a `decoupled` one.
    """
    # Both corrections of bias are taken out of the loop, where they would cost a division each.
    size = np.float32(rate / (1 - beta1**step))
    spread = np.float32(np.sqrt(1 - beta2**step))
    shrink = np.float32(1 - rate * decoupled)
    wd, small = np.float32(coupled), np.float32(eps)
    b1, c1, b2, c2 = (
        np.float32(beta1),
        np.float32(1 - beta1),
        np.float32(beta2),
        np.float32(1 - beta2),
    )
    for k in range(len(values)):
        decayed = gradient[k] + wd * values[k]
        mean[k] = b1 * mean[k] + c1 * decayed
        square[k] = b2 * square[k] + c2 * decayed * decayed
        values[k] = shrink * values[k] - size * mean[k] / (np.sqrt(square[k]) / spread + small)
