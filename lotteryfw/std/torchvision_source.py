"""How a public image set is downloaded and read by torchvision, in torchvision's own file layout."""

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
class Known:
    """What is known of a set: its sizes, torchvision's class for it, and the files that the class reads.

    `place` is the folder of these files below the data folder, `files` their names with the MD5 of the published ones,
    `halves` what the class is given to read the training and the test half, `extra` lotteryfw's extra with what
    torchvision needs beside itself. Where all files of `instead` are there, torchvision reads these.
    """

    shape: tuple[int, int, int]
    classes: int
    examples: int
    test: int
    torchvision: str
    place: str
    files: Mapping[str, str]
    halves: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"train": True}, {"train": False})
    extra: str = ""
    instead: tuple[str, ...] = ()


class TorchvisionSource(DataSource):
    """What the sets have in common. Each adds only its name, where it comes from, and what is known of it."""

    known: ClassVar[Known]

    validation: Validation = 5000
    split_seed: SplitSeed = 0
    normalise: Normalise = "unit"

    def facts(self, folder: Path) -> DatasetInfo:
        return facts(
            self.known.shape,
            self.known.classes,
            self.known.examples,
            self.known.test,
            self.validation,
        )

    def load(self, folder: Path) -> Dataset:
        return split(*self._read(folder), self.validation, self.split_seed, self.normalise)

    def files(self, folder: Path) -> list[Path]:
        known = self.known
        instead = [folder / known.place / name for name in known.instead]
        files = [folder / known.place / name for name in known.files]
        return files + (instead if instead and all(path.is_file() for path in instead) else [])

    def fetch(self, folder: Path) -> None:
        self._refuse_other_files(
            folder
        )  # torchvision would keep some of them, and write over others
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for options in self.known.halves:
                _half(self.known, folder, options, download=True)
        except ImportError as error:
            raise self._lacks_package(error) from error
        except (OSError, EOFError, RuntimeError) as error:
            reason = " ".join([*str(error).split(), *_wrong_archives(self.known, folder)])
            raise DataError(
                f"{self.use} could not be downloaded to {folder}: {reason}. Without a network, put these files into "
                f"{folder / self.known.place}: {', '.join(self.known.files)}"
            ) from error
        self._refuse_other_files(folder)

    def unpublished(self, folder: Path) -> list[str]:
        """A line for each file that is there and is not the published one, with both MD5s."""
        place = folder / self.known.place
        return _differing({place / name: md5 for name, md5 in self.known.files.items()})

    def _refuse_other_files(self, folder: Path) -> None:
        if lines := self.unpublished(folder):
            raise DataError(
                f"{self.use}: not the published files: {'; '.join(lines)}. Remove or rename them, and fetch again; a "
                "run takes them as they are, and keeps its results apart from those of the published files"
            )

    def _read(self, folder: Path) -> tuple[Subset, Subset]:
        """The training and the test half. Raises DataError for files that are absent or damaged."""
        known, place = self.known, folder / self.known.place
        missing = [name for name in known.files if not (place / name).is_file()]
        if missing:
            raise DataError(
                f"{self.use} is not there: {place} lacks {', '.join(missing)}. `lotteryfw data fetch {self.use}` "
                f"downloads it; without a network, put these files there (unpacked, named like this)"
            )
        try:
            train, test = (
                _half(known, folder, options, download=False) for options in known.halves
            )
        except ImportError as error:
            raise self._lacks_package(error) from error
        # torchvision meets a damaged file with whatever its parser stumbles over
        except Exception as error:
            raise DataError(
                f"{self.use}: the files in {place} could not be read; remove them and fetch them again: "
                + "; ".join([str(error), *self.unpublished(folder)])
            ) from error
        for half, examples in ((train, known.examples), (test, known.test)):
            if half.inputs.shape != (examples, *known.shape) or half.labels.shape != (examples,):
                found = f"{list(half.inputs.shape)} images, {len(half.labels)} labels"
                raise DataError(
                    f"{self.use}: {place} holds {found}, not {examples} of {list(known.shape)}"
                )
        return train, test

    def _lacks_package(self, error: ImportError) -> DataError:
        remedy = f'; pip install "lotteryfw[{self.known.extra}]"' if self.known.extra else ""
        return DataError(
            f"{self.use}: torchvision needs a package for it that is not installed: {error}{remedy}"
        )


def _differing(published: Mapping[Path, str]) -> list[str]:
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


def _wrong_archives(known: Known, folder: Path) -> list[str]:
    """A line for each archive that torchvision downloaded and that is not the published one, with both MD5s."""
    from torchvision import datasets

    cls = getattr(datasets, known.torchvision)
    archives = {folder / known.place / name: md5 for name, md5 in getattr(cls, "resources", ())}
    if hasattr(cls, "tgz_md5"):
        archives[folder / cls.filename] = cls.tgz_md5
    return _differing(archives)


def _half(known: Known, folder: Path, options: Mapping[str, Any], download: bool) -> Subset:
    """One half as torchvision holds it, brought into one form: [n, c, h, w] uint8 and [n] int64."""
    import torch
    from torchvision import datasets

    held = getattr(datasets, known.torchvision)(folder, download=download, **options)
    images: Tensor = torch.as_tensor(held.data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    if images.shape[1:] != known.shape:
        images = images.permute(0, 3, 1, 2)
    labels = held.labels if hasattr(held, "labels") else held.targets
    return Subset(images.contiguous(), torch.as_tensor(labels).long())
