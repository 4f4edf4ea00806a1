"""Loops over the scores of learned masks, jitted: each is one pass in one thread.

All arrays are [n]; masks are bool, everything else is float32 where nothing is said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lotteryfw.engine.kernels.sparse.loops import Floats
from lotteryfw.engine.kernels.sparse.numba_loops import jit

Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

_BLOCK = 64


@jit
def rank(scores: Floats, allowed: Bools, by_magnitude: bool, ranks: Floats) -> None:
    """Set what scores are ranked by: themselves or their magnitudes, -inf where not allowed."""
    for k in range(len(scores)):
        ranked = np.abs(scores[k]) if by_magnitude else scores[k]
        ranks[k] = ranked if allowed[k] else np.float32(-np.inf)


@jit
def bracket(
    ranks: Floats, low: float, high: float, above: Bools, inside: Indices
) -> tuple[int, int]:
    """Find the ranks above `high` and those from `low` up to `high`.

    Marks the first in `above`, writes the indices of the others to the beginning of `inside`, and
    returns how many there are of each.
    """
    lowest, highest = np.float32(low), np.float32(high)
    total = found = 0
    for first in range(0, len(ranks), _BLOCK):
        block, marks = ranks[first : first + _BLOCK], above[first : first + _BLOCK]
        # Counted in numbers of one type, and apart from the indices: loops that become vectors.
        over = at_least = np.float32(0)
        for k in range(len(block)):
            over += np.float32(1) if block[k] > highest else np.float32(0)
            at_least += np.float32(1) if block[k] >= lowest else np.float32(0)
        for k in range(len(block)):
            marks[k] = block[k] > highest
        total += int(over)
        if at_least > over:
            for k in range(len(block)):
                # Written in any case, and kept by counting it: cheaper than a branch.
                inside[found] = first + k
                found += block[k] >= lowest and not block[k] > highest
    return total, found


@jit
def draw(noise: Floats, probabilities: Floats, allowed: Bools, mask: Bools) -> None:
    """Set mask = noise < probabilities where allowed, False elsewhere."""
    for k in range(len(noise)):
        mask[k] = (noise[k] < probabilities[k]) & allowed[k]


@jit
def keep_weights(weights: Floats, mask: Bools, factor: float, values: Floats) -> None:
    """Set values = factor · weights under a mask, 0 where it is False."""
    scale = np.float32(factor)
    for k in range(len(weights)):
        values[k] = scale * weights[k] if mask[k] else np.float32(0)


@jit
def ranked_score_gradient(
    gradient: Floats, weights: Floats, scores: Floats, by_magnitude: bool
) -> None:
    """Turn the gradient of the masked weights into that of the scores that they are ranked by.

    It passes straight through the mask.
    """
    for k in range(len(gradient)):
        slope = gradient[k] * weights[k]
        if by_magnitude:
            # The slope of |s| at 0 is 0, as autograd has it.
            sign = np.float32(1) if scores[k] > 0 else np.float32(-1)
            slope *= np.float32(0) if scores[k] == 0 else sign
        gradient[k] = slope


@jit
def drawn_score_gradient(
    gradient: Floats, weights: Floats, probabilities: Floats, factor: float, shift: float
) -> None:
    """Turn the gradient of factor · the masked weights into that of the logits of probabilities.

    It passes straight through the mask. `shift` is added to the slope of every edge, as what the
    loss gains by the factor when one more edge takes part.
    """
    scale, added = np.float32(factor), np.float32(shift)
    for k in range(len(gradient)):
        p = probabilities[k]
        gradient[k] = (gradient[k] * scale * weights[k] + added) * ((np.float32(1) - p) * p)
