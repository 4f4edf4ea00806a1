"""Recognises plain multilayer perceptrons, which the fast kernels know how to train."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn

from lotteryfw.engine.kernels.kernel import Candidate


def why_no_mlp(candidate: Candidate) -> str | None:
    """Return why the network of a job is no plain MLP that fits its data, as a clause, or None.

    The kernels compute without torch's checks: where a width does not fit, compiled loops would
    read and write past the end of arrays.
    """
    layers = candidate.network_fact(mlp_layers)
    if isinstance(layers, str):
        return layers
    info = candidate.facts.info(candidate.job)
    if info.vocabulary:
        return "the network computes with numbers, and the inputs are tokens"
    outputs = len(candidate.job.values[f"{layers[-1]}.weight"])
    if outputs < info.classes:
        return f"the network has {outputs} outputs for {info.classes} classes"
    return None


def mlp_layers(module: nn.Module, shape: Sequence[int] | None = None) -> list[str] | str:
    """Return the paths of the Linear layers in order ("fc1", …), or why this is no plain MLP.

    A plain MLP is an `nn.Sequential` (of Sequentials) that alternates Linear and ReLU, with a
    Linear at each end; a Flatten may come first. Each layer takes as many inputs as the one before
    has outputs. Each parameter is trained and is used in one place; the modules do what torch's do
    and nothing else.

    `shape` is that of one input, which the network must be able to read; None for any shape.
    """
    is_flat = shape is None or len(shape) == 1
    width = None if shape is None else prod(shape)
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
            is_flat = True
            continue
        if type(part) is nn.Linear and not expects_relu:
            if not is_flat:
                return (
                    f"the network has no Flatten before the Linear at '{path}', "
                    f"and inputs have the shape {list(shape or ())}"
                )
            if width not in (None, part.in_features):
                return f"the Linear at '{path}' takes {part.in_features} inputs, and gets {width}"
            layers.append(path)
            width = part.out_features
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
