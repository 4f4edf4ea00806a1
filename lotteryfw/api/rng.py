"""Named streams of random numbers: a draw depends on its labels and on nothing else.

A label says what is decided (`"initialisation"`, `"order"`, `"ties"`, …) and for whom (seed, level, layer name). So no
draw shifts because another one was added, skipped, cached or made in another process.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Label = str | int


def seed_of(*labels: Label) -> int:
    """A seed in [0, 2**63) that depends on the labels alone, the same on every machine and in every version."""
    text = "\x1f".join(f"{type(label).__name__}:{label}" for label in labels)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*labels: Label) -> torch.Generator:
    """A fresh CPU generator for the draws named by `labels`.

    >>> import torch
    >>> a = torch.rand(3, generator=stream(0, "ties", "fc1"))
    >>> b = torch.rand(3, generator=stream(0, "ties", "fc1"))
    >>> bool((a == b).all())
    True
    """
    import torch

    return torch.Generator().manual_seed(seed_of(*labels))
