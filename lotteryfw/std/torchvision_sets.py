"""The public image sets, downloaded and read by torchvision, in torchvision's own file layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw import DataError, DataSource, Facts, Split, Splits
from lotteryfw.std.splits import Normalise, SplitSeed, Validation, facts, split

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Set:
    """What is known of a set: torchvision's class for it, its sizes, and the files that the class reads."""

    use: str
    torchvision: str
    shape: tuple[int, int, int]
    classes: int
    examples: int
    test: int
    place: str
    files: tuple[str, ...]
    halves: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})


_IDX = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_MNIST = _Set("mnist", "MNIST", (1, 28, 28), 10, 60_000, 10_000, "MNIST/raw", _IDX)
_FASHION = _Set("fashion_mnist", "FashionMNIST", (1, 28, 28), 10, 60_000, 10_000, "FashionMNIST/raw", _IDX)
_CIFAR10 = _Set(
    "cifar10", "CIFAR10", (3, 32, 32), 10, 50_000, 10_000, "cifar-10-batches-py",
    (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
)  # fmt: skip
_CIFAR100 = _Set(
    "cifar100", "CIFAR100", (3, 32, 32), 100, 50_000, 10_000, "cifar-100-python", ("train", "test", "meta")
)
_SVHN = _Set(
    "svhn", "SVHN", (3, 32, 32), 10, 73_257, 26_032, ".", ("train_32x32.mat", "test_32x32.mat"),
    ({"split": "train"}, {"split": "test"}),
)  # fmt: skip


class Mnist(DataSource):
    """MNIST: 70,000 handwritten digits."""

    use = "mnist"
    formula = "60,000 training (and validation) + 10,000 test images, 1×28×28, 10 classes"
    source = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition"

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> Facts:
        return _facts(_MNIST, self.validation)

    def load(self, folder: Path) -> Splits:
        return split(*_read(_MNIST, folder), self.validation, self.split_seed, self.normalise)

    def fetch(self, folder: Path) -> None:
        _fetch(_MNIST, folder)


class FashionMnist(DataSource):
    """Fashion-MNIST: 70,000 pictures of clothes, a harder MNIST."""

    use = "fashion_mnist"
    formula = "60,000 training (and validation) + 10,000 test images, 1×28×28, 10 classes"
    source = "Xiao et al. 2017, Fashion-MNIST"

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> Facts:
        return _facts(_FASHION, self.validation)

    def load(self, folder: Path) -> Splits:
        return split(*_read(_FASHION, folder), self.validation, self.split_seed, self.normalise)

    def fetch(self, folder: Path) -> None:
        _fetch(_FASHION, folder)


class Cifar10(DataSource):
    """CIFAR-10: 60,000 colour photographs of 10 kinds of things."""

    use = "cifar10"
    formula = "50,000 training (and validation) + 10,000 test images, 3×32×32, 10 classes"
    source = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> Facts:
        return _facts(_CIFAR10, self.validation)

    def load(self, folder: Path) -> Splits:
        return split(*_read(_CIFAR10, folder), self.validation, self.split_seed, self.normalise)

    def fetch(self, folder: Path) -> None:
        _fetch(_CIFAR10, folder)


class Cifar100(DataSource):
    """CIFAR-100: 60,000 colour photographs of 100 kinds of things."""

    use = "cifar100"
    formula = "50,000 training (and validation) + 10,000 test images, 3×32×32, 100 classes"
    source = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> Facts:
        return _facts(_CIFAR100, self.validation)

    def load(self, folder: Path) -> Splits:
        return split(*_read(_CIFAR100, folder), self.validation, self.split_seed, self.normalise)

    def fetch(self, folder: Path) -> None:
        _fetch(_CIFAR100, folder)


class Svhn(DataSource):
    """SVHN: 99,289 house numbers photographed from the street, one digit each; without the extra set.

    torchvision needs scipy to read it.
    """

    use = "svhn"
    formula = "73,257 training (and validation) + 26,032 test images, 3×32×32, 10 classes"
    source = "Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning"

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> Facts:
        return _facts(_SVHN, self.validation)

    def load(self, folder: Path) -> Splits:
        return split(*_read(_SVHN, folder), self.validation, self.split_seed, self.normalise)

    def fetch(self, folder: Path) -> None:
        _fetch(_SVHN, folder)


def _facts(which: _Set, validation: int) -> Facts:
    return facts(which.shape, which.classes, which.examples, which.test, validation)


def _read(which: _Set, folder: Path) -> tuple[Split, Split]:
    """The training and the test half. Raises DataError for files that are absent or damaged."""
    place = folder / which.place
    missing = [name for name in which.files if not (place / name).is_file()]
    if missing:
        raise DataError(
            f"{which.use} is not there: {place} lacks {', '.join(missing)}. `lotteryfw data fetch {which.use}` "
            f"downloads it; without a network, put these files there (unpacked, named like this)"
        )
    try:
        train, test = (_half(which, folder, options, download=False) for options in which.halves)
    except ImportError as error:
        raise _lacks_package(which, error) from error
    # torchvision meets a damaged file with whatever its parser stumbles over
    except Exception as error:
        raise DataError(
            f"{which.use}: the files in {place} could not be read; remove them and fetch them again: {error}"
        ) from error
    for half, examples in ((train, which.examples), (test, which.test)):
        if half.inputs.shape != (examples, *which.shape) or half.labels.shape != (examples,):
            found = f"{list(half.inputs.shape)} images, {len(half.labels)} labels"
            raise DataError(f"{which.use}: {place} holds {found}, not {examples} of {list(which.shape)}")
    return train, test


def _fetch(which: _Set, folder: Path) -> None:
    place = folder / which.place
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for options in which.halves:
            _half(which, folder, options, download=True)
    except ImportError as error:
        raise _lacks_package(which, error) from error
    except (OSError, EOFError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{which.use} could not be downloaded to {folder}: {reason}. Without a network, put these files into "
            f"{place}: {', '.join(which.files)}"
        ) from error


def _lacks_package(which: _Set, error: ImportError) -> DataError:
    return DataError(f"{which.use}: torchvision needs a package for it that is not installed: {error}")


def _half(which: _Set, folder: Path, options: dict[str, Any], download: bool) -> Split:
    """One half as torchvision holds it, brought into one form: [n, c, h, w] uint8 and [n] int64."""
    import torch
    from torchvision import datasets

    held = getattr(datasets, which.torchvision)(folder, download=download, **options)
    images: Tensor = torch.as_tensor(held.data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if images.shape[1:] != which.shape:
        images = images.permute(0, 3, 1, 2)
    labels = held.labels if hasattr(held, "labels") else held.targets
    return Split(images.contiguous(), torch.as_tensor(labels).long())
