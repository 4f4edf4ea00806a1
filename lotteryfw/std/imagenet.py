"""ImageNet, from the folders that it is usually unpacked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from lotteryfw import (
    DataError,
    Dataset,
    DatasetInfo,
    DataSource,
    StreamedDataset,
    files_fingerprint,
)
from lotteryfw.std.damaged_images import Damage, Damaged, refuse_damaged, skipped, sound_images
from lotteryfw.std.image_files import Decoder, ImageList, scan
from lotteryfw.std.splits import SplitSeed, Validation, facts
from lotteryfw.std.streamed_images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Resize,
    check_resize,
    streamed_splits,
)

CLASSES, TRAIN, TEST = 1000, 1_281_167, 50_000


class ImageNet(DataSource):
    """ImageNet (ILSVRC 2012): 1.3 million photographs of 1,000 kinds of things.

    image-net.org gives it to who registers there. Test data is the official validation part, since
    the labels of the official test part are not published. Images are read from their files in
    each epoch, as in the papers: trainings crop the whole photographs by `random_resized_crop`,
    and evaluations see the middle of each, 7/8 of its shorter side. With `streamed = false`,
    images are cut to their centre square and resized once, into a file in `decoded/` in the data
    folder (200 GB at 224 pixels, a few hours) that is then mapped: less work for the CPU, but crops
    are of these squares, and evaluations see all of each.
    """

    use = "imagenet"
    formula = "1,281,167 training (and validation) + 50,000 test images, 3×size×size, 1,000 classes"
    source = "Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge"

    path: str
    """The folder that holds train/<class>/*.JPEG and val/<class>/*.JPEG.

    Relative to the data folder, or absolute.
    """
    size: Annotated[int, Field(ge=1)] = 224
    """Side in pixels."""
    streamed: bool = True
    """Read each image from its file whenever it is needed, at its full resolution."""
    resize: Resize = None
    damaged: Damaged = "refuse"
    validation: Validation = 10_000
    split_seed: SplitSeed = 0

    @model_validator(mode="after")
    def _streamed_options(self) -> ImageNet:
        check_resize(self.streamed, self.size, self.resize)
        return self

    def facts(self, folder: Path) -> DatasetInfo:
        train, test = TRAIN, TEST
        # a study can be planned before its data is there
        if self.damaged == "skip" and all(path.exists() for path in self._halves(folder)):
            listed, _ = self._sound(folder)
            train, test = len(listed.train), len(listed.test)
        shape = (3, self.size, self.size)
        return facts(shape, CLASSES, train, test, self.validation, self.streamed)

    def check(self, folder: Path) -> Sequence[str]:
        """Refuse damaged files, or warn that they are left out."""
        # images that are held in memory are decoded before a training anyway
        if self.damaged == "refuse" and not self.streamed:
            return ()
        root = self._root(folder)
        _, damages = self._sound(folder)
        if self.damaged == "refuse":
            refuse_damaged(self.use, root, damages)
        return skipped(self.use, root, damages)

    def load(self, folder: Path) -> Dataset | StreamedDataset:
        root = self._root(folder)
        listed = scan(self.use, root, test="val")
        counts = len(listed.classes), len(listed.train), len(listed.test)
        # an incomplete copy would train for days before anybody noticed
        if counts != (CLASSES, TRAIN, TEST):
            raise DataError(
                f"imagenet: {root} holds {counts[0]} classes, {counts[1]} training and "
                f"{counts[2]} validation images, not {CLASSES}, {TRAIN} and {TEST}"
            )
        self.check(folder)
        if self.damaged == "skip":
            listed, _ = self._sound(folder)
        dataset: Dataset | StreamedDataset
        if self.streamed:
            dataset = streamed_splits(
                self.use, listed, self.validation, self.split_seed, 3, self.size, self.resize
            )
        else:
            name = sha256(f"{self.fingerprint(folder)} {self.options()}".encode()).hexdigest()
            decoder = Decoder(self.use, (3, self.size, self.size), self.size)
            kept = folder / "decoded" / f"{name}.uint8"
            # "unit", because the published moments are used, and not those of this split
            dataset = decoder.splits(listed, self.validation, self.split_seed, "unit", kept)
        return replace(dataset, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    def files(self, folder: Path) -> list[Path]:
        halves = self._halves(folder)
        if not all(half.is_dir() for half in halves):
            # a study can be planned before its data is there
            return list(halves)
        listed = scan(self.use, self._root(folder), test="val")
        return [image.path for image in (*listed.train, *listed.test)]

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of every image's name and size, and of the contents of 1,000 images."""
        return files_fingerprint(self.files(folder), self._root(folder))

    def _root(self, folder: Path) -> Path:
        return folder / Path(self.path).expanduser()

    def _halves(self, folder: Path) -> tuple[Path, Path]:
        root = self._root(folder)
        return root / "train", root / "val"

    def _sound(self, folder: Path) -> tuple[ImageList, tuple[Damage, ...]]:
        return sound_images(self.use, self._root(folder), test="val")
