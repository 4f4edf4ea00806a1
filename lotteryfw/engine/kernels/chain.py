"""Recognising networks that are a plain chain of Linear and ReLU layers: what the fast kernels know how to train."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def chain_of(module: nn.Module) -> list[str] | str:
    """The paths of a chain's Linear layers in order ("fc1", …), or the reason why the network is no such chain.

    A chain is an `nn.Sequential` (of Sequentials) that flattens, then alternates Linear and ReLU, a Linear at each end.
    Each of its parameters is trained and stands in one place; its modules do what torch's do and nothing else.
    """
    from torch import nn

    layers: list[str] = []
    wants_relu = False
    for path, part in module.named_modules(
        remove_duplicate=False
    ):  # in the order of the calls, repeats included
        if change := change_of(part):
            return f"the network has a {type(part).__name__} with {change} at '{path}'"
        if type(part) in (nn.Sequential, nn.Identity):  # a subclass may have any forward
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
    return unfit_parameter(module) or layers


def unfit_parameter(module: nn.Module) -> str | None:
    """Which of a network's parameters stands in several places, or is not trained; None where each is its own."""
    own = dict(module.named_parameters())
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name not in own:
            return f"the network uses one parameter in several places, as '{name}' too"
        if not parameter.requires_grad:
            return f"the network's '{name}' is not trained (requires_grad=False)"
    return None


def change_of(part: nn.Module) -> str | None:
    """What makes a module do more than its class says."""
    hooks = (
        part._forward_hooks,
        part._forward_pre_hooks,
        part._backward_hooks,
        part._backward_pre_hooks,
    )
    if any(hooks):
        return "hooks"
    return "a forward of its own" if "forward" in vars(part) else None
