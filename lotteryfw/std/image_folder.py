"""Anybody's own images: a folder for each class."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pydantic import Field

from lotteryfw import Dataset, DatasetInfo, DataSource, files_fingerprint
from lotteryfw.std.image_files import Decoder, ImageList, scan, size_of
from lotteryfw.std.splits import Normalise, SplitSeed, Validation, facts


class ImageFolder(DataSource):
    """Your own images, from `train/<class>/*.png` and `test/<class>/*.png` (or .jpg, .webp, …).

    Classes are numbered in the order of their folders' names. All images are held in memory,
    decoded; above 8 GiB they are mapped from a file in `decoded/` in the data folder, which may be
    deleted when no run uses it.
    """

    use = "image_folder"
    formula = "one class for each folder below train/"
    source = "the layout of torchvision.datasets.ImageFolder"

    path: str
    """The folder that holds train/ and test/; relative to the data folder, or absolute."""
    size: int | None = Field(default=None, ge=1)
    """Side in pixels, which images are cut to their centre square and resized to.

    Left out: images stay as they are, and all have one size."""
    grey: bool = False
    """One channel instead of three."""
    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> DatasetInfo:
        listed = self._scan(folder)
        return facts(
            self._shape(listed),
            len(listed.classes),
            len(listed.train),
            len(listed.test),
            self.validation,
        )

    def load(self, folder: Path) -> Dataset:
        listed = self._scan(folder)
        decoder = Decoder(self.use, self._shape(listed), self.size)
        # all that decides about the pixels and their order, so that no run maps another's file
        options = f"{decoder.shape} {self.size} {self.validation} {self.split_seed}"
        name = sha256(f"{self.fingerprint(folder)} {options}".encode()).hexdigest()
        kept = folder / "decoded" / f"{name}.uint8"
        return decoder.splits(listed, self.validation, self.split_seed, self.normalise, kept)

    def files(self, folder: Path) -> list[Path]:
        listed = self._scan(folder)
        return [image.path for image in (*listed.train, *listed.test)]

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of every image's name, below `path`, and content.

        Of more than 100,000 images 1,000 are read.
        """
        return files_fingerprint(self.files(folder), self._root(folder))

    def _root(self, folder: Path) -> Path:
        return folder / Path(self.path).expanduser()

    def _scan(self, folder: Path) -> ImageList:
        return scan(self.use, self._root(folder), test="test")

    def _shape(self, listed: ImageList) -> tuple[int, int, int]:
        channels = 1 if self.grey else 3
        if self.size:
            return (channels, self.size, self.size)
        # the first image stands for all: decoding refuses one of another size
        return (channels, *size_of(self.use, listed.train[0].path))
