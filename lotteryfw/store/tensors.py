"""Tensors in files: safetensors with bit-packed masks, never a pickle.

A file holds, for each name: `value:` the tensor as it is; or, where it has a mask, `alive:` the
values where the mask is True, in order, and `dead:` those where it is False, left out when every
one is +0.0 to the bit. `mask:` is `numpy.packbits` of the mask. Names, shapes and the text of
`meta` stand in one JSON entry of the header: safetensors writes several in random order, and equal
content must give equal files.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.digests import digest, tensors_digest
from lotteryfw.api.errors import StoreError, printable
from lotteryfw.store.files import atomic_write, explained

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_FORMAT = 1
_HEADER = "lotteryfw"
_ALIGNMENT = 8  # bytes: the largest element of a tensor, and the length of the header's own size
_LONGEST_REASON = 500
"""Characters of a message that quotes what a file holds."""


def save(
    path: Path,
    values: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    meta: Mapping[str, str] | None = None,
    *,
    flush: bool = True,
    checksum: bool = False,
) -> None:
    """Write what `pack` returns, atomically; `flush` as in `atomic_write`. Raises StoreError."""
    atomic_write(Path(path), pack(values, masks, meta, checksum=checksum), flush=flush)


def pack(
    values: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    meta: Mapping[str, str] | None = None,
    *,
    checksum: bool = False,
) -> bytes:
    """Return the file of tensors of any shape, dtype and device, and bool masks (True = alive).

    A mask may stand alone; one with a value's name has that value's shape (else ValueError).
    `load` gives back every bit of them on the CPU, -0.0 and NaN payloads included. `meta` is text
    for `load_meta`. `checksum` also writes the SHA-256 of all of it, for files outside the store.
    """
    import numpy as np
    import torch

    masks = {name: mask.detach().cpu() for name, mask in (masks or {}).items()}
    stored: dict[str, Tensor] = {}
    for name, mask in masks.items():
        if mask.dtype != torch.bool or (name in values and values[name].shape != mask.shape):
            raise ValueError(f"the mask of '{name}' is not bool, or not of its value's shape")
        # a bit for each weight, where safetensors would take a byte
        stored[f"mask:{name}"] = torch.from_numpy(np.packbits(mask.numpy()))
    for name, value in values.items():
        value = value.detach().cpu()
        if name not in masks:
            stored[f"value:{name}"] = value.contiguous()
            continue
        # Two parts, so that the size of a file falls with the density of its masks.
        dead = ~masks[name]
        stored[f"alive:{name}"] = _chosen(value, masks[name])
        if not is_plus_zero(value, dead):
            stored[f"dead:{name}"] = _chosen(value, dead)
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    text = dict(meta or {})
    index: dict[str, Any] = {
        "format": _FORMAT,
        "values": list(values),
        "masks": shapes,
        "meta": text,
    }
    if checksum:
        index["sha256"] = _checksum(values, masks, text)
    return _serialized(stored, {_HEADER: json.dumps(index)})


def _serialized(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return contiguous tensors on the CPU in the format of safetensors.

    For the six tensors of a tiny ticket this takes a quarter of the time of the library's own
    `save`: a study of trainings of a few milliseconds writes two such files for each. The library
    does what this function does not: unusual dtypes, and machines with the other byte order.
    """
    import torch
    from safetensors.torch import save as library_save

    if sys.byteorder != "little" or any(one.dtype not in _codes() for one in tensors.values()):
        # the library refuses tensors that share memory, as tied weights do
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        return library_save(copies, metadata=metadata)

    # The layout is the library's to the byte. Tensors are mapped from the file, and the last bits
    # of sums over them depend on how they are aligned in memory.
    order = list(_codes())
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": metadata}
    chunks: list[Any] = []
    position = 0
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _codes()[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + size],
        }
        position += size
        if size:  # a view as bytes needs at least one element
            chunks.append(tensor.reshape(-1).view(torch.uint8).numpy())
    # The format lets spaces follow the header, so that what comes after it is aligned.
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([len(text).to_bytes(_ALIGNMENT, "little"), text, *chunks])


@cache
def _codes() -> dict[Any, str]:
    """Return the names that safetensors has for dtypes, in the order of tensors in a file.

    Large elements come first, so that every tensor is aligned to the size of its elements.
    """
    import torch

    return {
        torch.int64: "I64",
        torch.float64: "F64",
        torch.float32: "F32",
        torch.int32: "I32",
        torch.bfloat16: "BF16",
        torch.float16: "F16",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the values and masks that `save` wrote, in its order, on the CPU. Raises StoreError.

    Tensors without a mask are mapped from the file: they are read when used, and writing to them
    leaves it alone.
    """
    values, masks, _ = _load(Path(path))
    return values, masks


def load_with_meta(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """Return the values, masks and `meta` that `save` wrote (see `load`). Raises StoreError."""
    values, masks, index = _load(Path(path))
    return values, masks, dict(index["meta"])


def load_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """Return the values, masks and `meta` that `save` wrote with a checksum.

    Raises StoreError where any of it has changed.

    A file without a checksum, from an older version, brings a UserWarning.
    """
    values, masks, index = _load(Path(path))
    meta: dict[str, str] = index["meta"]
    expected = index.get("sha256")
    if expected is None:
        text = (
            f"{path}: has no checksum, being of an older lotteryfw: damage to it would go unnoticed"
        )
        warnings.warn(text, stacklevel=3)
    elif _checksum(values, masks, meta) != expected:
        raise StoreError(
            f"{path}: damaged: its content does not match its checksum; copy or export it again"
        )
    return values, masks, meta


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Return the values, masks and index of a file."""
    with _opened(path) as (file, index):
        present = set(file.keys())
        masks: dict[str, Tensor] = {}
        for name, shape in index["masks"].items():
            masks[name] = _unpacked(file.get_tensor(f"mask:{name}"), shape)
        values: dict[str, Tensor] = {}
        for name in index["values"]:
            if name not in masks:
                values[name] = file.get_tensor(f"value:{name}")
                continue
            # absent where every masked weight is +0.0, as the zero action leaves them
            dead = file.get_tensor(f"dead:{name}") if f"dead:{name}" in present else None
            values[name] = _filled(masks[name], file.get_tensor(f"alive:{name}"), dead)
        return values, masks, index


def _checksum(
    values: Mapping[str, Tensor], masks: Mapping[str, Tensor], meta: Mapping[str, str]
) -> str:
    """Return the SHA-256 (hex) of all content of a file, the order of its tensors included."""
    # the lists of names are for the order, which a digest of tensors by name does not see
    content = [list(values), tensors_digest(values), list(masks), tensors_digest(masks), dict(meta)]
    return digest(content)


def is_plus_zero(value: Tensor, chosen: Tensor) -> bool:
    """Return whether `value` [s] is +0.0 to the bit, and not -0.0, where `chosen` [s] bool.

    Looks at all of it and copies nothing out: where most are chosen that takes a sixth of the time
    of indexing.
    """
    import torch

    # as integers, since -0.0 == 0.0 as floats; a complex128 is two of them side by side
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32}.get(value.element_size(), torch.int64)
    return not bool(
        ((value.detach().reshape(-1, 1).view(whole) != 0) & chosen.reshape(-1, 1)).any()
    )


