"""Data that is in memory, as a data source: what `run(…, data=…)` takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lotteryfw.api.data import Dataset, DatasetInfo, Subset
from lotteryfw.api.errors import UsageError
from lotteryfw.api.kinds import DataSource

PARTS = ("train", "validation", "test")
_SHAPE = '{"train": (x, y), "validation": (x, y), "test": (x, y)}'


def arrays_source(arrays: Mapping[str, Any]) -> type[DataSource]:
    """Return a data source called "arrays" with these examples: by part, inputs and labels.

    NumPy arrays and tensors are taken: inputs [n, …] of uint8, or of numbers that become float32,
    and labels [n] of integers. The results are keyed by a hash of all of them. Raises UsageError.
    """
    if set(arrays) != set(PARTS):
        parts = ", ".join(map(str, arrays)) or "nothing"
        raise UsageError(f"data: must be {_SHAPE}, got {parts}")
    subsets = {part: _subset(part, arrays[part]) for part in PARTS}
    dataset = Dataset(subsets["train"], subsets["validation"], subsets["test"])
    shape = tuple(subsets["train"].inputs.shape[1:])
    for part, subset in subsets.items():
        if tuple(subset.inputs.shape[1:]) != shape:
            other = list(subset.inputs.shape[1:])
            raise UsageError(f"data: {part} has inputs of shape {other}, train of {list(shape)}")
    # the highest label may be missing in a part
    highest = max(int(subset.labels.max()) for subset in subsets.values())
    sizes = {part: len(subset.labels) for part, subset in subsets.items()}
    info = DatasetInfo(shape, highest + 1, sizes["train"], sizes["validation"], sizes["test"])
    content = _hash(subsets)

    class Arrays(DataSource):
        """Examples that the session has in memory."""

        use = "arrays"

        def facts(self, folder: Path) -> DatasetInfo:
            return info

        def load(self, folder: Path) -> Dataset:
            return dataset

        def fingerprint(self, folder: Path) -> str:
            return content

    return Arrays


def _subset(part: str, pair: Any) -> Subset:
    """Return one part as tensors. Raises UsageError."""
    import torch

    # anything that unpacks and converts is taken: lists, arrays, tensors on any device
    try:
        inputs, labels = pair
        inputs = torch.as_tensor(inputs).detach().cpu()
        labels = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"data: {part} must be a pair of arrays, inputs and labels") from error
    if labels.is_floating_point() or labels.dim() != 1 or len(labels) != len(inputs):
        raise UsageError(
            f"data: the labels of {part} must be integers, one for each of its {len(inputs):,} "
            f"inputs, got {labels.dtype} of shape {list(labels.shape)}"
        )
    if not len(labels):
        raise UsageError(f"data: {part} has no examples")
    if inputs.dtype != torch.uint8:
        inputs = inputs.float()
    # copies: an array that changes later would no longer be what the results are keyed by
    return Subset(inputs.clone().contiguous(), labels.long().clone())


def _hash(subsets: Mapping[str, Subset]) -> str:
    digest = hashlib.sha256()
    for part, subset in subsets.items():
        for tensor in (subset.inputs, subset.labels):
            # with the shape: the same bytes in another shape are other examples
            digest.update(f"{part} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
