"""Images in a folder for each class: finding them, and decoding them into one tensor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw import DataError, Dataset, Subset
from lotteryfw.std.splits import division, normalised

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
IN_MEMORY = 8 * 2**30
"""Bytes. What is larger when decoded is kept in a file, and mapped."""


@dataclass(frozen=True, slots=True)
class Image:
    """A file and the number of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class ImageList:
    """The classes and images of a folder, sorted by class and name."""

    classes: tuple[str, ...]
    train: tuple[Image, ...]
    test: tuple[Image, ...]


def scan(use: str, root: Path, test: str) -> ImageList:
    """List the images below `root`/train and `root`/`test`.

    Raises DataError with the layout that is expected.
    """
    layout = f"{root} should hold train/<class>/<image> and {test}/<class>/<image>"
    halves = (root / "train", root / test)
    # both at once, so that nobody has to try twice
    absent = [str(half) for half in halves if not half.is_dir()]
    if absent:
        raise DataError(f"{use}: there is no folder {' and no folder '.join(absent)}; {layout}")
    classes = tuple(_folders(halves[0]))
    strange = sorted(set(_folders(halves[1])) - set(classes))
    if strange:
        raise DataError(f"{use}: {halves[1]} has classes that train/ lacks: {', '.join(strange)}")

    train, test_images = (_list(half, classes, folder_times(half)) for half in halves)
    refuse_empty(use, halves[0], classes, train)
    refuse_empty(use, halves[1], classes, test_images)
    return ImageList(classes, train, test_images)


def refuse_empty(use: str, half: Path, classes: Sequence[str], images: Sequence[Image]) -> None:
    """Raise DataError where there are no images in `half`, or in one of its class folders."""
    suffixes = ", ".join(sorted(SUFFIXES))
    if not images:
        raise DataError(
            f"{use}: no images in {half} (of {suffixes}); it should hold <class>/<image>"
        )
    labels = {image.label for image in images}
    empty: list[str] = []
    for label, name in enumerate(classes):
        if label not in labels and (half / name).is_dir():
            empty.append(name)
    if empty:
        raise DataError(
            f"{use}: {half} has class folders without an image: {', '.join(empty)}; remove them, "
            f"or put their images there (of {suffixes})"
        )


def folder_times(half: Path) -> tuple[int, ...]:
    """Return when each class folder changed, which it does when a file in it comes or goes."""
    return tuple((half / name).stat().st_mtime_ns for name in _folders(half))


def _folders(half: Path) -> list[str]:
    return sorted(entry.name for entry in half.iterdir() if entry.is_dir())


@lru_cache(maxsize=8)
def _list(half: Path, classes: tuple[str, ...], times: tuple[int, ...]) -> tuple[Image, ...]:
    """Return every image of the class folders in `half`.

    `facts`, `fingerprint` and `load` all need the list; the disk is read once for a state of it.
    """
    images: list[Image] = []
    for label, name in enumerate(classes):
        if not (half / name).is_dir():
            continue  # the test half may lack a class
        # by name: the order in which a disk lists files is not the same everywhere
        for entry in sorted(os.scandir(half / name), key=lambda entry: entry.name):
            if Path(entry.name).suffix.lower() in SUFFIXES:
                images.append(Image(Path(entry.path), label))
    return tuple(images)


