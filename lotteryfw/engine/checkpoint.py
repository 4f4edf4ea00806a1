"""Checkpoints of a long training, and the optimizer's state as plain tensors."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.errors import ContractError, LotteryError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NUMBERS = {"int": int, "float": float}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter as tensors named "index.name" (numbers as 0-d, named "index.name:type")."""
    import torch

    tensors = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.detach().clone()
            elif type(value).__name__ in _NUMBERS:
                tensors[f"{index}.{name}:{type(value).__name__}"] = torch.tensor(value, dtype=torch.float64)
            elif value is not None:
                kind = type(optimizer).__name__
                raise ContractError(f"optimizer {kind} keeps '{name}' as {type(value).__name__}; it cannot be saved")
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts a state that `optimizer_tensors` gave back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for label, tensor in tensors.items():
        index, _, name = label.partition(".")
        name, _, kind = name.partition(":")
        state.setdefault(int(index), {})[name] = _NUMBERS[kind](tensor.item()) if kind else tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Checkpoints:
    """The checkpoints of one job below `folder`, which the first of them makes: at most one, replaced whole, written
    every `seconds` of training."""

    def __init__(self, folder: Path, seconds: float):
        self._folder = folder
        self._seconds = seconds
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """True when the last one is old enough."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Writes a checkpoint aside and moves it into place, then drops the one before."""
        from lotteryfw.store import atomic_write
        from lotteryfw.store import tensors as codec

        name = f"checkpoint-{plain['step']}"
        aside = self._folder / f"{name}.part"
        shutil.rmtree(aside, ignore_errors=True)
        codec.save(aside / "tensors.safetensors", tensors)
        atomic_write(aside / "state.json", json.dumps(plain).encode())
        older = list(self._folder.glob("checkpoint-*"))
        target = self._folder / name
        if not target.exists():
            aside.rename(target)
        for other in older:
            if other != target:
                shutil.rmtree(other, ignore_errors=True)
        self._last = time.monotonic()

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The newest checkpoint, or None. Raises LotteryError where there is one that cannot be read."""
        from lotteryfw.store import tensors as codec

        found = [path for path in self._folder.glob("checkpoint-*") if path.suffix != ".part"]
        if not found:
            return None
        newest = max(found, key=lambda path: int(path.name.split("-")[1]))
        try:
            plain = json.loads((newest / "state.json").read_text())
            return codec.load(newest / "tensors.safetensors")[0], plain
        except (OSError, ValueError, LotteryError) as error:
            shutil.rmtree(newest, ignore_errors=True)
            raise LotteryError(f"the checkpoint {newest} cannot be read ({error}); it is dropped") from error
