"""The options that data sources share, and the split into training and validation part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import DataError, Dataset, DatasetInfo, Subset, stream
from lotteryfw.std.draws import OwnStream

if TYPE_CHECKING:
    from torch import Tensor

Validation = Annotated[
    int, Field(ge=1, description="Examples taken from the training part to validate on.")
]
SplitSeed = Annotated[
    int, Field(ge=0, description="Draws these examples; apart from the seeds of a study.")
]
Normalise = Annotated[
    Literal["unit", "standard"],
    Field(
        description="unit: pixels in [0, 1]; standard: also mean 0 and deviation 1 per channel "
        "of the training part."
    ),
]


def facts(
    shape: tuple[int, ...],
    classes: int,
    examples: int,
    test: int,
    validation: int,
    streamed: bool = False,
) -> DatasetInfo:
    """Return the facts of a set whose `examples` for training lose `validation`.

    Raises DataError where none are left.
    """
    _check(validation, examples)
    train = examples - validation
    return DatasetInfo(shape, classes, train, validation, test, streamed=streamed)


def split(
    examples: Subset, test: Subset, validation: int, split_seed: int, normalise: str
) -> Dataset:
    """Split `validation` of `examples` [n, c, h, w] uint8 off, by a stream of their own.

    Raises DataError where none are left.
    """
    to_validate, to_train = division(len(examples.labels), validation, split_seed)
    chosen = Subset(examples.inputs[to_validate], examples.labels[to_validate])
    train = Subset(examples.inputs[to_train], examples.labels[to_train])
    return normalised(train, chosen, test, normalise)


def division(examples: int, validation: int, split_seed: int) -> tuple[Tensor, Tensor]:
    """Draw the examples for validation, and return them and those for training.

    Both are indices, int64, in the order that the examples then have. Raises DataError where none
    are left to train on.
    """
    import torch

    _check(validation, examples)
    order = torch.randperm(examples, generator=stream(OwnStream.SPLIT, split_seed))
    return order[:validation], order[validation:]


def normalised(train: Subset, validation: Subset, test: Subset, normalise: str) -> Dataset:
    """Return the parts as a data set, normalised by moments of the training part."""
    if normalise == "unit":
        return Dataset(train, validation, test)
    # of the training part alone: the others' moments would leak into it
    channels = train.inputs.unbind(1)
    mean, std = zip(*map(_moments, channels), strict=True)
    return Dataset(train, validation, test, mean, std)


def _check(validation: int, examples: int) -> None:
    if validation >= examples:
        raise DataError(
            f"validation = {validation} leaves nothing to train on: there are {examples} examples"
        )


def _moments(pixels: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of uint8 `pixels` read as value / 255, exactly.

    A channel of one colour gets deviation 1, since it is divided by.
    """
    import torch

    # in chunks, since bincount makes int64 of what it counts: eight times the memory
    counts = torch.zeros(256, dtype=torch.int64)
    for chunk in pixels.chunk(len(pixels) // 1000 + 1):
        counts += torch.bincount(chunk.flatten(), minlength=256)
    share = counts.double() / pixels.numel()
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = float((share * value).sum())
    return mean, float((share * (value - mean) ** 2).sum().sqrt()) or 1.0
