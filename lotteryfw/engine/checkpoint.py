"""Checkpoints of a long training, and the optimizer's state as plain tensors."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import ContractError, LotteryError

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
                tensors[f"{index}.{name}:{type(value).__name__}"] = torch.tensor(
                    value, dtype=torch.float64
                )
            elif value is not None:
                kind = type(optimizer).__name__
                raise ContractError(
                    f"optimizer {kind} keeps '{name}' as {type(value).__name__}; it cannot be saved"
                )
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts a state that `optimizer_tensors` gave back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for label, tensor in tensors.items():
        index, _, name = label.partition(".")
        name, _, kind = name.partition(":")
        state.setdefault(int(index), {})[name] = (
            _NUMBERS[kind](tensor.item()) if kind else tensor.clone()
        )
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


class Checkpoints:
    """The checkpoints of one job below `folder`, which the first of them makes, written every `seconds` of training.

    The last two are kept: where the newest is damaged, the one before it serves. `warnings` says which were dropped.
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
        """Writes a checkpoint aside, with its checksums, and moves it into place, then drops all but the one before."""
        from lotteryfw.store import seal
        from lotteryfw.store import tensors as codec
        from lotteryfw.store.files import explained

        step = plain["step"]
        aside = self._path(step).with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        codec.save(aside / "tensors.safetensors", tensors, flush=False)
        with explained(aside, "written"):
            (aside / "state.json").write_text(json.dumps(plain))
            seal(aside, self._key, "checkpoint")
            shutil.rmtree(
                self._path(step), ignore_errors=True
            )  # one of this step was written from a later start
            aside.rename(self._path(step))

        others = [other for other in self._steps() if other != step]
        for other in others[1:]:
            shutil.rmtree(self._path(other), ignore_errors=True)
        for part in self._folder.glob("checkpoint-*.part"):
            shutil.rmtree(part, ignore_errors=True)
        self._last = time.monotonic()

    def load(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The newest checkpoint that is as it was written, or None. Damaged ones are dropped, with a warning."""
        from lotteryfw.store import Damaged, check_seal
        from lotteryfw.store import tensors as codec

        for step in self._steps():
            path = self._path(step)
            try:
                check_seal(path, self._key, "checkpoint")
                plain = json.loads((path / "state.json").read_text())
                if plain["step"] != step:
                    raise Damaged(f"it was written at step {plain['step']}")
                return codec.load(path / "tensors.safetensors")[0], plain
            except (Damaged, OSError, ValueError, KeyError, TypeError, LotteryError) as error:
                self.drop(step, str(error))
        return None

    def drop(self, step: int, reason: str) -> None:
        """Deletes the checkpoint of a step that cannot be gone on from, and notes why."""
        path = self._path(step)
        shutil.rmtree(path, ignore_errors=True)
        self.warnings.append(f"the checkpoint {path} cannot be used ({reason}); it was dropped")

    def _path(self, step: int) -> Path:
        return self._folder / f"checkpoint-{step}"

    def _steps(self) -> list[int]:
        """The steps that there are checkpoints of, the newest first."""
        names = (
            path.name.removeprefix("checkpoint-") for path in self._folder.glob("checkpoint-*")
        )
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)
