"""ImageNet, from the folders that it is usually unpacked to."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lotteryfw import DataError, Dataset, DatasetInfo, DataSource, files_fingerprint
from lotteryfw.std.image_files import Decoder, scan
from lotteryfw.std.splits import SplitSeed, Validation, facts

CLASSES, TRAIN, TEST = 1000, 1_281_167, 50_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Means and deviations of the training images' channels, as everybody has them."""


class ImageNet(DataSource):
    """ImageNet (ILSVRC 2012): 1.3 million photographs of 1,000 kinds of things.

    image-net.org gives it to who registers there. Test data is the official validation part, since
    the labels of the official test part are not published. Images are cut to their centre square
    and resized once, into a file in `decoded/` in the data folder (200 GB at 224 pixels, a few
    hours) that is then mapped. The augmentation `random_resized_crop` crops these squares anew in
    every epoch. The papers crop the whole photographs, at their full resolution, and test on the
    middle of each at 7/8 of its shorter side; here the whole centre square is tested on.
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
    validation: Validation = 10_000
    split_seed: SplitSeed = 0

    def facts(self, folder: Path) -> DatasetInfo:
        return facts((3, self.size, self.size), CLASSES, TRAIN, TEST, self.validation)

    def load(self, folder: Path) -> Dataset:
        root = self._root(folder)
        listed = scan(self.use, root, test="val")
        counts = len(listed.classes), len(listed.train), len(listed.test)
        # an incomplete copy would train for days before anybody noticed
        if counts != (CLASSES, TRAIN, TEST):
            raise DataError(
                f"imagenet: {root} holds {counts[0]} classes, {counts[1]} training and "
                f"{counts[2]} validation images, not {CLASSES}, {TRAIN} and {TEST}"
            )
        name = sha256(f"{self.fingerprint(folder)} {self.options()}".encode()).hexdigest()
        decoder = Decoder(self.use, (3, self.size, self.size), self.size)
        kept = folder / "decoded" / f"{name}.uint8"
        # "unit", because the published moments are used, and not those of this split
        dataset = decoder.splits(listed, self.validation, self.split_seed, "unit", kept)
        return replace(dataset, mean=MEAN, std=STD)

    def files(self, folder: Path) -> list[Path]:
        root = self._root(folder)
        if not (root / "train").is_dir() or not (root / "val").is_dir():
            # a study can be planned before its data is there
            return [root / "train", root / "val"]
        listed = scan(self.use, root, test="val")
        return [image.path for image in (*listed.train, *listed.test)]

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of every image's name and size, and of the contents of 1,000 images."""
        return files_fingerprint(self.files(folder), self._root(folder))

    def _root(self, folder: Path) -> Path:
        return folder / Path(self.path).expanduser()
