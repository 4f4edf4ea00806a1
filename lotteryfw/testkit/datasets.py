"""The trial of data sources."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from lotteryfw.api.data import Dataset, DatasetInfo, StreamedDataset, Subset
from lotteryfw.api.errors import ContractError, DataError
from lotteryfw.api.kinds import DataSource
from lotteryfw.engine.dataset_loading import describe_wrong_label, load_dataset
from lotteryfw.runner import default_data_folder
from lotteryfw.search.jobs import tensors_digest
from lotteryfw.testkit.component_trial import ComponentTrial, Skipped

READ = 32
"""Examples of each part of a streamed data set that are read."""


def try_data(trial: ComponentTrial) -> None:
    """Require a data set that agrees with its facts and is the same each time.

    Raises Skipped if its files are not here.
    """
    folder = default_data_folder()
    on = "the data folder"
    try:
        facts = trial.call("facts", folder, on=on)
        dataset = trial.call("load", folder, on=on)
    except DataError as error:
        raise Skipped(str(error)) from None
    trial.require(
        isinstance(facts, DatasetInfo), f"facts() returned {type(facts).__name__}, not DatasetInfo"
    )
    trial.require(
        isinstance(dataset, Dataset | StreamedDataset),
        f"load() returned {type(dataset).__name__}, not Dataset or StreamedDataset",
    )
    try:
        again = load_dataset(cast(DataSource, trial.component), folder)
    except DataError as error:
        # the files are here, but what they hold cannot be trained on
        raise ContractError(str(error)) from None
    # facts and fingerprint are in keys: a value that changes would make every result new
    trial.require(facts == trial.call("facts", folder, on=on), "facts() gave two results")
    dataset, again = _whole(dataset), _whole(again)
    trial.require(_content(dataset) == _content(again), "load() gave two results")
    _try_fingerprint(trial, folder, on)
    warnings = trial.call("check", folder, on=on)
    trial.require(
        not isinstance(warnings, str) and all(isinstance(text, str) for text in warnings),
        f"check() returned {warnings!r}; it must return a list of texts",
    )
    # labels of other shapes and types are for objectives that do not read classes
    are_classes = not facts.label_shape and not dataset.train.labels.is_floating_point()
    problem = describe_wrong_label(trial.component.use, facts.classes, dataset)
    if are_classes and problem:
        raise ContractError(problem)
    _try_disjoint(trial, dataset.train, "validation", dataset.validation)
    _try_disjoint(trial, dataset.train, "test", dataset.test)


def _try_fingerprint(trial: ComponentTrial, folder: Path, on: str) -> None:
    files = trial.call("files", folder, on=on)
    missing = [str(path) for path in files if not Path(path).is_file()]
    trial.require(
        not missing,
        f"files() names what is not there, though load() works: {', '.join(missing[:3])}",
    )
    fingerprint = trial.call("fingerprint", folder, on=on)
    trial.require(type(fingerprint) is str, f"fingerprint() returned {fingerprint!r}, not a string")
    trial.require(
        fingerprint == trial.call("fingerprint", folder, on=on), "fingerprint() gave two results"
    )
    # without it, results would be found again after the files have changed
    trial.require(not files or fingerprint != "", "files() names files, but fingerprint() is empty")


def _whole(dataset: Dataset | StreamedDataset) -> Dataset:
    """Return the data set; of a streamed one the first examples of each part, as tensors."""
    import torch

    if isinstance(dataset, Dataset):
        return dataset
    parts: list[Subset] = []
    for part in (dataset.train, dataset.validation, dataset.test):
        labels = part.labels[:READ]
        inputs = [part.inputs.read(index) for index in range(len(labels))]
        parts.append(Subset(torch.stack(inputs), labels))
    train, validation, test = parts
    return Dataset(train, validation, test, dataset.mean, dataset.std)


def _content(dataset: Dataset) -> str:
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    tensors = {}
    for name, part in parts.items():
        tensors[f"{name} inputs"] = part.inputs
        tensors[f"{name} labels"] = part.labels
    return tensors_digest(tensors)


def _try_disjoint(trial: ComponentTrial, train: Subset, name: str, part: Subset) -> None:
    """Require that a part has no examples of the training part, with some room for duplicates.

    MNIST and CIFAR have a few equal examples in both, so up to half of a part may be in train.
    """
    examples = {row.tobytes() for row in train.inputs.numpy()}
    # where examples repeat as much as this, equal ones in both parts tell nothing
    if len(examples) <= len(train.labels) / 2:
        return
    shared = sum(row.tobytes() in examples for row in part.inputs.numpy())
    trial.require(
        shared <= len(part.labels) / 2,
        f"load() has {shared} of {len(part.labels)} {name} examples in train, too; parts are "
        "disjoint",
    )
