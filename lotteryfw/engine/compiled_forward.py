"""Forward passes that `torch.compile` has made a program of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

_PROGRAMS = 64
"""Programs of one process, for networks and batches of different shapes; torch's limit is 8, and
beyond it forward passes would run as they are without a word."""
Forward = Callable[[torch.nn.Module, Mapping[str, Tensor], Tensor], Any]


def plain_forward(module: torch.nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor) -> Any:
    """Return what a network returns for inputs, with these parameters and buffers."""
    return functional_call(module, dict(tensors), (inputs,))


class CompiledForward:
    """The forward pass of one training, compiled at its first call.

    Trainings of one network share the program that the first of a process has made. Where that
    fails, for want of a compiler or because of the network, it is the plain one from then on, and
    a warning says why.
    """

    def __init__(self) -> None:
        # Seconds, which other trainings do without.
        from torch import _dynamo

        limits: Any = _dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, _PROGRAMS)
        self._forward: Forward = torch.compile(plain_forward)
        self._has_run = False

    def __call__(
        self, module: torch.nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor
    ) -> Any:
        """Return what the network returns."""
        if self._has_run:
            return self._forward(module, tensors, inputs)
        self._has_run = True
        try:
            return self._forward(module, tensors, inputs)
        except Exception as error:
            self._forward = plain_forward
            # An error that is the network's own is raised here once more, and not taken for the
            # compiler's.
            outputs = plain_forward(module, tensors, inputs)
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            warnings.warn(
                "a training's forward pass cannot be compiled and runs as it is: "
                f"{type(error).__name__}: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
            return outputs
