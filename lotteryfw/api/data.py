"""Data sets: their shapes and sizes before they are read, and their examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DatasetInfo:
    """The shape of one input, the number of classes, and the number of examples in each part.

    They are known without reading the data set. With a `vocabulary` inputs are tokens, int64 in
    0 … vocabulary - 1, and `shape` is that of one sequence of them. `label_shape` is the shape of
    one label: () for one number each. `classes` is the size of the output that the objective gives
    the network, where it does not say otherwise.
    """

    shape: tuple[int, ...]
    classes: int
    train: int
    validation: int
    test: int
    vocabulary: int = 0
    label_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Subset:
    """Examples and labels.

    `inputs`: [n, *shape] uint8 (read as value / 255), float32, or int64 tokens. `labels`:
    [n, *label_shape] int64, or float32 for an objective that does not read them as classes.
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
    # Of the training part: validation and test data must not shape what a network sees.
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    mapped: bool = False
