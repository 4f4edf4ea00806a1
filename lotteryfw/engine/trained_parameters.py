"""The tensors that an optimizer trains, their names, and the options of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError
from lotteryfw.api.layers import UpdateFactors

_SCORES = "scores/"
"""Stands before the layer's name in that of its scores, where weights are trained, too."""
NO_CHANGE = UpdateFactors()


def weights_and_scores(
    weights: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return both in one dict, as an optimizer is given them: "fc1.weight", "scores/fc1.weight"."""
    both = dict(weights)
    for name, value in scores.items():
        both[f"{_SCORES}{name}"] = value
    return both


def split_name(name: str) -> tuple[str, bool]:
    """Return the name of a parameter or layer, and True if it is that of scores."""
    return name.removeprefix(_SCORES), name.startswith(_SCORES)


def regroup(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    factors_of: Callable[[str], UpdateFactors],
    what: str,
) -> None:
    """Split the groups of an optimizer by the factors of their parameters, and apply these.

    The order of the groups, and so of the optimizer's state, follows from names and factors alone.
    Raises ContractError for a factor that is negative or not finite; `what` names its author.
    """
    names = {id(value): name for name, value in parameters.items()}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        parts: dict[UpdateFactors, list[Tensor]] = {}
        for parameter in group["params"]:
            factors = _checked(factors_of(names[id(parameter)]), what)
            parts.setdefault(factors, []).append(parameter)
        for factors, members in parts.items():
            options = {**group, "params": members}
            if factors != NO_CHANGE:
                options["lr"] = group["lr"] * factors.learning_rate
                # Not every optimizer has weight decay, and a factor of nothing is nothing.
                if "weight_decay" in group:
                    options["weight_decay"] = group["weight_decay"] * factors.weight_decay
            groups.append(options)
    optimizer.param_groups[:] = groups


def _checked(factors: object, what: str) -> UpdateFactors:
    if isinstance(factors, UpdateFactors) and all(map(_is_factor, factors)):
        return factors
    raise ContractError(
        f"{what} returned {factors!r}; UpdateFactors of finite numbers, none of them negative, "
        "belong there"
    )


def _is_factor(value: float) -> bool:
    return isfinite(value) and value >= 0