@dataclass(frozen=True)
class Decoder:
    """Decodes images into pixels of `shape` [channels, height, width].

    `size` is the side of a square that images are cut and resized to; None: they have that shape
    already.
    """

    use: str
    shape: tuple[int, int, int]
    size: int | None

    def splits(
        self, listed: ImageList, validation: int, split_seed: int, normalise: str, kept: Path
    ) -> Dataset:
        """Return all images, those for validation split off.

        Pixels too many for memory are mapped from the file `kept`, which is written where it is
        absent.
        """
        import torch

        to_validate, to_train = division(len(listed.train), validation, split_seed)
        parts: list[list[Image]] = [
            [listed.train[index] for index in to_train.tolist()],
            [listed.train[index] for index in to_validate.tolist()],
            list(listed.test),
        ]
        images = list(chain.from_iterable(parts))
        fits = len(images) * prod(self.shape) <= IN_MEMORY
        pixels = self._decoded(images) if fits else self._mapped(images, kept)
        labels = torch.tensor([image.label for image in images])
        sizes = [len(part) for part in parts]
        for_training, for_validation, test = map(
            Subset, pixels.split_with_sizes(sizes), labels.split_with_sizes(sizes)
        )
        return replace(normalised(for_training, for_validation, test, normalise), mapped=not fits)

    def _decoded(self, images: Sequence[Image]) -> Tensor:
        import torch

        pixels = torch.empty((len(images), *self.shape), dtype=torch.uint8)
        for index, image in enumerate(self._pixels(images)):
            pixels[index] = image
        return pixels

    def _mapped(self, images: Sequence[Image], kept: Path) -> Tensor:
        import numpy as np
        import torch
        from filelock import FileLock

        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            # a second process waits here, and then reads what the first one wrote
            with FileLock(f"{kept}.lock"):
                if not kept.is_file():
                    # written aside, as a file that was cut off would pass for a whole one
                    aside = kept.with_name(f"{kept.name}.part")
                    with aside.open("wb") as file:
                        for image in self._pixels(images):
                            file.write(image.contiguous().numpy().data)
                    aside.replace(kept)
        except OSError as error:
            needs = f"{len(images) * prod(self.shape) / 1e9:.0f} GB"
            raise DataError(
                f"{self.use}: the decoded images ({needs}) could not be kept in {kept}: {error}"
            ) from error
        held = np.memmap(kept, np.uint8, "r", shape=(len(images), *self.shape))
        # torch warns that it would let somebody write to a file that is mapped for reading
        with warnings.catch_warnings(action="ignore"):
            return torch.from_numpy(held)

    def _pixels(self, images: Sequence[Image]) -> Iterator[Tensor]:
        """Yield each image as [c, h, w] uint8."""
        import numpy as np
        import torch
        from PIL import Image as Pillow
        from PIL import ImageOps

        channels, height, width = self.shape
        mode = "L" if channels == 1 else "RGB"
        # one by one: threads took twice as long for 32×32 JPEGs on two cores
        for image in images:
            picture = open_image(self.use, image.path, mode)
            if self.size:
                picture = ImageOps.fit(picture, (self.size, self.size), Pillow.Resampling.BILINEAR)
            if picture.size != (width, height):
                sizes = f"{picture.width}×{picture.height} pixels, the first image {width}×{height}"
                raise DataError(
                    f"{self.use}: {image.path} has {sizes}; give a size to bring all to one"
                )
            pixels = torch.from_numpy(np.array(picture)).reshape(height, width, channels)
            yield pixels.permute(2, 0, 1)


def open_image(use: str, path: Path, mode: str) -> Picture:
    """Return an image, decoded, in Pillow's mode "L" or "RGB".

    Raises DataError for a damaged file, and for values whose range the file does not say.
    """
    try:
        return decoded(path, mode)
    except DamagedFile as damage:
        raise unreadable(use, path, damage) from damage
    except UnknownRange as error:
        raise DataError(
            f"{use}: {path} holds {error}, of an unknown range; convert it to 8 bits a channel"
        ) from error


class DamagedFile(Exception):
    """A file is no image, or not all of one."""


class UnknownRange(Exception):
    """An image's pixels are numbers that white could be any of."""


def decoded(path: Path, mode: str) -> Picture:
    """Return an image, all of it decoded, in Pillow's mode "L" or "RGB".

    Raises DamagedFile, UnknownRange.
    """
    from PIL import Image as Pillow

    try:
        with Pillow.open(path) as file:
            return _eight_bits(file).convert(mode)
    except (MemoryError, UnknownRange):
        raise
    # Pillow's decoders raise errors of many types for bytes that they do not expect
    except Exception as error:
        raise DamagedFile(str(error) or type(error).__name__) from error


def _eight_bits(picture: Picture) -> Picture:
    """Return the image with a byte a channel.

    Pillow's own conversion of 16 bits a pixel makes everything above 255 white. Raises
    UnknownRange.
    """
    import numpy as np
    from PIL import Image as Pillow

    # 32-bit integers are also what some versions of Pillow read 16-bit PNG and PGM into
    is_16_bit = picture.mode.startswith("I;16") or (
        picture.mode == "I" and picture.format in ("PNG", "PPM")
    )
    if is_16_bit:
        # 257 = 65535 / 255: white stays white
        values = np.asarray(picture).astype(np.float64) / 257
        return Pillow.fromarray(values.round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UnknownRange("floating-point numbers" if picture.mode == "F" else "32-bit integers")
    return picture


def size_of(use: str, path: Path) -> tuple[int, int]:
    """Return an image's height and width, from the file's header."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise unreadable(use, path, error) from error


def unreadable(use: str, path: Path, error: Exception) -> DataError:
    """Return the error to raise for a file that is no image."""
    return DataError(f"{use}: {path} is not an image that can be read: {error}")
