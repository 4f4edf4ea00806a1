"""What the fast kernels know of torch's optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import optim


@dataclass(frozen=True)
class UpdateRule:
    """A rule of torch.optim, by torch's own names and defaults. The rate comes with each step."""

    rule: Literal["sgd", "adam", "adamw"]
    weight_decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


def has_step_hooks(optimizer: optim.Optimizer) -> bool:
    """Return True where an optimizer's step calls functions before or after the update.

    One that clips gradients, for example, needs all gradients of the network, and those alone.
    """
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def update_rule(optimizer: optim.Optimizer) -> UpdateRule | None:
    """Return the rule and the numbers of an optimizer; None for one without a built-in rule."""
    if len(optimizer.param_groups) != 1:
        return None
    (group,) = optimizer.param_groups
    if has_step_hooks(optimizer) or group.get("maximize") or group.get("amsgrad"):
        return None
    if type(optimizer) is optim.SGD:
        return UpdateRule(
            "sgd",
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
        )
    if type(optimizer) in (optim.Adam, optim.AdamW):
        beta1, beta2 = group["betas"]
        # In some releases of torch, AdamW is an Adam with this option.
        decoupled = type(optimizer) is optim.AdamW or group.get("decoupled_weight_decay")
        return UpdateRule(
            "adamw" if decoupled else "adam",
            weight_decay=group["weight_decay"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
        )
    return None


def why_no_rule(optimizer: optim.Optimizer) -> str | None:
    """Return why an optimizer has no built-in rule, or None."""
    count = len(optimizer.param_groups)
    if count != 1:
        return f"it has one rule for all parameters, and the optimizer has {count} groups of them"
    if has_step_hooks(optimizer):
        return "it has a rule of its own for the update, and the optimizer has step hooks"
    if update_rule(optimizer) is None:
        return f"it has no {type(optimizer).__name__} with these options"
    return None


def plain_rate(optimizer: optim.Optimizer) -> float | None:
    """Return the learning rate of an SGD without momentum and decay; None for another optimizer.

    Its update is one multiplication and addition.
    """
    if type(optimizer) is not optim.SGD or len(optimizer.param_groups) != 1:
        return None
    if has_step_hooks(optimizer):
        return None
    (group,) = optimizer.param_groups
    is_plain = not (group["momentum"] or group["weight_decay"] or group["maximize"])
    return float(group["lr"]) if is_plain else None


def is_elementwise(optimizer: optim.Optimizer) -> bool:
    """Return True if an optimizer is known to update each weight by its own gradient alone."""
    is_known = type(optimizer) in (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop)
    return is_known and not has_step_hooks(optimizer)
