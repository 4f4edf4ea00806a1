"""Named streams of random numbers: a draw depends on its labels and on nothing else.

A label says what is decided (a `Stream`) and for whom (seed, level, layer name). So no draw shifts
because another one was added, skipped, cached or made in another process.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Label = str | int


class Stream(StrEnum):
    """The purposes that lotteryfw draws random numbers for, each with a stream of its own.

    A member is the same label as the string that is its value. Components that draw on their own
    behalf have streams of their own; docs/explanation/randomness.md lists all labels.
    """

    INITIALISATION = "initialisation"
    """The first values of a network's parameters and buffers are drawn."""
    NETWORK = "network"
    """A model is built: what it keeps outside its parameters and buffers is drawn."""
    ORDER = "order"
    """The order of training examples in an epoch is drawn."""
    COPY = "copy"
    """A copy of a training gets its own data order and augmentation (`lab.again`)."""
    AUGMENTATION = "augmentation"
    """An augmentation changes one batch."""
    IN_TRAINING = "in training"
    """Modules such as dropout draw in a forward pass."""
    CRITERION = "criterion"
    """A mask criterion draws from `layer.rng`."""
    MASK1 = "mask1"
    """A mask-1 action draws from `layer.rng`."""
    MASK0 = "mask0"
    """A mask-0 action draws from `layer.rng`."""
    REINITIALISE = "reinitialise"
    """`layer.resample()` draws weights afresh, for an action or for a control."""
    TIES = "ties"
    """It is decided which of the weights that tie at a threshold stay."""
    CONTROL = "control"
    """A control draws from `layer.rng`."""
    RANDOM_MASK = "random_mask"
    """A random mask is drawn for a search or a control."""
    SCORES = "scores"
    """The scores at the start of learning a mask are drawn."""
    MASKS = "masks"
    """The masks of a training step, or of an evaluation, are drawn."""
    AFTER_STEP = "after step"
    """A parametrization redraws something after a step."""
    MASK_UPDATE = "mask update"
    """A mask update draws from `net.rng` as it changes the masks of a training."""
    PROBE = "probe"
    """A component draws from `probe.rng`."""
    PROBE_BATCHES = "probe batches"
    """The examples of a probe's batches are drawn."""
    CYCLE = "cycle"
    """A seed is derived for a later cycle of learning a mask."""
    TARGET = "target"
    """A seed is derived for the output layer of a ticket that is trained on other data."""
    LEVEL = "level"
    """A seed is derived for the data order and the augmentations of a later level."""


def seed_of(*labels: Label) -> int:
    """Return a seed in [0, 2**63) that depends on the labels alone.

    It is the same on every machine and in every version.
    """
    parts: list[str] = []
    for label in labels:
        # a member of an enum counts as the string that it is
        kind = "str" if isinstance(label, str) else type(label).__name__
        # With its type, so that the number 1 and the text "1" name two streams.
        parts.append(f"{kind}:{label}")
    # A separator that no label holds: ("a", "bc") and ("ab", "c") must differ.
    text = "\x1f".join(parts)
    # 63 bits: torch takes a signed number as a seed.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*labels: Label) -> torch.Generator:
    """Return a fresh CPU generator for the draws named by `labels`.

    >>> import torch
    >>> a = torch.rand(3, generator=stream(0, "ties", "fc1"))
    >>> b = torch.rand(3, generator=stream(0, "ties", "fc1"))
    >>> bool((a == b).all())
    True
    """
    import torch

    # On the CPU whatever the device, so that a study draws the same everywhere.
    return torch.Generator().manual_seed(seed_of(*labels))
