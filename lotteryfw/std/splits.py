"""What the data sources share: options, and how a validation part is split off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import DataError, Dataset, DatasetInfo, Subset, stream

if TYPE_CHECKING:
    from torch import Tensor

Validation = Annotated[
    int, Field(ge=1, description="Examples taken from the training part to validate on.")
]
SplitSeed = Annotated[
    int, Field(ge=0, description="Which examples those are; apart from the seeds of a study.")
]
Normalise = Annotated[
    Literal["unit", "standard"],
    Field(
        description="unit: pixels in [0, 1]; standard: also mean 0 and deviation 1 per channel of the training part."
    ),
]


def facts(
    shape: tuple[int, ...], classes: int, examples: int, test: int, validation: int
) -> DatasetInfo:
    """The facts of a set whose `examples` for training lose `validation`. Raises DataError where none are left."""
    _check(validation, examples)
    return DatasetInfo(
        shape, classes, train=examples - validation, validation=validation, test=test
    )


def split(
    examples: Subset, test: Subset, validation: int, split_seed: int, normalise: str
) -> Dataset:
    """Dataset `validation` of `examples` [n, c, h, w] uint8 off, by a stream of their own.

    Raises DataError where none are left.
    """
    chosen, left = (
        Subset(examples.inputs[part], examples.labels[part])
        for part in division(len(examples.labels), validation, split_seed)
    )
    return normalised(left, chosen, test, normalise)


def division(examples: int, validation: int, split_seed: int) -> tuple[Tensor, Tensor]:
    """Which of the examples are for validation, and which for training: places, int64, in the order they then have.

    Raises DataError where none are left to train on.
    """
    import torch

    _check(validation, examples)
    chosen, left = torch.randperm(examples, generator=stream("split", split_seed)).tensor_split(
        [validation]
    )
    return chosen, left


def normalised(train: Subset, validation: Subset, test: Subset, normalise: str) -> Dataset:
    """The parts, with what `normalise` asks for: measured on the training part."""
    if normalise == "unit":
        return Dataset(train, validation, test)
    mean, std = zip(
        *(_moments(train.inputs[:, channel]) for channel in range(train.inputs.shape[1])),
        strict=True,
    )
    return Dataset(train, validation, test, mean, std)


def _check(validation: int, examples: int) -> None:
    if validation >= examples:
        raise DataError(
            f"validation = {validation} leaves nothing to train on: there are {examples} examples"
        )


def _moments(pixels: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of uint8 `pixels` read as value / 255, exactly, from their histogram.

    A channel of one colour gets deviation 1, for it is divided by.
    """
    import torch

    chunks = pixels.chunk(
        len(pixels) // 1000 + 1
    )  # counted as int64: all at once, eight times the memory
    counts = torch.stack([torch.bincount(chunk.flatten(), minlength=256) for chunk in chunks]).sum(
        0
    )
    share = counts.double() / pixels.numel()
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = float((share * value).sum())
    return mean, float((share * (value - mean) ** 2).sum().sqrt()) or 1.0
