"""What a sparse convolution costs against the dense one, as the density falls.

    python benchmarks/sparse_convolution.py [--rounds 5] [--batch 16]

The second convolutions of Conv-4's blocks (3×3, padding 1), one layer at a time: forward, weight gradient on the
pattern, input gradient. Random masks. `dense` is torch's, `unfolded` the sparse kernel's products on the matrix of all
windows, `shifted` the same idea without that matrix: in images that are padded and laid end to end, a weight multiplies
a shifted piece of its channel, wherever in the window it stands. Both begin and end in torch's own layout, and are
checked against the dense one. They take turns; medians over the rounds of processor time, and of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib.metadata import version

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import conv2d, fold, unfold

from lotteryfw.engine.kernels.sparse.loops import Floats, Ints
from lotteryfw.engine.kernels.sparse.numba_loops import Products

LAYERS = ((64, 32), (128, 16))
"""Channels in and out, height and width of the image."""
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
TILE = 1024
"""Numbers of every channel that are worked on at a time: those of all channels fit the second cache."""

jit = njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", nogil=True)


@jit
def product(
    starts: Ints, rows: Ints, shifts: Ints, values: Floats, x: Floats, y: Floats, guard: int
) -> None:
    """y[i, c] = Σ values[k] · x[rows[k], c + shifts[k]] over the k of row i, but for `guard` columns at each end."""
    for first in range(guard, y.shape[1] - guard, TILE):
        n = min(TILE, y.shape[1] - guard - first)
        for i in range(y.shape[0]):
            out = y[i, first : first + n]
            for c in range(n):
                out[c] = np.float32(0)
            k, stop = starts[i], starts[i + 1]
            while k + 4 <= stop:
                v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
                x0, x1 = x[rows[k], first + shifts[k] :], x[rows[k + 1], first + shifts[k + 1] :]
                x2, x3 = (
                    x[rows[k + 2], first + shifts[k + 2] :],
                    x[rows[k + 3], first + shifts[k + 3] :],
                )
                for c in range(n):
                    out[c] += v0 * x0[c] + v1 * x1[c] + v2 * x2[c] + v3 * x3[c]
                k += 4
            while k < stop:
                v0, x0 = values[k], x[rows[k], first + shifts[k] :]
                for c in range(n):
                    out[c] += v0 * x0[c]
                k += 1


@jit
def weight_gradient(
    starts: Ints, rows: Ints, shifts: Ints, dy: Floats, x: Floats, found: Floats, guard: int
) -> None:
    """found[k] = Σ dy[k's row, c] · x[rows[k], c + shifts[k]] over the same columns; dy is 0 on the padding."""
    found[:] = np.float32(0)
    for first in range(guard, dy.shape[1] - guard, TILE):
        n = min(TILE, dy.shape[1] - guard - first)
        for i in range(dy.shape[0]):
            slope = dy[i, first : first + n]
            k, stop = starts[i], starts[i + 1]
            while k + 4 <= stop:
                x0, x1 = x[rows[k], first + shifts[k] :], x[rows[k + 1], first + shifts[k + 1] :]
                x2, x3 = (
                    x[rows[k + 2], first + shifts[k + 2] :],
                    x[rows[k + 3], first + shifts[k + 3] :],
                )
                s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for c in range(n):
                    s0 += slope[c] * x0[c]
                    s1 += slope[c] * x1[c]
                    s2 += slope[c] * x2[c]
                    s3 += slope[c] * x3[c]
                found[k] += s0
                found[k + 1] += s1
                found[k + 2] += s2
                found[k + 3] += s3
                k += 4
            while k < stop:
                x0 = x[rows[k], first + shifts[k] :]
                s0 = np.float32(0)
                for c in range(n):
                    s0 += slope[c] * x0[c]
                found[k] += s0
                k += 1


class Shifted:
    """The sparse convolution on shifted channels."""

    def __init__(self, weight: Tensor, mask: Tensor, batch: int, side: int):
        self._values, self._batch, self._side = weight[mask].numpy(), batch, side
        self._wide, self._guard = side + 2, side + 3
        outputs, inputs, down, right = (column.numpy() for column in mask.nonzero().t())
        shifts = (down - 1) * self._wide + right - 1
        self._across = np.lexsort((outputs, inputs))
        self._along = _csr(outputs, inputs, shifts, len(weight))
        self._back = _csr(
            inputs[self._across], outputs[self._across], -shifts[self._across], weight.shape[1]
        )

    def __call__(self, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, weight gradient [living], input gradient."""
        flat, slopes = self._laid(x), self._laid(dy)
        y, dx = np.empty_like(slopes), np.empty_like(flat)
        found = np.empty_like(self._values)
        product(*self._along, self._values, flat, y, self._guard)
        weight_gradient(*self._along, slopes, flat, found, self._guard)
        product(*self._back, self._values[self._across], slopes, dx, self._guard)
        return self._images(y), torch.from_numpy(found), self._images(dx)

    def _laid(self, x: Tensor) -> Floats:
        """[channels, guard + batch · padded height · padded width + guard]"""
        laid = x.new_zeros(x.shape[1], 2 * self._guard + len(x) * self._wide**2)
        self._inside(laid).copy_(x)
        return laid.numpy()

    def _images(self, laid: Floats) -> Tensor:
        return self._inside(torch.from_numpy(laid)).contiguous()

    def _inside(self, laid: Tensor) -> Tensor:
        """The images in torch's order, without their padding; a view."""
        images = laid[:, self._guard : -self._guard].unflatten(
            1, (self._batch, self._wide, self._wide)
        )
        return images[:, :, 1:-1, 1:-1].transpose(0, 1)


def _csr(outputs: Ints, inputs: Ints, shifts: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    starts = np.concatenate([[0], np.bincount(outputs, minlength=count).cumsum()])
    return starts.astype(np.int32), inputs.astype(np.int32), shifts.astype(np.int32)


class Unfolded:
    """The sparse kernel's products on the matrix of all windows."""

    def __init__(self, weight: Tensor, mask: Tensor, batch: int, side: int):
        self._batch, self._side, self._outputs = batch, side, len(weight)
        living, bias = mask.flatten().nonzero().flatten(), torch.zeros(len(weight))
        values = weight[mask]
        self._found = torch.empty_like(values)
        self._layer = Products(
            weight.flatten(1).shape, living, values, self._found, bias, torch.empty_like(bias)
        )

    def __call__(self, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, weight gradient [living], input gradient where x > 0."""
        windows = unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
        slopes = dy.flatten(2).transpose(0, 1).flatten(1)
        y, back = torch.empty_like(slopes), torch.empty_like(windows)
        self._layer.forward(windows.numpy(), y.numpy(), False)
        self._layer.backward(slopes.numpy(), windows.numpy(), back.numpy())
        columns = back.unflatten(1, (self._batch, -1)).transpose(0, 1)
        dx = fold(columns, (self._side, self._side), 3, padding=1)
        images = y.unflatten(1, (self._batch, self._side, self._side)).transpose(0, 1).contiguous()
        return images, self._found, dx


def dense(weight: Tensor, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and both gradients, by torch."""
    weight, x = weight.requires_grad_(), x.detach().requires_grad_()
    y = conv2d(x, weight, padding=1)
    found, dx = torch.autograd.grad(y, (weight, x), dy)
    return y.detach(), found, dx


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numba"))
    print(
        f"{platform.machine()}, {versions}, batch {given.batch}, one thread; ms (times faster than dense)"
    )
    print(f"{'channels, side':>14} {'density':>8} {'dense':>8} {'unfolded':>16} {'shifted':>16}")
    for channels, side in LAYERS:
        x = torch.rand(given.batch, channels, side, side) + 0.1
        dy = torch.randn(given.batch, channels, side, side)
        for density in DENSITIES:
            mask = torch.rand(channels, channels, 3, 3) < density
            weight = torch.randn(channels, channels, 3, 3) * mask
            sparse = {way: way(weight, mask, given.batch, side) for way in (Unfolded, Shifted)}
            times: dict[object, list[float]] = {way: [] for way in (dense, *sparse)}
            for _ in range(given.rounds + 1):
                started = time.process_time()
                truth, slope, dx = dense(weight.clone(), x, dy)
                times[dense].append(time.process_time() - started)
                for way, convolve in sparse.items():
                    started = time.process_time()
                    found = convolve(x, dy)
                    times[way].append(time.process_time() - started)
                    for one, other in zip(found, (truth, slope[mask], dx), strict=True):
                        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
            cells = [f"{1000 * statistics.median(times[dense][1:]):8.2f}"]
            for way in sparse:
                pairs = zip(times[dense][1:], times[way][1:], strict=True)
                ratio = statistics.median(slow / fast for slow, fast in pairs)
                cells.append(
                    f"{1000 * statistics.median(times[way][1:]):.2f} ({ratio:4.1f}×)".rjust(16)
                )
            print(f"{f'{channels}, {side}':>14} {density:8.1%} {' '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
