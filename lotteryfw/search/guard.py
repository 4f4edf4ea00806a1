"""Calls into components: an error inside one is reported under its name and distribution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError, naming
from lotteryfw.api.layers import ControlLayer, Layer, LayerInfo, MaskedLayer
from lotteryfw.api.mask_updates import TrainingNetwork
from lotteryfw.search.jobs import Spec

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN_TENSORS = (
    "original",
    "init",
    "start",
    "final",
    "rewound",
    "mask",
    "mask_before",
    "weights",
    "scores",
    "allowed",
)
"""The tensors of a layer that a component reads and must not change."""


def describe(spec: Spec) -> str:
    """Return a component as messages name it: kind, name, provider."""
    return f"{spec.kind} '{spec.use}' of {spec.provider}"


@contextmanager
def blame(spec: Spec, method: str, *shown: object, tried: str = "") -> Iterator[None]:
    """Report what goes wrong inside as the fault of `spec`'s component.

    `shown` are the layers that the component is called with, `tried` other arguments in words, such
    as shapes. An exception becomes a PluginError that names the component, the method and the
    layer. A tensor that the component changed in place becomes a ContractError, since everything
    after it would compute with other values than the ones on record.
    """
    # torch counts the writes to each tensor, so nothing has to be copied or compared
    versions: list[tuple[str, Tensor, int]] = []
    for item in shown:
        for name, tensor in _tensors_of(item):
            versions.append((name, tensor, tensor._version))
    with naming(
        describe(spec), f"{method}(){_on_layer(shown, with_shape=True)}{tried and ' ' + tried}"
    ):
        yield
    # After an exception the versions do not matter: the cell ends.
    for name, tensor, version in versions:
        if tensor._version != version:
            raise ContractError(
                f"{describe(spec)}: {method}(){_on_layer(shown)} changed `{name}` in place; "
                "what a component is shown must stay as it is: work on a copy (`.clone()`)"
            )


def _tensors_of(shown: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(shown, Layer | ControlLayer | MaskedLayer):
        for name in _SHOWN_TENSORS:
            tensor = getattr(shown, name, None)
            if tensor is not None:
                yield name, tensor
    if isinstance(shown, TrainingNetwork):
        for name, by_layer in (("weights", shown.weights), ("masks", shown.masks)):
            for layer, tensor in by_layer.items():
                yield f"{name}['{layer}']", tensor


def _on_layer(shown: tuple[object, ...], with_shape: bool = False) -> str:
    for item in shown:
        info = item.info if isinstance(item, Layer | ControlLayer | MaskedLayer) else item
        if isinstance(info, LayerInfo):
            return f" on layer {info.name}" + (f" {list(info.shape)}" if with_shape else "")
    return ""
