"""Checkpoints of a long training, and the optimizer's state as plain tensors."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError, LotteryError
from lotteryfw.store import Damaged, check_seal, seal
from lotteryfw.store import tensors as tensor_files
from lotteryfw.store.files import explained

_NUMBERS = {"int": int, "float": float}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of every parameter as tensors named "index.name".

    Numbers become tensors without dimensions, named "index.name:type". Raises ContractError for
    state of another type.
    """
    tensors = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            value_type = type(value).__name__
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.detach().clone()
            elif value_type in _NUMBERS:
                number = torch.tensor(value, dtype=torch.float64)
                tensors[f"{index}.{name}:{value_type}"] = number
            elif value is not None:
                raise ContractError(
                    f"optimizer {type(optimizer).__name__} keeps '{name}' as {value_type}; "
                    "it cannot be saved"
                )
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a state that `optimizer_tensors` returned into an optimizer over equal parameters."""
    state: dict[int, dict[str, Any]] = {}
    for label, tensor in tensors.items():
        index, _, name = label.partition(".")
        name, _, number_type = name.partition(":")
        value = _NUMBERS[number_type](tensor.item()) if number_type else tensor.clone()
        state.setdefault(int(index), {})[name] = value
    # Options are the job's own: only state is restored, never a rate from the file.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, loaded in optimizer.state.items():
        for name, value in loaded.items():
            # Fused updates read a parameter and its state in one order of memory.
            is_alike = isinstance(value, Tensor) and value.shape == parameter.shape
            if is_alike and value.stride() != parameter.stride():
                loaded[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class Checkpoints:
    """The checkpoints of one job below `folder`, written after every `seconds` of training.

    The first of them makes the folder. The last two are kept: where the newest is damaged, the one
    before it serves. `warnings` names those that were dropped.
    """

    def __init__(self, folder: Path, key: str, seconds: float):
        self._folder = folder
        self._key = key
        self._seconds = seconds
        self._last = time.monotonic()
        self.warnings: list[str] = []

    @property
    def due(self) -> bool:
        """True when the last one is old enough."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Write a checkpoint aside, with its checksums, and move it into place.

        Then all but the one before are dropped.
        """
        step = plain["step"]
        path = self._path(step)
        # A rename is atomic: a process that is killed here leaves no half checkpoint.
        aside = path.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        tensor_files.save(aside / "tensors.safetensors", tensors, flush=False)
        with explained(aside, "written"):
            (aside / "state.json").write_text(json.dumps(plain))
            seal(aside, self._key, "checkpoint")
            # One of this step may have been written from a later start.
            shutil.rmtree(path, ignore_errors=True)
            aside.rename(path)

        others = [other for other in self._steps() if other != step]
        for other in others[1:]:
            shutil.rmtree(self._path(other), ignore_errors=True)
        for part in self._folder.glob("checkpoint-*.part"):
            shutil.rmtree(part, ignore_errors=True)
        self._last = time.monotonic()

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """Return the newest checkpoint that is as it was written, or None.

        Damaged ones are dropped, with a warning.
        """
        for step in self._steps():
            path = self._path(step)
            try:
                check_seal(path, self._key, "checkpoint")
                plain = json.loads((path / "state.json").read_text())
                # A folder that was renamed by hand, or copied from another step, has a valid seal.
                if plain["step"] != step:
                    raise Damaged(f"it was written at step {plain['step']}")
                return tensor_files.load(path / "tensors.safetensors")[0], plain
            except (Damaged, OSError, ValueError, KeyError, TypeError, LotteryError) as error:
                self.drop(step, str(error))
        return None

    def drop(self, step: int, reason: str) -> None:
        """Delete the checkpoint of a step that a training cannot go on from, and note why."""
        path = self._path(step)
        shutil.rmtree(path, ignore_errors=True)
        self.warnings.append(f"the checkpoint {path} cannot be used ({reason}); it was dropped")

    def _path(self, step: int) -> Path:
        return self._folder / f"checkpoint-{step}"

    def _steps(self) -> list[int]:
        """Return the steps that have a checkpoint, the newest first."""
        steps = []
        for path in self._folder.glob("checkpoint-*"):
            name = path.name.removeprefix("checkpoint-")
            if name.isdecimal():
                steps.append(int(name))
        return sorted(steps, reverse=True)
