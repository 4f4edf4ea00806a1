"""Images in a folder for each class: finding them, and decoding them into one tensor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
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
class Found:
    """What lies in a folder, sorted by class and name."""

    classes: tuple[str, ...]
    train: tuple[Image, ...]
    test: tuple[Image, ...]


def scan(use: str, root: Path, test: str) -> Found:
    """Lists the images below `root`/train and `root`/`test`. Raises DataError with the layout that is expected."""
    layout = f"{root} should hold train/<class>/<image> and {test}/<class>/<image>"
    halves = {part: root / part for part in ("train", test)}
    absent = [str(half) for half in halves.values() if not half.is_dir()]
    if absent:
        raise DataError(f"{use}: there is no folder {' and no folder '.join(absent)}; {layout}")
    classes = tuple(_folders(halves["train"]))
    strange = sorted(set(_folders(halves[test])) - set(classes))
    if strange:
        raise DataError(
            f"{use}: {halves[test]} has classes that train/ lacks: {', '.join(strange)}"
        )
    # a folder's time changes when a file in it comes or goes: then it is listed again
    times = tuple(
        (half / name).stat().st_mtime_ns for half in halves.values() for name in _folders(half)
    )
    found = Found(classes, *(_list(half, classes, times) for half in halves.values()))
    for part, images in (("train", found.train), (test, found.test)):
        if not images:
            raise DataError(
                f"{use}: no images in {root / part} (of {', '.join(sorted(SUFFIXES))}); {layout}"
            )
        labels = {image.label for image in images}
        empty = [
            name
            for label, name in enumerate(classes)
            if label not in labels and (root / part / name).is_dir()
        ]
        if empty:
            raise DataError(
                f"{use}: {root / part} has class folders without an image: {', '.join(empty)}; remove them, or put "
                f"their images there (of {', '.join(sorted(SUFFIXES))})"
            )
    return found


def _folders(half: Path) -> list[str]:
    return sorted(entry.name for entry in half.iterdir() if entry.is_dir())


@lru_cache(maxsize=8)
def _list(half: Path, classes: tuple[str, ...], times: tuple[int, ...]) -> tuple[Image, ...]:
    """Every image of the class folders in `half`. DatasetInfo, fingerprint and load all ask; the disk is asked once."""
    images = []
    for label, name in enumerate(classes):
        if (half / name).is_dir():
            entries = sorted(os.scandir(half / name), key=lambda entry: entry.name)
            chosen = [entry for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
            images += [Image(Path(entry.path), label) for entry in chosen]
    return tuple(images)


@dataclass(frozen=True)
class Decoder:
    """How images become pixels: `shape` [channels, height, width] of each; `size` is the side of a square to cut and
    resize them to, None: they have that shape already."""

    use: str
    shape: tuple[int, int, int]
    size: int | None

    def splits(
        self, found: Found, validation: int, split_seed: int, normalise: str, kept: Path
    ) -> Dataset:
        """All images, those for validation split off. Pixels too many for memory are mapped from the file `kept`,
        which is written when it is not there."""
        import torch

        chosen, left = division(len(found.train), validation, split_seed)
        parts = [
            *([found.train[place] for place in places.tolist()] for places in (left, chosen)),
            found.test,
        ]
        images = [image for part in parts for image in part]
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
        for place, each in enumerate(self._pixels(images)):
            pixels[place] = each
        return pixels

    def _mapped(self, images: Sequence[Image], kept: Path) -> Tensor:
        import numpy as np
        import torch
        from filelock import FileLock

        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{kept}.lock"):  # who comes second waits, and finds the file
                if not kept.is_file():
                    aside = kept.with_name(f"{kept.name}.part")
                    with aside.open("wb") as file:
                        for each in self._pixels(images):
                            file.write(each.contiguous().numpy().data)
                    aside.replace(kept)
        except OSError as error:
            needs = f"{len(images) * prod(self.shape) / 1e9:.0f} GB"
            raise DataError(
                f"{self.use}: the decoded images ({needs}) could not be kept in {kept}: {error}"
            ) from error
        held = np.memmap(kept, np.uint8, "r", shape=(len(images), *self.shape))
        with warnings.catch_warnings(action="ignore"):  # that torch would let somebody write to it
            return torch.from_numpy(held)

    def _pixels(self, images: Sequence[Image]) -> Iterator[Tensor]:
        """Each as [c, h, w] uint8, one by one: threads took twice as long for 32×32 JPEGs on two cores."""
        import numpy as np
        import torch
        from PIL import Image as Pillow
        from PIL import ImageOps

        channels, height, width = self.shape
        for image in images:
            try:
                with Pillow.open(image.path) as file:
                    picture = self._eight_bits(file, image.path).convert(
                        "L" if channels == 1 else "RGB"
                    )
            except OSError as error:
                raise unreadable(self.use, image.path, error) from error
            if self.size:
                picture = ImageOps.fit(picture, (self.size, self.size), Pillow.Resampling.BILINEAR)
            if picture.size != (width, height):
                found = f"{picture.width}×{picture.height} pixels, the first image {width}×{height}"
                raise DataError(
                    f"{self.use}: {image.path} has {found}; give a size to bring all to one"
                )
            yield (
                torch.from_numpy(np.array(picture))
                .reshape(height, width, channels)
                .permute(2, 0, 1)
            )

    def _eight_bits(self, picture: Picture, path: Path) -> Picture:
        """The image with a byte a channel. Pillow's own conversion of 16 bits a pixel makes everything above 255 white.

        Raises DataError for values whose range the file does not say.
        """
        import numpy as np
        from PIL import Image as Pillow

        # 32-bit integers are also what some versions of Pillow read 16-bit PNG and PGM into
        is_16_bit = picture.mode.startswith("I;16") or (
            picture.mode == "I" and picture.format in ("PNG", "PPM")
        )
        if is_16_bit:
            return Pillow.fromarray(
                (np.asarray(picture).astype(np.float64) / 257).round().astype(np.uint8)
            )
        if picture.mode in ("I", "F"):
            kind = "floating-point numbers" if picture.mode == "F" else "32-bit integers"
            raise DataError(
                f"{self.use}: {path} holds {kind}, of an unknown range; convert it to 8 bits a channel"
            )
        return picture


def size_of(use: str, path: Path) -> tuple[int, int]:
    """Height and width, from the file's header."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise unreadable(use, path, error) from error


def unreadable(use: str, path: Path, error: OSError) -> DataError:
    """What to raise for a file that is no image."""
    return DataError(f"{use}: {path} is not an image that can be read: {error}")
