"""Matrices of several members in one tensor, and products of them that round alike in any company.

A batched product is a product for each member, and BLAS may round it differently where a matrix
starts elsewhere in a cache line (MKL does with AVX-512) or is stored otherwise. So the matrices of
every member start at a multiple of `ALIGNED` numbers, and a product is called alike for one member
and for several.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import torch
from torch import Tensor

from lotteryfw.search.jobs import Train

ALIGNED = 16
"""Numbers in a cache line, and in the widest vector."""


def aligned_size(shape: Sequence[int]) -> int:
    """Return how many numbers one member's matrix or vector takes up, its padding included."""
    return ceil(prod(shape) / ALIGNED) * ALIGNED


def empty_stack(shape: Sequence[int], device: str | torch.device) -> Tensor:
    """Return an uninitialised tensor [members, rows, columns], each member's matrix aligned."""
    members, *matrix = shape
    flat = torch.empty(members, aligned_size(matrix), device=device)
    return flat[:, : prod(matrix)].view(*shape)


def aligned(stack: Tensor) -> Tensor:
    """Return `stack` [members, rows, columns] with each member's matrix aligned.

    It is copied only where that takes a copy.
    """
    if len(stack) == 1 or stack[0].numel() % ALIGNED == 0:
        return stack
    return empty_stack(stack.shape, stack.device).copy_(stack)


def split(flat: Tensor, shapes: dict[str, torch.Size], members: int) -> dict[str, Tensor]:
    """Return views [members, *shape] of each parameter's part of a flat tensor."""
    views, start = {}, 0
    for name, shape in shapes.items():
        stop = start + aligned_size(shape) * members
        # The padding of a matrix follows it, so a view leaves it out at the end of each row.
        padded = flat[start:stop].view(members, -1)
        views[name] = padded[:, : prod(shape)].view(members, *shape)
        start = stop
    return views


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """Write the outputs [members, n, out] of a layer for x [members, n, in] into `out`."""
    if bias is None:
        return product(x, weight.mT, out)
    for members in calls(out):
        torch.baddbmm(bias[members].unsqueeze(1), x[members], weight[members].mT, out=out[members])
    return out


def product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write every member's product of two matrices into `out`, and return it."""
    for members in calls(out):
        torch.bmm(left[members], right[members], out=out[members])
    return out


def calls(result: Tensor) -> list[slice]:
    """Return the members of each call of a batched product: all at once, or one after another.

    On the CPU, torch hands a batch to BLAS in another way where there are gaps between the results
    of its members; the result of one member never has any. So one member at a time is the call that
    a group of one makes.
    """
    # cuBLAS takes strides between matrices as they are.
    if result.device.type != "cpu" or result.is_contiguous():
        return [slice(None)]
    return [slice(slot, slot + 1) for slot in range(len(result))]


_NUMBERS_OF_A_WEIGHT = 6
"""Value, gradient, two of an optimizer like Adam, the mask, and what a step computes of them."""
_NUMBERS_OF_A_UNIT = 4
"""A unit's output for an example, its gradient, and what is computed on the way."""


def member_bytes(job: Train) -> int:
    """Return about what a member holds: its weights, and the units of one batch."""
    weights, units = 0, 0
    for value in job.values.values():
        weights += value.numel()
        if value.dim() == 2:
            units += sum(value.shape)
    numbers = _NUMBERS_OF_A_WEIGHT * weights + _NUMBERS_OF_A_UNIT * job.batch * units
    return 4 * numbers
