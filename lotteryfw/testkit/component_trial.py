"""The trial of one component: it calls it as the engine would, and names what it broke."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from lotteryfw.api.component import Component
from lotteryfw.api.errors import ContractError, DataError, LotteryError
from lotteryfw.api.layers import ControlLayer, Layer, MaskedLayer, MaskedNetwork

if TYPE_CHECKING:
    from torch import Tensor


class Skipped(DataError, SkipTest):
    """A data source cannot be tried without its files. pytest and unittest report it as skipped."""


class ComponentTrial:
    """The trial of `component`. Its errors name the component and the call that broke a promise."""

    def __init__(self, component: Component):
        self.component = component

    def require(self, holds: bool, message: str) -> None:
        """Raise ContractError with this message unless the promise `holds`."""
        if not holds:
            raise ContractError(f"{self.component.kind} '{self.component.use}': {message}")

    def call(
        self, method: str, *arguments: Any, on: str, seeded: bool = False, may_change: str = ""
    ) -> Any:
        """Call a method of the component, described by `on` in messages, and return its result.

        The method must leave its arguments and the global random streams as they are. `seeded`
        allows draws from torch's global stream; `may_change` names a tensor that the method may write
        to, such as "edges.weights". Errors that the component raises on purpose (LotteryError) pass
        through; any other becomes a ContractError.
        """
        call = f"{method}() on {on}"
        # copies, since a method that writes in place leaves nothing to compare with
        copies = []
        for name, tensor in _argument_tensors(arguments):
            if name != may_change:
                copies.append((name, tensor, tensor.detach().clone()))
        streams = _global_streams(seeded)

        try:
            value = getattr(self.component, method)(*arguments)
        except LotteryError:
            raise
        except (Exception, SystemExit) as error:
            self.require(False, f"{call} raised {type(error).__name__}: {error}")

        self.require(
            _global_streams(seeded) == streams,
            f"{call} used a global random stream; results repeat only if every draw comes from "
            "the `rng` it is given",
        )
        for name, tensor, copy in copies:
            self.require(
                _bits(tensor) == _bits(copy),
                f"{call} changed {name}, which it is shown to read only",
            )
        return value

    def require_tensor(
        self,
        method: str,
        arguments: Callable[[], tuple[Any, ...]],
        shape: tuple[int, ...],
        on: str,
        read: Tensor | None = None,
        float32: bool = True,
    ) -> None:
        """Require that a method returns the same tensor twice, with new `arguments` for each call.

        The tensor must have `shape`, be float32 (or of any floating-point type) and be finite where
        `read` [shape] bool is True; None reads everything.
        """
        import torch

        call = f"{method}() on {on}"
        values: list[Tensor] = []
        for _ in range(2):
            value = self.call(method, *arguments(), on=on)
            self._require_type(call, value, shape, float32)
            values.append(value.detach() if read is None else value.detach()[read])
        first, second = values

        not_finite = int((~torch.isfinite(first)).sum())
        self.require(
            not not_finite,
            f"{call} returned {not_finite} values that are NaN or infinite where they are read",
        )
        # compared as bits, since NaN is equal to nothing and -0.0 equals 0.0
        self.require(
            _bits(first) == _bits(second), f"{call} gave two results for equal inputs and streams"
        )

    def _require_type(self, call: str, value: Any, shape: tuple[int, ...], float32: bool) -> None:
        import torch

        self.require(
            isinstance(value, torch.Tensor), f"{call} returned {type(value).__name__}, not a tensor"
        )
        self.require(
            tuple(value.shape) == shape,
            f"{call} returned shape {list(value.shape)}, not {list(shape)}",
        )
        self.require(
            value.dtype.is_floating_point,
            f"{call} returned dtype {value.dtype}, not floating point",
        )
        self.require(
            value.dtype == torch.float32 or not float32,
            f"{call} returned {value.dtype}, not float32",
        )


def _argument_tensors(arguments: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor among the arguments, with the name that a component's author uses."""
    import torch

    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield "its input", argument
        elif isinstance(argument, MaskedNetwork):
            yield from _argument_tensors(tuple(argument.edges.values()))
        elif isinstance(argument, Mapping):
            yield from _argument_tensors(tuple(argument.values()))
        elif isinstance(argument, Layer | ControlLayer | MaskedLayer):
            owner = "edges" if isinstance(argument, MaskedLayer) else "layer"
            for field in fields(argument):
                value = getattr(argument, field.name)
                if isinstance(value, torch.Tensor):
                    # a private field is behind a property of the same name
                    yield f"{owner}.{field.name.lstrip('_')}", value


def _bits(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().reshape(-1).contiguous()
    # an empty tensor cannot be viewed as bytes
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _global_streams(seeded: bool) -> tuple[Any, ...]:
    """Return the states of the process's random streams, without torch's if it is `seeded`."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state()
    states = (random.getstate(), numpy_state[1].tobytes(), numpy_state[2])
    return states if seeded else (*states, torch.get_rng_state().numpy().tobytes())