def load_plain(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a safetensors file that `save` did not write; None for one it wrote.

    Raises StoreError for any other file.
    """
    from safetensors import safe_open

    try:
        with explained(path, "read"), safe_open(path, framework="pt") as file:
            if _HEADER in (file.metadata() or {}):
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except StoreError:
        raise
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}", _LONGEST_REASON)
        raise StoreError(
            f"{path}: damaged, or no safetensors file ({reason}); write a state dict with "
            "safetensors.torch.save_file"
        ) from error


def load_meta(path: Path) -> dict[str, str]:
    """Return the `meta` that `save` was given, without reading a tensor. Raises StoreError."""
    with _opened(Path(path)) as (_, index):
        return dict(index["meta"])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file and read its index.

    Every error while it is read becomes a StoreError that names the file.
    """
    from safetensors import safe_open

    try:
        with explained(path, "read"), safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if _HEADER not in about:
                raise StoreError(
                    f"{path}: has tensors alone, as a state dict of `lotteryfw export`, and no "
                    "mask: safetensors.torch.load_file reads it; tickets are below a run's tickets/"
                )
            index = json.loads(about[_HEADER])
            if index["format"] > _FORMAT:
                raise StoreError(
                    f"{path}: written by a newer lotteryfw (format {index['format']}): "
                    "update this one"
                )
            _check_index(index)
            yield file, index
    except StoreError:
        raise
    except Exception as error:
        # A hostile file makes safetensors, json and numpy fail in many ways, and what it holds must
        # not reach the terminal as escape sequences.
        reason = printable(f"{type(error).__name__}: {error}", _LONGEST_REASON)
        raise StoreError(f"{path}: damaged, or not a file of lotteryfw's ({reason})") from error


def _check_index(index: dict[str, Any]) -> None:
    """Raise ValueError for an index that `save` did not write."""
    if (
        not {"format", "values", "masks", "meta"}
        <= index.keys()
        <= {"format", "values", "masks", "meta", "sha256"}
    ):
        raise ValueError(f"unknown entries among {', '.join(index)}")
    names, shapes, meta = index["values"], index["masks"], index["meta"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the names of its values are no list of strings")
    if not isinstance(meta, dict) or not all(isinstance(text, str) for text in meta.values()):
        raise ValueError("its metadata is no table of strings")
    if not isinstance(shapes, dict):
        raise ValueError("the shapes of its masks are no table")
    for name, shape in shapes.items():
        sizes = shape if isinstance(shape, list) else [None]
        # `type … is int` and not isinstance, for which true is an integer, too
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(f"the mask of '{name}' has no shape")


def _unpacked(packed: Tensor, shape: Sequence[int]) -> Tensor:
    import numpy as np
    import torch

    size = prod(shape)
    # The shape comes from a file that may be hostile: nothing is allocated for it before this.
    if packed.numel() != (size + 7) // 8:
        raise ValueError(f"{packed.numel()} bytes for a mask of {size}")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=size).view(bool)).reshape(
        tuple(shape)
    )


def _filled(mask: Tensor, alive: Tensor, dead: Tensor | None) -> Tensor:
    import torch

    kept = int(mask.sum())
    if alive.shape != (kept,) or (dead is not None and dead.shape != (mask.numel() - kept,)):
        raise ValueError(f"{alive.numel()} values for a mask of {kept} that are alive")
    value = torch.zeros(mask.shape, dtype=alive.dtype)
    _bits(value)[mask.numpy()] = _bits(alive)
    if dead is not None:
        _bits(value)[~mask.numpy()] = _bits(dead)
    return value


def _chosen(value: Tensor, chosen: Tensor) -> Tensor:
    """Return [n]: the entries of `value` [s] where `chosen` [s] bool, in order."""
    import torch

    return torch.from_numpy(_bits(value)[chosen.numpy()]).view(value.dtype)


def _bits(value: Tensor) -> NDArray[Any]:
    """Return the same memory as integers, for numpy.

    Integers are copied as they are; copying a float may change the payload of a NaN. The boolean
    indexing of numpy takes a seventh to a half of the time of torch's.
    """
    import torch

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = value.view(integers[value.element_size()]) if value.element_size() in integers else value
    return bits.numpy()
