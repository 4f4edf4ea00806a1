"""Checks of the tensors that a search passes to its lab, before a ticket is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError, nearest
from lotteryfw.search.initial_state import InitialState

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of the prunable layers, by name."""


def check_masks(what: str, masks: object, shapes: Shapes) -> None:
    """Raise ContractError unless `masks` has bool masks of layers, by name."""
    import torch

    for name, mask in _tensors(what, masks, shapes, "prunable layer"):
        if mask.dtype != torch.bool:
            raise ContractError(
                f"{what}: the mask of {name} has the dtype {mask.dtype}; it is a bool tensor, True "
                "where a weight is kept"
            )
        _check_shape(what, f"the mask of {name}", mask, shapes[name])


def check_layers(what: str, tensors: object, shapes: Shapes) -> None:
    """Raise ContractError unless `tensors` has finite numbers for layers, by name."""
    for name, value in _tensors(what, tensors, shapes, "prunable layer"):
        _check_shape(what, name, value, shapes[name])
        _check_finite(what, name, value)


def check_values(what: str, values: object, network: InitialState) -> None:
    """Raise ContractError unless `values` has finite numbers for parameters and buffers."""
    for name, value in _tensors(what, values, network.values, "parameter or buffer"):
        target = network.values[name]
        _check_shape(what, name, value, tuple(target.shape))
        # A count of batches is an integer, and a weight is none.
        if value.is_floating_point() != target.is_floating_point():
            raise ContractError(f"{what}: {name} is {target.dtype}, not {value.dtype}")
        _check_finite(what, name, value)


def _tensors(
    what: str, tensors: object, names: Iterable[str], noun: str
) -> list[tuple[str, Tensor]]:
    import torch

    if not isinstance(tensors, Mapping):
        raise ContractError(
            f"{what} is a {type(tensors).__name__}; it has tensors by the name of a {noun}"
        )
    names = list(names)
    for name, value in tensors.items():
        if name not in names:
            raise ContractError(
                f"{what}: the network has no {noun} '{name}' ({nearest(name, names)})"
            )
        if not isinstance(value, torch.Tensor):
            raise ContractError(f"{what}: {name} is a {type(value).__name__}, not a tensor")
    return list(tensors.items())


def _check_shape(what: str, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ContractError(f"{what}: {name} has the shape {list(shape)}, not {list(value.shape)}")


def _check_finite(what: str, name: str, value: Tensor) -> None:
    import torch

    finite = torch.isfinite(value)
    if not bool(finite.all()):
        raise ContractError(
            f"{what}: {int((~finite).sum())} of {value.numel()} values of {name} are NaN or infinite"
        )
