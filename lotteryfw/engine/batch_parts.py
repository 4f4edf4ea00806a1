"""Parts of a batch, which are computed one after the other, or on several devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class BatchPart(NamedTuple):
    """Some examples of a batch, and the share of the whole batch that they are."""

    inputs: Tensor
    labels: Tensor
    share: float


def bounds(examples: int, parts: int, number: int) -> slice:
    """Return the examples of part `number` of `parts`; their numbers differ by 1 at most.

    >>> [bounds(10, 4, number) for number in range(4)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None), slice(7, 10, None)]
    """
    return slice(number * examples // parts, (number + 1) * examples // parts)


def batch_parts(inputs: Tensor, labels: Tensor, parts: int, whole: int) -> Sequence[BatchPart]:
    """Return the parts of a batch, in order. Batches of fewer examples have fewer parts.

    `whole` is the number of examples of the whole batch, of which a rank has a share.
    """
    if parts == 1:
        return [BatchPart(inputs, labels, len(inputs) / whole)]
    divided = []
    for number in range(parts):
        rows = bounds(len(inputs), parts, number)
        # A mean over no examples is not a number.
        if rows.start < rows.stop:
            share = (rows.stop - rows.start) / whole
            divided.append(BatchPart(inputs[rows], labels[rows], share))
    return divided
