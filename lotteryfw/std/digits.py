"""The embedded data set: real handwritten digits, small enough to travel inside the package."""

from __future__ import annotations

from pathlib import Path

from lotteryfw import Dataset, DatasetInfo, DataSource, Subset
from lotteryfw.std.splits import Normalise, SplitSeed, Validation, facts, split

FILE = Path(__file__).with_name("digits.safetensors")
"""Made by scripts/make_digits.py; LICENSE-digits beside it says whose it is."""


class Digits(DataSource):
    """1,797 handwritten digits of 8×8 pixels, shipped with lotteryfw; 360 are the test part."""

    use = "digits"
    formula = "1,437 training (and validation) + 360 test images, 1×8×8, 10 classes"
    source = "Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits"

    validation: Validation = 180
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> DatasetInfo:
        return facts((1, 8, 8), 10, 1437, 360, self.validation)

    def load(self, folder: Path) -> Dataset:
        from safetensors.torch import load_file

        stored = load_file(FILE)
        train = Subset(stored["train_images"], stored["train_labels"].long())
        test = Subset(stored["test_images"], stored["test_labels"].long())
        return split(train, test, self.validation, self.split_seed, self.normalise)
