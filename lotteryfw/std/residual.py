"""The modules that residual networks are made of.

Imported where one is built, since it needs torch when it is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu


class BasicBlock(nn.Module):
    """relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x)), the second ReLU after the sum."""

    rectifies = True
    """A ReLU is the last thing that it does; where not, the first."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        # option B of the paper: a projection where the shape changes, and only there
        if stride > 1 or inputs != outputs:
            projection = _conv(inputs, outputs, 1, stride)
            norm = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        within = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(within)) + self.shortcut(x))


class PreactivationBlock(nn.Module):
    """conv2(relu(norm2(conv1(a)))) + x with a = relu(norm1(x)).

    Where channels or size change, shortcut(a) stands in for x.
    """

    rectifies = False

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        # without a norm of its own: it reads what norm1 and the ReLU have made already
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.norm1(x))
        within: Tensor = self.conv2(relu(self.norm2(self.conv1(active))))
        return within + (x if self.shortcut is None else self.shortcut(active))


def resnet(
    block: type[BasicBlock] | type[PreactivationBlock],
    channels: Sequence[int],
    blocks: Sequence[int],
    classes: int,
    bias: bool,
) -> nn.Module:
    """Build a 3×3 convolution, stages of blocks, the mean over the image, and the output layer.

    Each stage but the first halves the image. `channels`: of the image, of the convolution, and of
    each stage. `blocks`: how many each stage has.
    """
    image, stem, *stages = channels
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=_conv(image, stem, 3))
    # a pre-activation block begins with norm and ReLU itself
    if block.rectifies:
        layers |= {"norm1": nn.BatchNorm2d(stem), "relu1": nn.ReLU()}
    inputs = stem
    for number, (outputs, count) in enumerate(zip(stages, blocks, strict=True), 1):
        stage: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(1, count + 1):
            # the first block of a stage halves the image, but not in the first stage
            stride = 2 if number > 1 and index == 1 else 1
            stage[f"block{index}"] = block(inputs, outputs, stride)
            inputs = outputs
        layers[f"stage{number}"] = nn.Sequential(stage)
    # the sum that the last pre-activation block returns is neither normalised nor rectified
    if not block.rectifies:
        layers |= {"norm": nn.BatchNorm2d(inputs), "relu": nn.ReLU()}
    layers |= {
        "mean": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(inputs, classes, bias=bias),
    }
    return nn.Sequential(layers)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    # no bias, as a batch norm follows, at the latest at the end
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
