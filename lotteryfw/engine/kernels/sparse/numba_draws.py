"""The random numbers of torch's CPU generator, 624 at a time.

torch draws one number after the other from a Mersenne Twister, MT19937 (Matsumoto & Nishimura
1998). Here the same words are made in loops that become vectors, in a tenth of the time.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotteryfw.engine.kernels.sparse.loops import Floats
from lotteryfw.engine.kernels.sparse.numba_loops import jit

Words = NDArray[np.uint32]

_WORDS = 624
"""Words of the generator's state, which are renewed together."""
_LAG = 227
"""A new word is made of the one that was made so many words before, of the state before at first."""


def fill_uniform(rng: torch.Generator, out: Tensor) -> None:
    """Fill `out` [n] float32 with what `torch.rand` draws, in [0, 1).

    `rng` is a generator of the CPU that nothing was drawn from yet; it stays as it is.
    """
    if _is_generator_of_torch():
        _fill(rng.initial_seed() & 0xFFFFFFFF, out.numpy())
    else:
        torch.rand(out.shape, generator=torch.Generator().manual_seed(rng.initial_seed()), out=out)


@cache
def _is_generator_of_torch() -> bool:
    """Return whether this version of torch draws these numbers. No documentation promises it."""
    numbers = torch.empty(2 * _WORDS + 1)
    _fill(1, numbers.numpy())
    return torch.equal(
        numbers, torch.rand(len(numbers), generator=torch.Generator().manual_seed(1))
    )


@jit
def _fill(seed: int, out: Floats) -> None:
    """Fill `out` with the numbers that follow a seed of 32 bits."""
    old, new = np.empty(_WORDS, np.uint32), np.empty(_WORDS, np.uint32)
    _seed(seed, old)
    for first in range(0, len(out), _WORDS):
        # In parts, of which none reads what it writes.
        _renew(old[:_LAG], old[1 : _LAG + 1], old[_WORDS - _LAG :], new[:_LAG])
        middle = new[_LAG : 2 * _LAG]
        _renew(old[_LAG : 2 * _LAG], old[_LAG + 1 : 2 * _LAG + 1], new[:_LAG], middle)
        _renew(old[2 * _LAG : -1], old[2 * _LAG + 1 :], middle, new[2 * _LAG : -1])
        _renew(old[-1:], new[:1], new[-_LAG - 1 : -_LAG], new[-1:])
        _uniform(new, out[first : first + _WORDS])
        old, new = new, old


@jit
def _seed(seed: int, words: Words) -> None:
    # Results of numba's are 64 bits wide unless they are cut.
    word = np.uint32(seed)
    words[0] = word
    for k in range(1, len(words)):
        mixed = word ^ (word >> np.uint32(30))
        word = np.uint32(np.uint32(1812433253) * mixed + np.uint32(k))
        words[k] = word


@jit
def _renew(words: Words, following: Words, lagging: Words, new: Words) -> None:
    for k in range(len(new)):
        joined = (words[k] & np.uint32(0x80000000)) | (following[k] & np.uint32(0x7FFFFFFF))
        matrix = np.uint32(0x9908B0DF) if following[k] & np.uint32(1) else np.uint32(0)
        new[k] = lagging[k] ^ (joined >> np.uint32(1)) ^ matrix


@jit
def _uniform(words: Words, out: Floats) -> None:
    """Set `out` to numbers of 24 bits, of the tempered words."""
    for k in range(len(out)):
        word = words[k]
        word ^= word >> np.uint32(11)
        word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
        word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
        word ^= word >> np.uint32(18)
        out[k] = np.float32(np.int32(word & np.uint32(0xFFFFFF))) * np.float32(2.0**-24)
