"""Images that are read from their files in each epoch, as the papers on ImageNet do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import DrawBox, ExampleReader, StreamedDataset, StreamedSubset
from lotteryfw.std.image_files import Image, ImageList, open_image
from lotteryfw.std.splits import division

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Means and deviations of ImageNet's training images, by channel, as everybody has them."""


Resize = Annotated[
    int | None,
    Field(
        ge=1,
        description="Of streamed images: what the shorter side is resized to before evaluations "
        "see the middle. Left out: 8/7 of the size, 256 pixels for 224.",
    ),
]


def check_resize(streamed: bool, size: int | None, resize: int | None) -> None:
    """Raise ValueError for a `resize` that does nothing, or leaves less than the size."""
    if resize is None:
        return
    if not streamed:
        raise ValueError("resize is for streamed images: it needs streamed = true")
    if size is not None and resize < size:
        raise ValueError(f"resize = {resize} leaves less than the size, {size}")


def resized_side(size: int) -> int:
    """Return what the shorter side is resized to before the middle `size` pixels are cut out.

    The papers on ImageNet take 256 for 224 pixels: the middle 7/8.

    >>> resized_side(224), resized_side(299)
    (256, 342)
    """
    return round(size * 8 / 7)


class ImageReader(ExampleReader):
    """Reads images [channels, size, size] uint8."""

    def __init__(self, use: str, images: Sequence[Image], channels: int, size: int, resize: int):
        """`resize`: the length of the shorter side, of which evaluations see the middle."""
        self._use = use
        self._images = images
        self._mode = "L" if channels == 1 else "RGB"
        self._size = size
        self._resize = resize

    def read(self, index: int, draw_box: DrawBox | None = None) -> Tensor:
        from torchvision.transforms.v2 import functional

        picture = open_image(self._use, self._images[index].path, self._mode)
        square = [self._size, self._size]
        # bilinear with antialiasing, which are torchvision's defaults
        if draw_box is None:
            picture = functional.resize(picture, [self._resize])
            picture = functional.center_crop(picture, square)
        else:
            box = draw_box(picture.height, picture.width)
            picture = functional.resized_crop(picture, *box, square)
        pixels: Tensor = functional.pil_to_tensor(picture)
        return pixels


def streamed_splits(
    use: str,
    listed: ImageList,
    validation: int,
    split_seed: int,
    channels: int,
    size: int,
    resize: int | None,
) -> StreamedDataset:
    """Return all images, those for validation split off as from images that are held in memory."""
    import torch

    to_validate, to_train = division(len(listed.train), validation, split_seed)

    def part(images: Sequence[Image]) -> StreamedSubset:
        labels = torch.tensor([image.label for image in images])
        reader = ImageReader(use, images, channels, size, resize or resized_side(size))
        return StreamedSubset(reader, labels)

    return StreamedDataset(
        part([listed.train[index] for index in to_train.tolist()]),
        part([listed.train[index] for index in to_validate.tolist()]),
        part(listed.test),
    )
