"""One component on trial: asked as the engine asks it, and told by name what it broke."""

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
    """A data source could not be tried, since its files are not here. pytest and unittest report it as skipped."""


class Subject:
    """A component on trial. Everything here raises ContractError with the component's name and the call that broke."""

    def __init__(self, component: Component):
        self.component = component

    def demand(self, kept: bool, what: str) -> None:
        """Raises ContractError, which says `what`, unless the promise is `kept`."""
        if not kept:
            raise ContractError(f"{self.component.kind} '{self.component.use}': {what}")

    def ask(
        self, method: str, *given: Any, on: str, seeded: bool = False, may_change: str = ""
    ) -> Any:
        """What a method returns. It must leave what it is shown as it is, and the global random streams alone.

        `seeded`: torch's own global stream is one that it may draw from. `may_change`: what of the things shown it may
        write to, such as "edges.weights". Errors that the component raises on purpose (LotteryError) pass through,
        others are told as a broken promise.
        """
        call = f"{method}() on {on}"
        before = [
            (name, tensor, tensor.detach().clone())
            for name, tensor in _shown(given)
            if name != may_change
        ]
        streams = _global_streams(seeded)
        try:
            value = getattr(self.component, method)(*given)
        except LotteryError:
            raise
        except Exception as error:
            self.demand(False, f"{call} raised {type(error).__name__}: {error}")
        self.demand(
            _global_streams(seeded) == streams,
            f"{call} used a global random stream; results repeat only if every draw comes from the `rng` it is given",
        )
        for name, tensor, copy in before:
            self.demand(
                _bits(tensor) == _bits(copy),
                f"{call} changed {name}, which it is shown to read only",
            )
        return value

    def demand_tensor(
        self,
        method: str,
        given: Callable[[], tuple[Any, ...]],
        shape: tuple[int, ...],
        on: str,
        read: Tensor | None = None,
        float32: bool = True,
    ) -> None:
        """Raises unless a method, asked twice with what `given` makes anew, returns one tensor, as its kind promises.

        It must have `shape`, be float32 (or of any floating point type) and be finite where `read` [shape] bool.
        """
        import torch

        call = f"{method}() on {on}"
        values: list[Tensor] = [self.ask(method, *given(), on=on) for _ in range(2)]
        for value in values:
            self.demand(
                isinstance(value, torch.Tensor),
                f"{call} returned {type(value).__name__}, not a tensor",
            )
            self.demand(
                tuple(value.shape) == shape,
                f"{call} returned shape {list(value.shape)}, not {list(shape)}",
            )
            self.demand(
                value.dtype.is_floating_point,
                f"{call} returned dtype {value.dtype}, not floating point",
            )
            self.demand(
                value.dtype == torch.float32 or not float32,
                f"{call} returned {value.dtype}, not float32",
            )
        first, second = (value.detach()[... if read is None else read] for value in values)
        strange = int((~torch.isfinite(first)).sum())
        self.demand(
            not strange,
            f"{call} returned {strange} values that are NaN or infinite where they are read",
        )
        self.demand(
            _bits(first) == _bits(second), f"{call} gave two results for equal inputs and streams"
        )


def _shown(given: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor among the arguments, with what its author calls it."""
    import torch

    for item in given:
        if isinstance(item, torch.Tensor):
            yield "its input", item
        elif isinstance(item, Layer | ControlLayer | MaskedLayer):
            what = "edges" if isinstance(item, MaskedLayer) else "layer"
            for field in fields(item):
                if isinstance(value := getattr(item, field.name), torch.Tensor):
                    yield f"{what}.{field.name.lstrip('_')}", value
        elif isinstance(item, MaskedNetwork | Mapping):
            yield from _shown(
                tuple((item.edges if isinstance(item, MaskedNetwork) else item).values())
            )


def _bits(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().reshape(-1).contiguous()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _global_streams(seeded: bool) -> tuple[Any, ...]:
    """The state of every random stream that a whole process shares; without torch's where that one is `seeded`."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state()
    shared = (random.getstate(), numpy_state[1].tobytes(), numpy_state[2])
    return shared if seeded else (*shared, torch.get_rng_state().numpy().tobytes())
