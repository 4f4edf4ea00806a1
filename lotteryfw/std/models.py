"""Model families that are chains: layers named fc1, conv1, … in order, the output layer last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from lotteryfw import ModelFamily, UsageError

if TYPE_CHECKING:
    from torch import nn

Bias = Annotated[bool, Field(description="True: layers have biases. Biases are never pruned.")]
OutputBias = Annotated[
    bool, Field(description="True: the output layer has biases; the others have none.")
]
Affine = Annotated[
    bool,
    Field(
        description="True: batch norm has a scale and a shift to train; false: it only normalises."
    ),
]
NormScale = Annotated[
    Literal["ones", "uniform"],
    Field(
        description="The scale that batch norm starts with: 1, or a draw from U[0, 1] per channel."
    ),
]
Width = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        description="Multiplies the units of every layer but the output (rounded, at least 1).",
    ),
]


class Mlp(ModelFamily):
    """A fully connected ReLU network with hidden layers of any widths."""

    use = "mlp"
    formula = "inputs - hidden… - classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    hidden: list[Annotated[int, Field(ge=1)]] = [300, 100]
    """Units of each hidden layer, from the input on; empty: a linear classifier."""
    bias: Bias = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _mlp(shape, self.hidden, classes, self.bias)


class LeNet300100(ModelFamily):
    """LeNet-300-100: the fully connected network of the lottery-ticket papers."""

    use = "lenet_300_100"
    formula = "inputs - 300 - 100 - classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    bias: Bias = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _mlp(shape, [300, 100], classes, self.bias)


class Conv2(ModelFamily):
    """Conv-2: two 3×3 convolutions, one pooling, three fully connected layers."""

    use = "conv2"
    formula = "64, 64, pool; 256, 256, classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    bias: Bias = True
    width: Width = 1.0

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64], classes, self.bias, self.width)


class Conv4(ModelFamily):
    """Conv-4: two pairs of 3×3 convolutions, each with a pooling, three fully connected layers."""

    use = "conv4"
    formula = "64, 64, pool, 128, 128, pool; 256, 256, classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    bias: Bias = True
    width: Width = 1.0

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64, 128], classes, self.bias, self.width)


class Conv6(ModelFamily):
    """Conv-6: three pairs of 3×3 convolutions, each with a pooling, three dense layers."""

    use = "conv6"
    formula = "64, 64, pool, 128, 128, pool, 256, 256, pool; 256, 256, classes"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"

    bias: Bias = True
    width: Width = 1.0

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64, 128, 256], classes, self.bias, self.width)


class Conv8(ModelFamily):
    """Conv-8: four pairs of 3×3 convolutions, each with a pooling, three fully connected layers."""

    use = "conv8"
    formula = "64, 64, pool, 128, 128, pool, 256, 256, pool, 512, 512, pool; 256, 256, classes"
    source = (
        "Ramanujan et al. 2020, What's Hidden in a Randomly Weighted Neural Network?, section 4.1"
    )

    bias: Bias = True
    width: Width = 1.0

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv_net(self.use, shape, [64, 128, 256, 512], classes, self.bias, self.width)


class _Vgg(ModelFamily):
    """VGG networks for small images: one dense layer after the poolings, batch norm everywhere."""

    depths: ClassVar[tuple[int, ...]]
    """Convolutions in each of the five stages."""

    bias: OutputBias = True
    width: Width = 1.0
    affine: Affine = True
    norm_scale: NormScale = "ones"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        from lotteryfw.std.norms import set_norms

        network = _vgg(self.use, shape, self.depths, classes, self.bias, self.width)
        # every convolution has its norm here, and only here do options change it
        set_norms(network, self.affine, self.norm_scale)
        return network


class Vgg11(_Vgg):
    """VGG-11 for small images: 8 convolutions with batch norm, 5 poolings, 1 dense layer."""

    use = "vgg11"
    formula = "64, pool, 128, pool, 2 × 256, pool, 2 × 512, pool, 2 × 512, pool; classes"
    source = (
        "Simonyan & Zisserman 2015, Very Deep Convolutional Networks, table 1, A, "
        "with one layer after the pools"
    )
    depths = (1, 1, 2, 2, 2)


class Vgg13(_Vgg):
    """VGG-13 for small images: 10 convolutions with batch norm, 5 poolings, 1 dense layer."""

    use = "vgg13"
    formula = "2 × 64, pool, 2 × 128, pool, 2 × 256, pool, 2 × 512, pool, 2 × 512, pool; classes"
    source = (
        "Simonyan & Zisserman 2015, Very Deep Convolutional Networks, table 1, B, "
        "with one layer after the pools"
    )
    depths = (2, 2, 2, 2, 2)


class Vgg16(_Vgg):
    """VGG-16 for small images: 13 convolutions with batch norm, 5 poolings, 1 dense layer."""

    use = "vgg16"
    formula = "2 × 64, pool, 2 × 128, pool, 3 × 256, pool, 3 × 512, pool, 3 × 512, pool; classes"
    source = (
        "Simonyan & Zisserman 2015, Very Deep Convolutional Networks, table 1, D, "
        "with one layer after the pools"
    )
    depths = (2, 2, 3, 3, 3)


class Vgg19(_Vgg):
    """VGG-19 for small images: 16 convolutions with batch norm, 5 poolings, 1 dense layer."""

    use = "vgg19"
    formula = "2 × 64, pool, 2 × 128, pool, 4 × 256, pool, 4 × 512, pool, 4 × 512, pool; classes"
    source = (
        "Simonyan & Zisserman 2015, Very Deep Convolutional Networks, table 1, E, "
        "with one layer after the pools"
    )
    depths = (2, 2, 4, 4, 4)


def scaled(units: int, width: float) -> int:
    """Return `units` times `width`, rounded, and at least 1."""
    return max(1, round(units * width))


def check_images(use: str, shape: tuple[int, ...], least: int = 1) -> None:
    """Raise UsageError for inputs that are no images with sides of at least `least` pixels."""
    if len(shape) != 3 or min(shape[1:]) < least:
        raise UsageError(
            f"{use} reads images [channels, height, width] of at least {least}×{least}, "
            f"not {list(shape)}"
        )


def _mlp(shape: tuple[int, ...], hidden: Sequence[int], classes: int, bias: bool) -> nn.Module:
    from torch import nn

    return nn.Sequential(_fully_connected([prod(shape), *hidden, classes], bias))


def _conv_net(
    use: str, shape: tuple[int, ...], pairs: Sequence[int], classes: int, bias: bool, width: float
) -> nn.Module:
    """Build two convolutions and a pooling for each of `pairs`, then 256-256-classes."""
    from torch import nn

    # no batch norm: the networks of the first paper have none
    stages = [[scaled(units, width)] * 2 for units in pairs]
    convolutions, features = _convolutions(use, shape, stages, bias, norm=False)
    hidden = scaled(256, width)
    return nn.Sequential(convolutions | _fully_connected([features, hidden, hidden, classes], bias))


def _vgg(
    use: str,
    shape: tuple[int, ...],
    depths: Sequence[int],
    classes: int,
    bias: bool,
    width: float,
) -> nn.Module:
    """Build five stages of so many convolutions, each with a pooling, then the output layer."""
    from torch import nn

    stages: list[list[int]] = []
    for units, depth in zip([64, 128, 256, 512, 512], depths, strict=True):
        stages.append([scaled(units, width)] * depth)
    # no biases, which the batch norm after each convolution would subtract again
    convolutions, features = _convolutions(use, shape, stages, bias=False, norm=True)
    return nn.Sequential(convolutions | _fully_connected([features, classes], bias))


def _convolutions(
    use: str,
    shape: tuple[int, ...],
    stages: Sequence[Sequence[int]],
    bias: bool,
    norm: bool,
) -> tuple[OrderedDict[str, nn.Module], int]:
    """Build stages of 3×3 convolutions with ReLUs, each stage with a pooling at its end.

    `stages` are the numbers of channels. `norm`: with a batch norm between convolution and ReLU.
    Returns the layers, and how many numbers come out of the last.
    """
    from torch import nn

    check_images(use, shape, least=2 ** len(stages))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number, inputs = 0, shape[0]
    for stage, channels in enumerate(stages, 1):
        for outputs in channels:
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(
                inputs, outputs, kernel_size=3, padding=1, bias=bias
            )
            if norm:
                layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
            layers[f"conv_relu{number}"] = nn.ReLU()
            inputs = outputs
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    # each pooling halves a side and drops an odd pixel: halving often and dividing once agree
    shrinkage = 2 ** len(stages)
    return layers, inputs * prod(side // shrinkage for side in shape[1:])


def _fully_connected(sizes: Sequence[int], bias: bool) -> OrderedDict[str, nn.Module]:
    """Build a flattening and a Linear from each size to the next, with ReLUs in between."""
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        if number > 1:
            layers[f"fc_relu{number - 1}"] = nn.ReLU()
        layers[f"fc{number}"] = nn.Linear(inputs, outputs, bias=bias)
    return layers
