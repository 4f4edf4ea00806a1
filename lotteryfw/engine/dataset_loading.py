"""Data sets as their sources give them: loaded, checked, and decoded into the store."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.api.data import Dataset, DatasetInfo, StreamedDataset, StreamedSubset, Subset
from lotteryfw.api.errors import ContractError, DataError, naming
from lotteryfw.api.kinds import DataSource
from lotteryfw.store import tensors as tensor_files

if TYPE_CHECKING:
    import torch

_PARTS = ("train", "validation", "test")
_DECODED = "splits.safetensors"
_CHECK_CHUNK = 1000
"""Inputs that are checked at once: all of them would take as much memory again."""


def save_decoded(folder: Path, dataset: Dataset) -> None:
    """Write the examples of a data set as `map_decoded` reads them."""
    parts = {}
    for part in _PARTS:
        subset: Subset = getattr(dataset, part)
        parts[f"{part}.inputs"] = subset.inputs
        parts[f"{part}.labels"] = subset.labels
    moments = json.dumps({"mean": dataset.mean, "std": dataset.std})
    tensor_files.save(folder / _DECODED, parts, meta={"moments": moments}, flush=False)


def map_decoded(folder: Path) -> Dataset:
    """Return the examples of a data set, mapped into memory."""
    path = folder / _DECODED
    parts, _ = tensor_files.load(path)
    moments = json.loads(tensor_files.load_meta(path)["moments"])
    subsets = []
    for part in _PARTS:
        subsets.append(Subset(parts[f"{part}.inputs"], parts[f"{part}.labels"]))
    train, validation, test = subsets
    return Dataset(train, validation, test, tuple(moments["mean"]), tuple(moments["std"]))


def load_dataset(source: DataSource, folder: Path) -> Dataset | StreamedDataset:
    """Load the data set, and check it against its facts and against what the engine relies on.

    Labels are not checked here, since not every objective reads them as classes. Raises DataError,
    PluginError.
    """
    with naming(f"data '{source.use}'", "load()"):
        dataset = source.load(folder)
    check_dataset(source.use, dataset_info(source, folder), dataset)
    if isinstance(dataset, StreamedDataset):
        # Its inputs are looked at as they are read.
        return dataset
    vocabulary = dataset_info(source, folder).vocabulary
    for part in _PARTS:
        inputs = getattr(dataset, part).inputs
        if vocabulary:
            _check_tokens(source.use, part, inputs, vocabulary)
        else:
            _check_finite(source.use, part, inputs)
    return dataset


def dataset_info(source: DataSource, folder: Path) -> DatasetInfo:
    """Return the facts of a data set. Raises DataError, and PluginError for a source that breaks."""
    with naming(f"data '{source.use}'", "facts()"):
        info = source.facts(folder)
    if not isinstance(info, DatasetInfo):
        raise ContractError(
            f"data '{source.use}': facts() returned {type(info).__name__}, not DatasetInfo"
        )
    return info


def check_dataset(use: str, info: DatasetInfo, dataset: Dataset | StreamedDataset) -> None:
    """Raise ContractError for examples that the engine cannot read, or that differ from `info`."""
    promised = StreamedDataset if info.streamed else Dataset
    if not isinstance(dataset, promised):
        raise ContractError(
            f"data '{use}': load() returned {type(dataset).__name__}, not {promised.__name__}"
        )
    for part in _PARTS:
        subset = getattr(dataset, part)
        inputs = subset.inputs if not info.streamed else _first_input(use, part, subset)
        problem = _subset_problem(inputs, subset.labels, getattr(info, part), info)
        if problem:
            raise ContractError(f"data '{use}': {part} has {problem}")

    if info.vocabulary and (set(dataset.mean), set(dataset.std)) != ({0.0}, {1.0}):
        raise ContractError(f"data '{use}': tokens are not normalised: leave mean and std out")
    channels = info.shape[0]
    for name in ("mean", "std"):
        values = getattr(dataset, name)
        if len(values) not in (1, channels) or not all(map(isfinite, values)):
            raise ContractError(
                f"data '{use}': {name} is {values}; one finite number is needed, or one for each "
                f"of {channels} channels"
            )
    if min(dataset.std) <= 0:
        raise ContractError(
            f"data '{use}': std is {dataset.std}; inputs are divided by it, so it must be positive"
        )


def _first_input(use: str, part: str, subset: StreamedSubset) -> torch.Tensor:
    """Return [n, *shape]: the first input of a streamed part, in the place of all.

    It shows their shape and type, and every other input is compared with it as it is read.
    """
    import torch

    with naming(f"data '{use}'", f"read(0) of {part}"):
        first = subset.inputs.read(0)
    if not isinstance(first, torch.Tensor):
        raise ContractError(
            f"data '{use}': {part}: read(0) returned {type(first).__name__}, not a tensor"
        )
    return first.expand(len(subset.labels), *first.shape)


def _subset_problem(
    inputs: torch.Tensor, labels: torch.Tensor, promised: int, info: DatasetInfo
) -> str | None:
    """Return what is wrong with a part of a data set, as the object of "has"."""
    import torch

    allowed = (torch.int64,) if info.vocabulary else (torch.uint8, torch.float32)
    if inputs.dtype not in allowed:
        needed = "int64, as its facts name a vocabulary" if info.vocabulary else "uint8 or float32"
        return f"inputs {inputs.dtype}; they must be {needed}"
    if labels.dtype not in (torch.int64, torch.float32):
        return f"labels {labels.dtype}; they must be int64 or float32"
    if labels.dim() == 0 or tuple(labels.shape[1:]) != tuple(info.label_shape):
        return (
            f"labels of shape {list(labels.shape)}; its facts promise [n"
            + "".join(f", {size}" for size in info.label_shape)
            + "]"
        )
    if len(inputs) != len(labels) or not len(labels):
        return f"{len(inputs)} inputs and {len(labels)} labels"
    if len(labels) != promised:
        return f"{len(labels)} examples; its facts promise {promised}"
    if tuple(inputs.shape[1:]) != tuple(info.shape):
        return f"inputs of shape {list(inputs.shape[1:])}; its facts promise {list(info.shape)}"
    return None


def describe_wrong_label(use: str, classes: int, dataset: Dataset | StreamedDataset) -> str:
    """Return the first label outside 0 … classes - 1, in words; "" where there is none."""
    import torch

    for part in _PARTS:
        labels = getattr(dataset, part).labels
        if labels.dim() != 1 or labels.dtype != torch.int64:
            return (
                f"data '{use}': {part} has labels {labels.dtype} of shape {list(labels.shape)}, "
                "where one class for each example is needed"
            )
        outside = (labels < 0) | (labels >= classes)
        if outside.any():
            index = int(outside.nonzero()[0])
            return (
                f"data '{use}': {part} has label {int(labels[index])} at example {index} "
                f"({int(outside.sum())} such labels in all); its facts promise {classes} classes, "
                f"so labels must lie in 0 … {classes - 1}"
            )
    return ""


def _check_tokens(use: str, part: str, inputs: torch.Tensor, vocabulary: int) -> None:
    """Raise DataError for a token outside the vocabulary, which no embedding has."""
    outside = ((inputs < 0) | (inputs >= vocabulary)).flatten(1).any(1)
    if outside.any():
        index = int(outside.nonzero()[0])
        tokens = inputs[index].flatten()
        wrong = tokens[(tokens < 0) | (tokens >= vocabulary)]
        raise DataError(
            f"data '{use}': {part} has the token {int(wrong[0])} at example {index}; its facts "
            f"promise a vocabulary of {vocabulary}, so tokens must lie in 0 … {vocabulary - 1}"
        )


def _check_finite(use: str, part: str, inputs: torch.Tensor) -> None:
    """Raise DataError for an input that is NaN or infinite."""
    import torch

    if inputs.dtype == torch.uint8:
        return
    for start in range(0, len(inputs), _CHECK_CHUNK):
        finite = torch.isfinite(inputs[start : start + _CHECK_CHUNK]).flatten(1).all(1)
        if not finite.all():
            index = start + int((~finite).nonzero()[0])
            values = inputs[index][~torch.isfinite(inputs[index])]
            raise DataError(
                f"data '{use}': {part} has the input {float(values[0])} at example {index}, where "
                f"finite numbers are needed ({len(values)} of its {inputs[index].numel()} values "
                "are not finite)"
            )
