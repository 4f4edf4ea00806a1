"""Anybody's own images: a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lotteryfw import DataError, DataSource, Facts, Split, Splits
from lotteryfw.std.splits import Normalise, SplitSeed, Validation, facts, split

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFolder(DataSource):
    """Your own images, from `train/<class>/*.png` and `test/<class>/*.png` (or .jpg, .webp, …).

    Classes are numbered in the order of their folders' names. All images are held in memory, decoded.
    """

    use = "image_folder"
    formula = "one class for each folder below train/"
    source = "the layout of torchvision.datasets.ImageFolder"

    path: str
    """The folder that holds train/ and test/; relative to the data folder, or absolute."""
    size: int | None = Field(default=None, ge=1)
    """Side in pixels: images are cut to their centre square and resized; left out: as they are, all of one size."""
    grey: bool = False
    """One channel instead of three."""
    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> Facts:
        found = _scan(self._root(folder))
        height, width = (self.size, self.size) if self.size else _size(found.train[0].path)
        shape = (1 if self.grey else 3, height, width)
        return facts(shape, len(found.classes), len(found.train), len(found.test), self.validation)

    def load(self, folder: Path) -> Splits:
        found = _scan(self._root(folder))
        shape = self.facts(folder).shape
        train, test = _decode(found.train, shape, self.size), _decode(found.test, shape, self.size)
        return split(train, test, self.validation, self.split_seed, self.normalise)

    def fingerprint(self, folder: Path) -> str:
        """SHA-256 over every image's name and content.

        Reads each file once in a process, as fast as the disk does; later calls look only at sizes and times.
        """
        root = self._root(folder)
        found = _scan(root)
        digest = sha256()
        for image in (*found.train, *found.test):
            digest.update(f"{image.path.relative_to(root).as_posix()}\0{_content(image.path)}\n".encode())
        return digest.hexdigest()

    def _root(self, folder: Path) -> Path:
        return folder / Path(self.path).expanduser()


@dataclass(frozen=True)
class _Image:
    path: Path
    label: int


@dataclass(frozen=True)
class _Found:
    """What lies in a folder, sorted by class and name."""

    classes: tuple[str, ...]
    train: tuple[_Image, ...]
    test: tuple[_Image, ...]


def _scan(root: Path) -> _Found:
    """Lists the images below `root`. Raises DataError with the layout that is expected."""
    layout = f"{root} should hold train/<class>/<image> and test/<class>/<image>"
    halves = {part: root / part for part in ("train", "test")}
    absent = [str(half) for half in halves.values() if not half.is_dir()]
    if absent:
        raise DataError(f"image_folder: there is no folder {' and no folder '.join(absent)}; {layout}")
    classes = tuple(_folders(halves["train"]))
    strange = sorted(set(_folders(halves["test"])) - set(classes))
    if strange:
        raise DataError(f"image_folder: {halves['test']} has classes that train/ lacks: {', '.join(strange)}")
    # a folder's time changes when a file in it comes or goes: then it is listed again
    times = tuple((half / name).stat().st_mtime_ns for half in halves.values() for name in _folders(half))
    found = _Found(classes, *(_list(half, classes, times) for half in halves.values()))
    for part, images in (("train", found.train), ("test", found.test)):
        if not images:
            raise DataError(f"image_folder: no images in {root / part} (of {', '.join(sorted(SUFFIXES))}); {layout}")
    return found


def _folders(half: Path) -> list[str]:
    return sorted(entry.name for entry in half.iterdir() if entry.is_dir())


@lru_cache(maxsize=8)
def _list(half: Path, classes: tuple[str, ...], times: tuple[int, ...]) -> tuple[_Image, ...]:
    """Every image of the class folders in `half`. Facts, fingerprint and load all ask; the disk is asked once."""
    images = []
    for label, name in enumerate(classes):
        if (half / name).is_dir():
            entries = sorted(os.scandir(half / name), key=lambda entry: entry.name)
            chosen = [entry for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]
            images += [_Image(Path(entry.path), label) for entry in chosen]
    return tuple(images)


def _content(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    try:
        about = path.stat()
        return _hashed(path, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, error) from error


@cache
def _hashed(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> tuple[int, int]:
    """Height and width, from the file's header."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise _unreadable(path, error) from error


def _decode(images: Sequence[_Image], shape: tuple[int, ...], size: int | None) -> Split:
    """Reads them all, one by one: threads took twice as long for 32×32 JPEGs on two cores."""
    import torch

    inputs = torch.empty((len(images), *shape), dtype=torch.uint8)
    for place, image in enumerate(images):
        inputs[place] = _pixels(image.path, shape, size)
    return Split(inputs, torch.tensor([image.label for image in images]))


def _pixels(path: Path, shape: tuple[int, ...], size: int | None) -> Tensor:
    """[c, h, w] uint8."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(path) as image:
            picture = image.convert("L" if channels == 1 else "RGB")
    except OSError as error:
        raise _unreadable(path, error) from error
    if size:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    if picture.size != (width, height):
        found = f"{picture.width}×{picture.height} pixels, the first image {width}×{height}"
        raise DataError(f"image_folder: {path} has {found}; give a size to bring all to one")
    return torch.from_numpy(np.array(picture)).reshape(height, width, channels).permute(2, 0, 1)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"image_folder: {path} is not an image that can be read: {error}")
