"""Optimizers: torch's own, in their fused form, which updates all parameters in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from lotteryfw import Optimizer, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LearningRate = Annotated[
    float, Field(gt=0, description="Learning rate, before the schedule's factor.")
]
Share = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, description="Added to the denominator.")]
NotNegative = Annotated[float, Field(ge=0)]
BIAS, NORM = "bias", "norm"
"""Classes of parameters that `no_decay` may name."""
NoDecay = Annotated[
    list[str],
    Field(
        description='Parameters without weight decay: names, patterns with *, "bias" for all '
        'biases, "norm" for the scales of norm layers (other parameters of one dimension).'
    ),
]


class Sgd(Optimizer):
    """Stochastic gradient descent, with or without momentum."""

    use = "sgd"
    formula = "v ← momentum v + (1 - dampening) g;  w ← w - lr v"
    source = "PyTorch, torch.optim.SGD"

    lr: LearningRate
    momentum: Share = 0.0
    """Share of the last update that is carried on."""
    nesterov: bool = False
    """Take the gradient's step from where the momentum leads."""
    weight_decay: NotNegative = 0.0
    """Times the weight, added to its gradient."""
    no_decay: NoDecay = []
    dampening: Share = 0.0
    """Share of the gradient that does not enter the momentum."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Sgd:
        # torch's own condition, reported with the recipe and not when the first training begins
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov = true needs a momentum above 0 and a dampening of 0")
        return self

    def idle_options(self) -> dict[str, str]:
        idle = _idle_patterns(self.weight_decay)
        if self.momentum == 0:
            idle["dampening"] = "momentum is 0"
        return idle

    def build(self, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(
            groups(parameters, self.no_decay, self.weight_decay, self.use),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            dampening=self.dampening,
            **_in_one_call(parameters),
        )


class Adam(Optimizer):
    """Adam; weight decay, if any, is part of the gradient."""

    use = "adam"
    formula = "w ← w - lr m̂ / (sqrt(v̂) + eps)"
    source = "Kingma & Ba 2015, Adam: A Method for Stochastic Optimization"

    lr: LearningRate = 1e-3
    beta1: Share = 0.9
    """Decay of the running mean of the gradient."""
    beta2: Share = 0.999
    """Decay of the running mean of its square."""
    eps: Epsilon = 1e-8
    weight_decay: NotNegative = 0.0
    """Times the weight, added to its gradient."""
    no_decay: NoDecay = []

    def idle_options(self) -> dict[str, str]:
        return _idle_patterns(self.weight_decay)

    def build(self, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.Adam(
            groups(parameters, self.no_decay, self.weight_decay, self.use),
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            **_in_one_call(parameters),
        )


class AdamW(Optimizer):
    """Adam with weight decay apart from the gradient."""

    use = "adamw"
    formula = "w ← (1 - lr weight_decay) w - lr m̂ / (sqrt(v̂) + eps)"
    source = "Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization"

    lr: LearningRate = 1e-3
    beta1: Share = 0.9
    """Decay of the running mean of the gradient."""
    beta2: Share = 0.999
    """Decay of the running mean of its square."""
    eps: Epsilon = 1e-8
    weight_decay: NotNegative = 0.01
    """Share of a weight that is taken off it at each step, times the learning rate."""
    no_decay: NoDecay = []

    def idle_options(self) -> dict[str, str]:
        return _idle_patterns(self.weight_decay)

    def build(self, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(
            groups(parameters, self.no_decay, self.weight_decay, self.use),
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            **_in_one_call(parameters),
        )


class RmsProp(Optimizer):
    """RMSprop: the gradient divided by a running mean of its magnitude."""

    use = "rmsprop"
    formula = "w ← w - lr g / (sqrt(v) + eps)"
    source = "Tieleman & Hinton 2012, Neural Networks for Machine Learning, lecture 6.5"

    lr: LearningRate = 1e-2
    alpha: Share = 0.99
    """Decay of the running mean of the squared gradient."""
    eps: Epsilon = 1e-8
    weight_decay: NotNegative = 0.0
    """Times the weight, added to its gradient."""
    momentum: Share = 0.0
    """Share of the last update that is carried on."""
    centered: bool = False
    """Divide by the running standard deviation instead of the root mean square."""

    def build(self, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        import torch

        # foreach, as torch has no fused form of it
        return torch.optim.RMSprop(
            parameters.values(),
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            centered=self.centered,
            foreach=True,
        )


def _idle_patterns(weight_decay: float) -> dict[str, str]:
    return {"no_decay": "weight_decay is 0"} if weight_decay == 0 else {}


def groups(
    parameters: Mapping[str, Tensor], no_decay: Sequence[str], weight_decay: float, use: str
) -> list[Any]:
    """Return what torch builds an optimizer over: two groups if some weights do not decay.

    Raises UsageError for a pattern that names no parameter.
    """
    for pattern in no_decay:
        is_class = pattern in (BIAS, NORM)
        if not is_class and not any(
            _matches(name, value, pattern) for name, value in parameters.items()
        ):
            raise UsageError(
                f"optimizer '{use}': no_decay: no parameter is called '{pattern}'; this network "
                f"has {', '.join(parameters)}"
            )
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for name, value in parameters.items():
        is_exempt = any(_matches(name, value, pattern) for pattern in no_decay)
        (others if is_exempt else decaying).append(value)
    # one group where both are alike, as without the option: fast kernels have one rule
    if weight_decay == 0 or not others:
        return list(parameters.values())
    without_decay = {"params": others, "weight_decay": 0.0}
    return [{"params": decaying}, without_decay] if decaying else [without_decay]


def _matches(name: str, value: Tensor, pattern: str) -> bool:
    is_bias = name.rpartition(".")[2] == BIAS
    if pattern == BIAS:
        return is_bias
    if pattern == NORM:
        # the scales of batch, layer and group norm; weights of other layers have two dimensions
        return value.dim() <= 1 and not is_bias
    return fnmatchcase(name, pattern)


def _in_one_call(parameters: Mapping[str, Tensor]) -> dict[str, bool]:
    """Fused where torch has that, else foreach."""
    # one call for all tensors: on networks this small the calls cost more than the arithmetic
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters.values())
    return {"fused": True} if fused else {"foreach": True}
