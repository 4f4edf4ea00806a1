"""Data sets: their shapes and sizes before they are read, and their examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DatasetInfo:
    """The shape of one input, the number of classes, and the number of examples in each part.

    They are known without reading the data set. With a `vocabulary` inputs are tokens, int64 in
    0 … vocabulary - 1, and `shape` is that of one sequence of them. `label_shape` is the shape of
    one label: () for one number each. `classes` is the size of the output that the objective gives
    the network, where it does not say otherwise. `streamed` is True where the source loads a
    `StreamedDataset`.
    """

    shape: tuple[int, ...]
    classes: int
    train: int
    validation: int
    test: int
    vocabulary: int = 0
    label_shape: tuple[int, ...] = ()
    streamed: bool = False


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


class Box(NamedTuple):
    """A part of an image, in whole pixels from its upper left corner."""

    top: int
    left: int
    height: int
    width: int


DrawBox = Callable[[int, int], Box]
"""Returns the box to cut out of an image of this height and width."""


class ExampleReader(ABC):
    """Reads the inputs of one part of a data set, one at a time, when they are needed."""

    @abstractmethod
    def read(self, index: int, draw_box: DrawBox | None = None) -> Tensor:
        """Return input `index`, [*shape] uint8, float32 or int64 tokens, on the CPU.

        Several threads call it at once. A training that crops at random passes `draw_box`: the box
        that it returns is to be cut out of the image and resized to `shape`. None: the input as
        every evaluation and probe sees it. Raises DataError that names the file.
        """


@dataclass(frozen=True)
class StreamedSubset:
    """Examples too many for memory, and their labels, which are held in memory.

    `labels`: as those of a `Subset`; their number is that of the examples.
    """

    inputs: ExampleReader
    labels: Tensor


@dataclass(frozen=True)
class StreamedDataset:
    """A data set whose inputs are read from its files again and again, in each epoch.

    `mean` and `std` are as those of a `Dataset`.
    """

    train: StreamedSubset
    validation: StreamedSubset
    test: StreamedSubset
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
