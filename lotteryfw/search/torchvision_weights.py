"""Weights that torchvision publishes, where their file is on this machine. Nothing is downloaded."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

from lotteryfw.api.errors import UsageError
from lotteryfw.search.start_file import FileContent

PREFIX = "torchvision:"
"""Stands before the name of a network of torchvision, where the path of a file may stand."""
SAVED_BY_TORCH = (".pt", ".pth")
"""The endings of files that `torch.save` wrote."""
_HASH = 8
"""Hexadecimal digits of a file's SHA-256 in its name: resnet18-f37072fd.pth."""


def checkpoint_folder() -> Path:
    """Return the folder that torch.hub keeps downloaded weights in, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def weights_file(name: str) -> Path:
    """Return the file of a network's weights, such as "resnet18" or "resnet50-0676ba61".

    Raises UsageError where there is none, or where there are several.
    """
    folder = checkpoint_folder()
    files = []
    for path in sorted(folder.glob("*.pth")):
        # torch.hub names a file by the network and the beginning of its SHA-256.
        network, _, digest = path.stem.rpartition("-")
        if name in (network, path.stem) and re.fullmatch(f"[0-9a-f]{{{_HASH}}}", digest):
            files.append(path)
    if not files:
        raise UsageError(
            f"there is no file of the weights of torchvision's '{name}' in {folder}, and nothing "
            f'is downloaded; torchvision.models.{name.partition("-")[0]}(weights="DEFAULT") '
            "downloads it, or set TORCH_HOME"
        )
    if len(files) > 1:
        names = " or ".join(f'"{PREFIX}{path.stem}"' for path in files)
        raise UsageError(f"there are several files of weights of '{name}': name one, {names}")
    return files[0]


def read_state_dict(path: Path) -> FileContent:
    """Return the state dict in a file that `torch.save` wrote.

    Raises UsageError for a damaged file. Only tensors are read from it, no code is run.
    """
    import torch

    try:
        # A pickle may run any code; this reads tensors and plain containers alone.
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own text goes on for lines, and advises to run the file's code.
        raise UsageError(
            f"{path} is no file of weights that torch.save wrote; one of safetensors is named "
            f"{path.with_suffix('.safetensors').name}"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise UsageError(f"{path} is no file of weights: {error}") from None
    is_network = isinstance(values, dict) and all(
        isinstance(value, torch.Tensor) for value in values.values()
    )
    if not is_network:
        raise UsageError(f"{path} has no state dict: a dict of tensors by name belongs there")
    return FileContent(values, {})


def check_published(path: Path, digest: str) -> None:
    """Raise UsageError where a file is not the one that its name says was published."""
    published = path.stem.rpartition("-")[2]
    if not digest.startswith(published):
        raise UsageError(
            f"{path} is damaged: its SHA-256 begins with {digest[:_HASH]}, and that of the "
            f"published file with {published}; delete it and download it again"
        )
