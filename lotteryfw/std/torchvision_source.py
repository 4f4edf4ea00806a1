"""Public image sets that torchvision downloads and reads, in torchvision's own file layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lotteryfw import DataError, Dataset, DatasetInfo, DataSource, Subset
from lotteryfw.std.splits import Normalise, SplitSeed, Validation, facts, split

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Published:
    """A published set: its sizes, torchvision's class for it, and the files that the class reads.

    `folder` is the folder of these files below the data folder, `files` their names with the MD5
    of the published ones, `halves` the options that make the class read the training and the test
    half, `extra` lotteryfw's extra with what torchvision needs beside itself. Where all files of
    `instead` are there, torchvision reads these.
    """

    shape: tuple[int, int, int]
    classes: int
    examples: int
    test: int
    torchvision: str
    folder: str
    files: Mapping[str, str]
    halves: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"train": True}, {"train": False})
    extra: str = ""
    instead: tuple[str, ...] = ()


class TorchvisionSource(DataSource):
    """Base of the sets. Each adds only its name, its source, and what was published."""

    published: ClassVar[Published]

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> DatasetInfo:
        return facts(
            self.published.shape,
            self.published.classes,
            self.published.examples,
            self.published.test,
            self.validation,
        )

    def load(self, folder: Path) -> Dataset:
        return split(*self._read(folder), self.validation, self.split_seed, self.normalise)

    def files(self, folder: Path) -> list[Path]:
        root = folder / self.published.folder
        files = [root / name for name in self.published.files]
        instead = [root / name for name in self.published.instead]
        # all of them: torchvision reads the older form only where it is complete
        if instead and all(path.is_file() for path in instead):
            files += instead
        return files

    def fetch(self, folder: Path) -> None:
        # torchvision would keep some of them, and write over others
        self._refuse_other_files(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for options in self.published.halves:
                _half(self.published, folder, options, download=True)
        except ImportError as error:
            raise self._lacks_package(error) from error
        except (OSError, EOFError, RuntimeError) as error:
            reason = " ".join([*str(error).split(), *_wrong_archives(self.published, folder)])
            raise DataError(
                f"{self.use} could not be downloaded to {folder}: {reason}. Without a network, "
                f"put these files into {folder / self.published.folder}: "
                f"{', '.join(self.published.files)}"
            ) from error
        self._refuse_other_files(folder)

    def unpublished(self, folder: Path) -> list[str]:
        """Return a line for each file that is not the published one, with both MD5s."""
        root = folder / self.published.folder
        return _differing({root / name: md5 for name, md5 in self.published.files.items()})

    def _refuse_other_files(self, folder: Path) -> None:
        lines = self.unpublished(folder)
        if lines:
            raise DataError(
                f"{self.use}: not the published files: {'; '.join(lines)}. Remove or rename them, "
                "and fetch again; a run takes them as they are, and keeps its results apart from "
                "those of the published files"
            )

    def _read(self, folder: Path) -> tuple[Subset, Subset]:
        """Return the training and the test half. Raises DataError for absent or damaged files."""
        published, root = self.published, folder / self.published.folder
        missing = [name for name in published.files if not (root / name).is_file()]
        if missing:
            raise DataError(
                f"{self.use} is not there: {root} lacks {', '.join(missing)}. "
                f"`lotteryfw data fetch {self.use}` downloads it; without a network, put these "
                "files there (unpacked, named like this)"
            )
        try:
            train, test = (
                _half(published, folder, options, download=False) for options in published.halves
            )
        except ImportError as error:
            raise self._lacks_package(error) from error
        # torchvision meets a damaged file with whatever its parser stumbles over
        except Exception as error:
            raise DataError(
                f"{self.use}: the files in {root} could not be read; remove them and fetch them "
                "again: " + "; ".join([str(error), *self.unpublished(folder)])
            ) from error
        # a file that was exchanged or cut off at the end of a record is read without an error
        for half, examples in ((train, published.examples), (test, published.test)):
            shape = (examples, *published.shape)
            if half.inputs.shape != shape or half.labels.shape != (examples,):
                actual = f"{list(half.inputs.shape)} images, {len(half.labels)} labels"
                raise DataError(
                    f"{self.use}: {root} holds {actual}, not {examples} of {list(published.shape)}"
                )
        return train, test

    def _lacks_package(self, error: ImportError) -> DataError:
        extra = self.published.extra
        remedy = f'; pip install "lotteryfw[{extra}]"' if extra else ""
        return DataError(
            f"{self.use}: torchvision needs a package for it that is not installed: {error}{remedy}"
        )


def _differing(published: Mapping[Path, str]) -> list[str]:
    """Return a line for each file whose MD5 is not the published one."""
    lines = []
    for path, md5 in published.items():
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                actual = file_digest(file, "md5").hexdigest()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if actual != md5:
            lines.append(f"{path} has MD5 {actual}, the published file {md5}")
    return lines


def _wrong_archives(published: Published, folder: Path) -> list[str]:
    """Return a line for each downloaded archive that is not the published one, with both MD5s."""
    from torchvision import datasets

    cls = getattr(datasets, published.torchvision)
    archives = {
        folder / published.folder / name: md5 for name, md5 in getattr(cls, "resources", ())
    }
    if hasattr(cls, "tgz_md5"):
        archives[folder / cls.filename] = cls.tgz_md5
    return _differing(archives)


def _half(published: Published, folder: Path, options: Mapping[str, Any], download: bool) -> Subset:
    """Read one half with torchvision, and return it as [n, c, h, w] uint8 and [n] int64."""
    import torch
    from torchvision import datasets

    raw = getattr(datasets, published.torchvision)(folder, download=download, **options)
    images: Tensor = torch.as_tensor(raw.data)
    # MNIST has no channel axis, CIFAR has it last, SVHN where it belongs
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if images.shape[1:] != published.shape:
        images = images.permute(0, 3, 1, 2)
    # `labels` is SVHN's name for what the others call `targets`
    labels = raw.labels if hasattr(raw, "labels") else raw.targets
    return Subset(images.contiguous(), torch.as_tensor(labels).long())
