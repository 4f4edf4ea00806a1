"""Data sets: their shapes and sizes before they are read, and their examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DatasetInfo:
    """The shape of one input, the number of classes, and the number of examples in each part.

    They are known without reading the data set.
    """

    shape: tuple[int, ...]
    classes: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Subset:
    """Examples and labels.

    `inputs`: [n, *shape] uint8 (read as value / 255) or float32. `labels`: [n] int64.
    """

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A data set: validation data is for choosing, test data for reporting.

    `mean` and `std` are per channel, of inputs in [0, 1].

    `mapped`: inputs are mapped from a file, being too many for memory; nobody copies them whole.
    """

    train: Subset
    validation: Subset
    test: Subset
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    mapped: bool = False
