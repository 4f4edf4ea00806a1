"""Recognises plain multilayer perceptrons, which the fast kernels know how to train."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def mlp_layers(module: nn.Module, shape: Sequence[int] = ()) -> list[str] | str:
    """Return the paths of the Linear layers in order ("fc1", …), or why this is no plain MLP.

    A plain MLP is an `nn.Sequential` (of Sequentials) that flattens, then alternates Linear and
    ReLU, with a Linear at each end. Each of its parameters is trained and is used in one place;
    its modules do what torch's do and nothing else.
    """
    # A single Linear layer has no path, and its parameters no prefix.
    if type(module) is not nn.Sequential:
        return f"the network is a {type(module).__name__}, no nn.Sequential"
    layers: list[str] = []
    expects_relu = False
    # In the order of the calls, repeats included.
    for path, part in module.named_modules(remove_duplicate=False):
        if change := change_of(part):
            return f"the network has a {type(part).__name__} with {change} at '{path}'"
        # The type itself is compared, since a subclass may have any forward.
        if type(part) in (nn.Sequential, nn.Identity):
            continue
        # A Flatten later on would mean that the layers before it saw more than two dimensions.
        if type(part) is nn.Flatten and not layers and part.start_dim == 1 and part.end_dim == -1:
            continue
        if type(part) is nn.Linear and not expects_relu:
            layers.append(path)
        elif type(part) is not nn.ReLU or not expects_relu:
            return (
                "the network does not alternate Linear and ReLU layers "
                f"(it has {type(part).__name__} at '{path}')"
            )
        # Linear and ReLU take turns; a ReLU is what ends a pair.
        expects_relu = not expects_relu
    if not expects_relu:
        return "the network does not end with a Linear layer"
    return unfit_parameter(module) or layers


def unfit_parameter(module: nn.Module) -> str | None:
    """Return which parameter is used in several places or is not trained, or None."""
    first_names = dict(module.named_parameters())
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name not in first_names:
            return f"the network uses one parameter in several places, as '{name}' too"
        if not parameter.requires_grad:
            return f"the network's '{name}' is not trained (requires_grad=False)"
    return None


def change_of(part: nn.Module) -> str | None:
    """Return what makes a module do more than its class says, or None."""
    hooks = (
        part._forward_hooks,
        part._forward_pre_hooks,
        part._backward_hooks,
        part._backward_pre_hooks,
    )
    if any(hooks):
        return "hooks"
    return "a forward of its own" if "forward" in vars(part) else None
