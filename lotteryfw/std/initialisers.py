"""Initialisers: the draws of Linear and Conv weights. Biases start at zero unless stated."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import Initialiser, LayerInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Mode = Annotated[
    Literal["fan_in", "fan_out"],
    Field(description="Keep the variance of the signal (fan_in) or of its gradient (fan_out)."),
]


class GlorotNormal(Initialiser):
    """Glorot (Xavier) normal: the papers' choice for the small networks."""

    use = "glorot_normal"
    formula = "N(0, 2 / (fan_in + fan_out))"
    source = (
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural "
        "networks, section 4.2"
    )
    default = True

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return _normal(layer.shape, sqrt(2 / (layer.fan_in + layer.fan_out)), rng)


class GlorotUniform(Initialiser):
    """Glorot (Xavier) uniform."""

    use = "glorot_uniform"
    formula = "U(±sqrt(6 / (fan_in + fan_out)))"
    source = (
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural "
        "networks, section 4.2"
    )

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return _uniform(layer.shape, sqrt(6 / (layer.fan_in + layer.fan_out)), rng)


class KaimingNormal(Initialiser):
    """Kaiming (He) normal, for ReLU networks."""

    use = "kaiming_normal"
    formula = "N(0, 2 / fan)"
    source = "He et al. 2015, Delving Deep into Rectifiers, section 2.2"

    mode: Mode = "fan_in"

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return _normal(layer.shape, sqrt(2 / getattr(layer, self.mode)), rng)


class KaimingUniform(Initialiser):
    """Kaiming (He) uniform, for ReLU networks."""

    use = "kaiming_uniform"
    formula = "U(±sqrt(6 / fan))"
    source = "He et al. 2015, Delving Deep into Rectifiers, section 2.2"

    mode: Mode = "fan_in"

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return _uniform(layer.shape, sqrt(6 / getattr(layer, self.mode)), rng)


class SignedConstant(Initialiser):
    """One magnitude for the whole layer, a random sign for each weight."""

    use = "signed_constant"
    formula = "±sqrt(2 / fan_in)"
    source = "Ramanujan et al. 2020, What's Hidden in a Randomly Weighted Neural Network?"

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        # the deviation of kaiming_normal as the one magnitude: "signed Kaiming constant"
        return (torch.randint(2, layer.shape, generator=rng) * 2 - 1) * sqrt(2 / layer.fan_in)


class Constant(Initialiser):
    """One value everywhere: for scores that are to start equal."""

    use = "constant"
    formula = "value"
    source = "PyTorch, torch.nn.init.constant_"

    value: float = 1.0
    """The value that everything starts at."""

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        import torch

        return torch.full(layer.shape, self.value)


class PytorchDefault(Initialiser):
    """Draws as PyTorch's own Linear and Conv layers do, biases included."""

    use = "pytorch_default"
    formula = "U(±1 / sqrt(fan_in)), biases alike"
    source = "PyTorch, torch.nn.Linear and torch.nn.Conv2d"

    def weight(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        # PyTorch writes it as kaiming_uniform_(a=sqrt(5)): sqrt(6 / ((1 + 5) fan_in))
        return _uniform(layer.shape, 1 / sqrt(layer.fan_in), rng)

    def bias(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        return _uniform(layer.shape[:1], 1 / sqrt(layer.fan_in), rng)


def _normal(shape: tuple[int, ...], std: float, rng: torch.Generator) -> Tensor:
    import torch

    return torch.randn(shape, generator=rng) * std


def _uniform(shape: tuple[int, ...], bound: float, rng: torch.Generator) -> Tensor:
    import torch

    return (torch.rand(shape, generator=rng) * 2 - 1) * bound
