"""Recognising networks that are a plain chain of Linear and ReLU layers: what the fast kernels know how to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def chain_of(module: nn.Module) -> list[str] | str:
    """The paths of a chain's Linear layers in order ("fc1", …), or the reason why the network is no such chain.

    A chain is an `nn.Sequential` (of Sequentials) that flattens, then alternates Linear and ReLU, a Linear at each end.
    """
    from torch import nn

    layers: list[str] = []
    wants_relu = False
    for path, part in module.named_modules():
        if isinstance(part, nn.Sequential | nn.Identity):
            continue
        if type(part) is nn.Flatten and not layers and part.start_dim == 1 and part.end_dim == -1:
            continue
        if type(part) is nn.Linear and not wants_relu:
            layers.append(path)
        elif type(part) is not nn.ReLU or not wants_relu:
            return f"the network is no chain of Linear and ReLU layers (it has {type(part).__name__} at '{path}')"
        wants_relu = not wants_relu
    if not wants_relu:
        return "the network does not end with a Linear layer"
    return layers
