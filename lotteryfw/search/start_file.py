"""The file that a cell's network starts from, in the place of drawn weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lotteryfw.api.errors import UsageError, nearest
from lotteryfw.search.initial_state import InitialState

if TYPE_CHECKING:
    from torch import Tensor

_MOST_FAULTS = 10
"""Tensors that a message names: a file of another network fits nowhere."""


class FileContent(NamedTuple):
    """The tensors of a file: parameters and buffers by name, and masks by layer, if it has any."""

    values: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


ReadFile = Callable[[Path], FileContent]
"""A function of the store that reads a ticket, or a plain state dict. It raises StoreError."""


def no_files(path: Path) -> FileContent:
    """Raise UsageError: this cell reads no files."""
    raise UsageError(f"{path} cannot be read here")


@dataclass(frozen=True)
class StartFile:
    """A file to start from. The SHA-256 (hex) of its bytes is in the origin of its ticket."""

    path: Path
    digest: str
    read: ReadFile = field(compare=False)
    named_by: str = field(default="start", compare=False)
    """The recipe's key, or the call, that names the file: messages begin with it."""

    def applied(self, drawn: InitialState) -> InitialState:
        """Return a network at the file's values and masks. Buffers that it lacks stay as drawn.

        Raises UsageError where the file changed since the recipe was read, or fits other layers.
        """
        # The key says what was read while planning; a changed file would be trained under a wrong one.
        if file_digest(self.path) != self.digest:
            raise UsageError(
                f"{self.named_by}: {self.path} changed since the recipe was read; run the same "
                "command again"
            )
        content = self.read(self.path)
        faults = _mismatches(content, drawn)
        if faults:
            shown = faults[:_MOST_FAULTS]
            if len(faults) > _MOST_FAULTS:
                shown.append(f"and {len(faults) - _MOST_FAULTS} more")
            raise UsageError(
                f"{self.named_by}: {self.path} does not fit the recipe's network:\n  "
                + "\n  ".join(shown)
            )
        values = dict(drawn.values)
        for name, value in content.values.items():
            # A file may be in half precision; training is in float32.
            values[name] = value.to(drawn.values[name].dtype)
        return replace(drawn, values=values, masks=content.masks)


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mismatches(content: FileContent, drawn: InitialState) -> list[str]:
    """Return a line for everything in a file that the network has no place for, or lacks."""
    import torch

    faults = []
    for name, value in content.values.items():
        target = drawn.values.get(name)
        if target is None:
            remedy = nearest(name, drawn.values)
            faults.append(f"the network has no '{name}'; {remedy}")
        elif target.shape != value.shape:
            shapes = f"{list(value.shape)} in the file and {list(target.shape)} in the network"
            faults.append(f"'{name}' is {shapes}")
        elif target.is_floating_point() != value.is_floating_point():
            faults.append(f"'{name}' is {value.dtype} in the file, {target.dtype} in the network")
        elif not bool(torch.isfinite(value).all()):
            faults.append(f"'{name}' has values that are not finite")
    for name in drawn.values:
        if name not in content.values and name not in drawn.buffers:
            faults.append(f"the file has no '{name}'; {nearest(name, content.values)}")

    shapes_of = {layer.name: layer.shape for layer in drawn.layers}
    for name, mask in content.masks.items():
        if name not in shapes_of:
            faults.append(f"'{name}' has a mask, and is no prunable layer of the network")
        elif tuple(mask.shape) != shapes_of[name]:
            shapes = f"{list(mask.shape)} in the file and {list(shapes_of[name])} in the network"
            faults.append(f"the mask of '{name}' is {shapes}")
    return faults
