"""A network without the units that its masks prove dead: same outputs, same gradients.

A unit is a row of a Linear layer or a channel of a Conv2d. It goes where nothing reads it, for then its parameters have
no gradient; and where it is 0 for every input, for then nothing can tell that it is read, and it learns nothing either:

- its living weights, if any, come from units that are 0, and
- it has no bias, or one that a ReLU cuts off (bias <= 0: the slope of torch's ReLU at 0 is 0).

A positive bias makes it a constant that trains, so it stays. Signs are looked at before every step, since momentum or
decay can push a bias that has no gradient across 0: exactness hangs on no optimizer. A weight that is frozen at
anything but 0 counts as a living one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lotteryfw.engine.kernels.chain import change_of, unfit_parameter

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A Linear or Conv2d layer: its parameters' names, how often an input uses each weight, whether a ReLU follows."""

    weight: str
    bias: str | None
    uses: int
    is_rectified: bool


def layers_of(module: nn.Module, shape: Sequence[int]) -> list[Layer] | str:
    """The layers of a network that can be shrunk, for inputs of `shape` (one example's), or why it is none such.

    It is an `nn.Sequential` (of Sequentials) of Conv2d without groups, MaxPool2d, Flatten, Linear, ReLU and Identity,
    convolutions before the Flatten and Linear layers after it. Its modules do what torch's do and nothing else.
    """
    import torch
    from torch import nn

    if type(module) is not nn.Sequential:
        return f"the network is a {type(module).__name__}, no nn.Sequential"
    like = next(module.parameters(), torch.empty(0))
    x = like.new_zeros(1, *shape)  # one example, passed through to learn the sizes on its way
    layers: list[Layer] = []
    for path, part in module.named_modules(
        remove_duplicate=False
    ):  # in the order of the calls, repeats included
        if change := change_of(part):
            return f"the network has a {type(part).__name__} with {change} at '{path}'"
        if type(part) is nn.Sequential:  # a subclass may have any forward
            continue
        if what := _unfit(part, x.dim()):
            return f"dead units are told in plain convolutional and linear networks only (it has {what} at '{path}')"
        try:
            x = part(x.detach())
        except RuntimeError as error:
            return (
                f"the network's {type(part).__name__} at '{path}' cannot take its inputs: {error}"
            )
        if isinstance(part, nn.Linear | nn.Conv2d):
            bias = None if part.bias is None else f"{path}.bias"
            layers.append(Layer(f"{path}.weight", bias, x[0, 0].numel(), is_rectified=False))
        elif type(part) is nn.ReLU and layers:
            layers[-1] = replace(layers[-1], is_rectified=True)
    return unfit_parameter(module) or layers or "the network has no Linear or Conv2d layer"


def _unfit(part: nn.Module, dimensions: int) -> str | None:
    """What a module is, whose inputs have so many dimensions, that lets no unit be told from the others; else None."""
    from torch import nn

    needs = {nn.Linear: 2, nn.Conv2d: 4, nn.MaxPool2d: 4}
    if type(part) not in (nn.Identity, nn.ReLU, nn.Flatten, *needs):
        return f"a {type(part).__name__}"
    if needs.get(type(part), dimensions) != dimensions:
        return f"a {part} for inputs of {dimensions} dimensions"
    if isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) != (1, -1):
        return f"a {part}"
    if isinstance(part, nn.Conv2d) and part.groups > 1:
        return f"a Conv2d of {part.groups} groups"
    if isinstance(part, nn.MaxPool2d) and part.return_indices:
        return "a MaxPool2d that returns indices"
    return None


class Shrunk:
    """The parameters of a network's living part, cut out of all of them anew before every step.

    parameters: every parameter, by name, as the optimizer holds it; mask: bool by name, True = alive. Autograd carries
    gradients back to the whole parameters, with exact zeros for what was left out: so decay, momentum and checkpoints
    know nothing of it. Works for any float dtype on any device.
    """

    def __init__(
        self, layers: Sequence[Layer], parameters: Mapping[str, Tensor], mask: Mapping[str, Tensor]
    ):
        import torch

        self._layers, self._whole = layers, parameters
        self._reads: list[Tensor] = []
        below = 1  # inputs are never left out, they count as one: to choose among a batch's costs what it saves
        for layer in layers:
            weight = parameters[layer.weight].detach()
            alive = (
                mask[layer.weight]
                if layer.weight in mask
                else torch.ones_like(weight, dtype=torch.bool)
            )
            living = alive.to(weight.device) | (weight != 0)
            self._reads.append(living.reshape(len(weight), below, -1).any(2))
            below = len(weight)
        self._plan()

    def parameters(self) -> dict[str, Tensor]:
        """The living part of every parameter by name, differentiable in the whole ones. No layer is ever empty: of one
        that is dead altogether one unit stays, for torch has no convolution without channels."""
        import torch

        if any(
            not bool(signs.equal(self._signs(bias, place))) for bias, place, signs in self._watched
        ):
            self._plan()
        small = {}
        units, below = 0, None
        for layer, rows in zip(self._layers, self._rows, strict=True):
            weight = _taken(self._whole[layer.weight], 0, rows)
            if below is not None:  # a flattened channel is several columns side by side
                weight = _taken(torch.unflatten(weight, 1, (units, -1)), 1, below).flatten(1, 2)
            small[layer.weight] = weight
            if layer.bias:
                small[layer.bias] = _taken(self._whole[layer.bias], 0, rows)
            units, below = len(self._whole[layer.weight]), rows
        return small

    def work(self) -> float:
        """Multiply-adds that are left, over those of the whole network."""
        small = self.parameters()
        left, whole = (
            sum(layer.uses * of[layer.weight].numel() for layer in self._layers)
            for of in (small, self._whole)
        )
        return left / whole

    def _plan(self) -> None:
        """Settles what is left out: from the inputs on who can be other than 0, then from the outputs back who is read.

        Once is enough: a unit that something living reads is fed by what is itself read, and so stays.
        """
        import torch

        active = self._active()
        kept = [torch.ones_like(active[-1])]
        for alive, reads in zip(active[-2::-1], self._reads[:0:-1], strict=True):
            kept.insert(0, alive & reads[kept[0]].any(0))
        for units in kept:
            units[0] |= ~units.any()
        self._rows = [None if bool(units.all()) else units.nonzero().flatten() for units in kept]

    def _active(self) -> list[Tensor]:
        """Which units of each layer may be other than 0 now; notes the biases that this hangs on."""
        import torch

        active: list[Tensor] = []
        self._watched: list[tuple[str, Tensor, Tensor]] = []
        for layer, reads in zip(self._layers, self._reads, strict=True):
            units = (reads & active[-1]).any(1) if active else reads.any(1)
            if layer.bias and layer.is_rectified:
                unfed = (~units).nonzero().flatten()
                signs = self._signs(layer.bias, unfed)
                units[unfed] = signs
                if len(unfed):
                    self._watched.append((layer.bias, unfed, signs))
            active.append(
                torch.ones_like(units) if layer.bias and not layer.is_rectified else units
            )
        return active

    def _signs(self, bias: str, place: Tensor) -> Tensor:
        """Which of a layer's biases lift a unit above 0."""
        return ~(self._whole[bias].detach()[place] <= 0)  # not a number does


def _taken(tensor: Tensor, dimension: int, place: Tensor | None) -> Tensor:
    return tensor if place is None else tensor.index_select(dimension, place)
