"""Anybody's own images: a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lotteryfw import Dataset, DatasetInfo, DataSource, StreamedDataset, files_fingerprint
from lotteryfw.std.damaged_images import Damaged, refuse_damaged, skipped, sound_images
from lotteryfw.std.image_files import Decoder, ImageList, scan, size_of
from lotteryfw.std.splits import SplitSeed, Validation, facts
from lotteryfw.std.streamed_images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Resize,
    check_resize,
    streamed_splits,
)


class ImageFolder(DataSource):
    """Your own images, from `train/<class>/*.png` and `test/<class>/*.png` (or .jpg, .webp, …).

    Classes are numbered in the order of their folders' names. All images are held in memory,
    decoded; above 8 GiB they are mapped from a file in `decoded/` in the data folder, which may be
    deleted when no run uses it. With `streamed`, they are read from their files in each epoch.
    """

    use = "image_folder"
    formula = "one class for each folder below train/"
    source = "the layout of torchvision.datasets.ImageFolder"

    path: str
    """The folder that holds train/ and test/; relative to the data folder, or absolute."""
    size: int | None = Field(default=None, ge=1)
    """Side in pixels, which images are cut to their centre square and resized to.

    Left out: images stay as they are, and all have one size."""
    streamed: bool = False
    """Read each image from its file whenever it is needed, at its full resolution.

    Trainings crop it by `random_resized_crop`, and evaluations see its middle (`resize`)."""
    resize: Resize = None
    grey: bool = False
    """One channel instead of three."""
    damaged: Damaged = "refuse"
    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Annotated[
        Literal["unit", "standard", "imagenet"],
        Field(
            description="unit: pixels in [0, 1]; standard: also mean 0 and deviation 1 per channel "
            "of the training part; imagenet: by the means and deviations of ImageNet."
        ),
    ] = "unit"

    @model_validator(mode="after")
    def _streamed_options(self) -> ImageFolder:
        check_resize(self.streamed, self.size, self.resize)
        if self.streamed and self.size is None:
            raise ValueError("streamed = true needs a size, which all images are brought to")
        if self.streamed and self.normalise == "standard":
            raise ValueError(
                'normalise = "standard" needs all pixels at once, which streamed = true does not '
                'hold; "unit" and "imagenet" do without'
            )
        if self.grey and self.normalise == "imagenet":
            raise ValueError(
                'normalise = "imagenet" is for three channels, and grey = true has one'
            )
        return self

    def facts(self, folder: Path) -> DatasetInfo:
        listed = self._usable(folder)
        return facts(
            self._shape(listed),
            len(listed.classes),
            len(listed.train),
            len(listed.test),
            self.validation,
            self.streamed,
        )

    def check(self, folder: Path) -> Sequence[str]:
        """Refuse damaged files, or warn that they are left out."""
        # images that are held in memory are decoded before a training anyway
        if self.damaged == "refuse" and not self.streamed:
            return ()
        root = self._root(folder)
        _, damages = sound_images(self.use, root, test="test")
        if self.damaged == "refuse":
            refuse_damaged(self.use, root, damages)
        return skipped(self.use, root, damages)

    def load(self, folder: Path) -> Dataset | StreamedDataset:
        self.check(folder)
        listed = self._usable(folder)
        dataset: Dataset | StreamedDataset
        channels, *_ = shape = self._shape(listed)
        if self.streamed:
            assert self.size is not None
            dataset = streamed_splits(
                self.use, listed, self.validation, self.split_seed, channels, self.size, self.resize
            )
        else:
            # all that decides about the pixels and their order, so that no run maps another's file
            options = f"{shape} {self.size} {self.validation} {self.split_seed}"
            if self.damaged == "skip":
                options += " without damaged images"
            name = sha256(f"{self.fingerprint(folder)} {options}".encode()).hexdigest()
            kept = folder / "decoded" / f"{name}.uint8"
            moments = "standard" if self.normalise == "standard" else "unit"
            decoder = Decoder(self.use, shape, self.size)
            dataset = decoder.splits(listed, self.validation, self.split_seed, moments, kept)
        if self.normalise == "imagenet":
            dataset = replace(dataset, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return dataset

    def files(self, folder: Path) -> list[Path]:
        listed = scan(self.use, self._root(folder), test="test")
        return [image.path for image in (*listed.train, *listed.test)]

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of every image's name, below `path`, and content.

        Of more than 100,000 images 1,000 are read.
        """
        return files_fingerprint(self.files(folder), self._root(folder))

    def _root(self, folder: Path) -> Path:
        return folder / Path(self.path).expanduser()

    def _usable(self, folder: Path) -> ImageList:
        """Return the images, without those that `damaged` leaves out."""
        root = self._root(folder)
        if self.damaged == "refuse":
            return scan(self.use, root, test="test")
        listed, _ = sound_images(self.use, root, test="test")
        return listed

    def _shape(self, listed: ImageList) -> tuple[int, int, int]:
        channels = 1 if self.grey else 3
        if self.size:
            return (channels, self.size, self.size)
        # the first image stands for all: decoding refuses one of another size
        return (channels, *size_of(self.use, listed.train[0].path))
