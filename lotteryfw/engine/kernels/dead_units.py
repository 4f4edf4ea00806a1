"""A network without the units that its masks prove dead: same outputs, same gradients.

A unit is a row of a Linear layer or a channel of a Conv2d. It is left out where nothing reads it,
since its parameters then have no gradient; and where it is 0 for every input, since its readers then
do not depend on it, and it learns nothing either:

- its living weights, if any, come from units that are 0, and
- it has no bias, or one that a ReLU cuts off (bias <= 0: the derivative of torch's ReLU at 0 is 0).

A positive bias makes it a constant that trains, so it stays. Signs are looked at before every step,
since momentum or decay can push a bias that has no gradient across 0: the result is exact under
every optimizer. A weight that is frozen at anything but 0 counts as a living one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lotteryfw.engine.kernels.mlp import change_of, unfit_parameter


@dataclass(frozen=True)
class ShrinkableLayer:
    """A Linear or Conv2d layer."""

    weight: str
    """The name of its weight."""
    bias: str | None
    uses: int
    """How often one input uses each weight."""
    is_rectified: bool
    """True where a ReLU follows."""


def shrinkable_layers(module: nn.Module, shape: Sequence[int]) -> list[ShrinkableLayer] | str:
    """Return the layers of a network whose units can be left out, or why there are none.

    `shape` is that of one input. The network must be an `nn.Sequential` (of Sequentials) of Conv2d
    without groups, MaxPool2d, Flatten, Linear, ReLU and Identity, with convolutions before the
    Flatten and Linear layers after it. Its modules do what torch's do and nothing else.
    """
    if type(module) is not nn.Sequential:
        return f"the network is a {type(module).__name__}, no nn.Sequential"
    like = next(module.parameters(), torch.empty(0))
    # One example is passed through to learn the sizes on its way.
    # Zeros of the parameters' own type and device, so that the pass costs no copy.
    x = like.new_zeros(1, *shape)
    layers: list[ShrinkableLayer] = []
    # In the order of the calls, repeats included.
    for path, part in module.named_modules(remove_duplicate=False):
        if change := change_of(part):
            return f"the network has a {type(part).__name__} with {change} at '{path}'"
        # The type itself is compared, since a subclass may have any forward.
        if type(part) is nn.Sequential:
            continue
        if unfit := _unfit_module(part, x.dim()):
            return (
                "dead units are known in plain convolutional and linear networks only "
                f"(it has {unfit} at '{path}')"
            )
        try:
            x = part(x.detach())
        except RuntimeError as error:
            return (
                f"the network's {type(part).__name__} at '{path}' cannot take its inputs: {error}"
            )
        if isinstance(part, nn.Linear | nn.Conv2d):
            bias = None if part.bias is None else f"{path}.bias"
            uses = x[0, 0].numel()
            layers.append(ShrinkableLayer(f"{path}.weight", bias, uses, is_rectified=False))
        elif type(part) is nn.ReLU and layers:
            layers[-1] = replace(layers[-1], is_rectified=True)
    return unfit_parameter(module) or layers or "the network has no Linear or Conv2d layer"


def _unfit_module(part: nn.Module, dimensions: int) -> str | None:
    """Return what a module is that does not treat units separately; None for one that does.

    `dimensions` are those of its inputs.
    """
    dimensions_needed = {nn.Linear: 2, nn.Conv2d: 4, nn.MaxPool2d: 4}
    if type(part) not in (nn.Identity, nn.ReLU, nn.Flatten, *dimensions_needed):
        return f"a {type(part).__name__}"
    if dimensions_needed.get(type(part), dimensions) != dimensions:
        return f"a {part} for inputs of {dimensions} dimensions"
    if isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) != (1, -1):
        return f"a {part}"
    if isinstance(part, nn.Conv2d) and part.groups > 1:
        return f"a Conv2d of {part.groups} groups"
    if isinstance(part, nn.MaxPool2d) and part.return_indices:
        return "a MaxPool2d that returns indices"
    return None


class LiveNetwork:
    """The parameters of the living part of a network, taken out of the whole before every step.

    `parameters`: every parameter, by name, as the optimizer holds it; `mask`: bool by name, True =
    alive. Autograd carries gradients back to the whole parameters, with exact zeros for those that
    were left out, so decay, momentum and checkpoints need not know of it. Works for any float dtype
    on any device.
    """

    def __init__(
        self,
        layers: Sequence[ShrinkableLayer],
        parameters: Mapping[str, Tensor],
        mask: Mapping[str, Tensor],
    ):
        self._layers = layers
        self._whole = parameters
        self._reads: list[Tensor] = []
        # Inputs are never left out, they count as one: choosing among those of a batch costs as
        # much as it saves.
        units_below = 1
        for layer in layers:
            weight = parameters[layer.weight].detach()
            # A masked weight that is frozen at another value than 0 passes a signal, so it lives.
            living = weight != 0
            if layer.weight in mask:
                living |= mask[layer.weight].to(weight.device)
            else:
                living = torch.ones_like(living)
            self._reads.append(living.reshape(len(weight), units_below, -1).any(2))
            units_below = len(weight)
        self._plan()

    def parameters(self) -> dict[str, Tensor]:
        """Return the living part of every parameter by name, differentiable in the whole ones.

        No layer is ever empty: of one that is dead altogether one unit stays, since torch has no
        convolution without channels.
        """
        # Momentum can carry a bias across 0 without a gradient, so this is asked before each step.
        if self._signs_changed():
            self._plan()
        small = {}
        size_below, kept_below = 0, None
        for layer, kept in zip(self._layers, self._kept, strict=True):
            whole = self._whole[layer.weight]
            weight = _take(whole, 0, kept)
            if kept_below is not None:
                # A flattened channel is several columns side by side.
                weight = torch.unflatten(weight, 1, (size_below, -1))
                weight = _take(weight, 1, kept_below).flatten(1, 2)
            small[layer.weight] = weight
            if layer.bias:
                small[layer.bias] = _take(self._whole[layer.bias], 0, kept)
            size_below, kept_below = len(whole), kept
        return small

    def work(self) -> float:
        """Return the multiply-adds that remain, over those of the whole network."""
        small = self.parameters()
        remaining = sum(layer.uses * small[layer.weight].numel() for layer in self._layers)
        whole = sum(layer.uses * self._whole[layer.weight].numel() for layer in self._layers)
        return remaining / whole

    def _signs_changed(self) -> bool:
        watched = self._watched
        return any(not signs.equal(self._signs(bias, units)) for bias, units, signs in watched)

    def _plan(self) -> None:
        """Decide which units are kept.

        From the inputs on, it is found which units can be other than 0; then, from the outputs
        back, which of them are read. Once is enough: a unit that something living reads gets its
        input from units that are read themselves, and so stay.
        """
        active = self._active()
        kept = [torch.ones_like(active[-1])]
        for alive, reads in zip(active[-2::-1], self._reads[:0:-1], strict=True):
            kept.insert(0, alive & reads[kept[0]].any(0))
        self._kept: list[Tensor | None] = []
        for units in kept:
            # One unit stays in a layer that is dead altogether: there is no convolution of none.
            units[0] |= ~units.any()
            # None saves the copy of a layer that is kept whole.
            self._kept.append(None if bool(units.all()) else units.nonzero().flatten())

    def _active(self) -> list[Tensor]:
        """Return which units of each layer may be other than 0 now.

        The biases that this depends on are noted in `_watched`.
        """
        active: list[Tensor] = []
        self._watched: list[tuple[str, Tensor, Tensor]] = []
        for layer, reads in zip(self._layers, self._reads, strict=True):
            units = (reads & active[-1]).any(1) if active else reads.any(1)
            if layer.bias and layer.is_rectified:
                without_input = (~units).nonzero().flatten()
                signs = self._signs(layer.bias, without_input)
                units[without_input] = signs
                if len(without_input):
                    self._watched.append((layer.bias, without_input, signs))
            # Without a ReLU behind it, any bias but 0 passes, and it may leave 0 at the next step.
            elif layer.bias:
                units = torch.ones_like(units)
            active.append(units)
        return active

    def _signs(self, bias: str, units: Tensor) -> Tensor:
        """Return which biases of some units of a layer lift the unit above 0; NaN does."""
        # Written as a negation, so that NaN counts as alive and a diverged training shows.
        return ~(self._whole[bias].detach()[units] <= 0)


def _take(tensor: Tensor, dimension: int, indices: Tensor | None) -> Tensor:
    return tensor if indices is None else tensor.index_select(dimension, indices)
