"""Model families: ordinary modules, their layers named fc1, conv1, … in order, the output layer last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import ModelFamily, UsageError

if TYPE_CHECKING:
    from torch import nn

Width = Annotated[int, Field(ge=1)]


class Mlp(ModelFamily):
    """A fully connected ReLU network with hidden layers of any widths."""

    use = "mlp"
    formula = "inputs - hidden… - classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    hidden: list[Width] = [300, 100]
    """Units of each hidden layer, from the input on; empty: a linear classifier."""
    bias: bool = True
    """Whether layers have biases. Biases are trained, never pruned."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _mlp(shape, self.hidden, classes, self.bias)


class LeNet300100(ModelFamily):
    """LeNet-300-100: the fully connected network of the lottery-ticket papers."""

    use = "lenet_300_100"
    formula = "inputs - 300 - 100 - classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _mlp(shape, [300, 100], classes)


class Conv2(ModelFamily):
    """Conv-2: two 3×3 convolutions, one pooling, three fully connected layers."""

    use = "conv2"
    formula = "64, 64, pool; 256, 256, classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64], classes)


class Conv4(ModelFamily):
    """Conv-4: two pairs of 3×3 convolutions, each with a pooling, three fully connected layers."""

    use = "conv4"
    formula = "64, 64, pool, 128, 128, pool; 256, 256, classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64, 128], classes)


class Conv6(ModelFamily):
    """Conv-6: three pairs of 3×3 convolutions, each with a pooling, three fully connected layers."""

    use = "conv6"
    formula = "64, 64, pool, 128, 128, pool, 256, 256, pool; 256, 256, classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64, 128, 256], classes)


def _mlp(shape: tuple[int, ...], hidden: Sequence[int], classes: int, bias: bool = True) -> nn.Module:
    from torch import nn

    return nn.Sequential(_fully_connected([prod(shape), *hidden, classes], bias))


def _conv_net(use: str, shape: tuple[int, ...], blocks: Sequence[int], classes: int) -> nn.Module:
    """Two convolutions and a pooling for each block, then 256-256-classes. Raises UsageError for unfit inputs."""
    from torch import nn

    shrunk = [side // 2 ** len(blocks) for side in shape[1:]]
    if len(shape) != 3 or not all(shrunk):
        least = 2 ** len(blocks)
        raise UsageError(f"{use} reads images [channels, height, width] of at least {least}×{least}, not {list(shape)}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = [shape[0], *(width for width in blocks for _ in range(2))]
    for number, (inputs, outputs) in enumerate(pairwise(channels), 1):
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        layers[f"conv_relu{number}"] = nn.ReLU()
        if number % 2 == 0:
            layers[f"pool{number // 2}"] = nn.MaxPool2d(2)
    return nn.Sequential(layers | _fully_connected([channels[-1] * prod(shrunk), 256, 256, classes]))


def _fully_connected(sizes: Sequence[int], bias: bool = True) -> OrderedDict[str, nn.Module]:
    """Flattens, then a Linear from each size to the next, with a ReLU between any two."""
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        if number > 1:
            layers[f"fc_relu{number - 1}"] = nn.ReLU()
        layers[f"fc{number}"] = nn.Linear(inputs, outputs, bias=bias)
    return layers
