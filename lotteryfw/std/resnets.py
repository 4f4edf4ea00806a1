"""Model families with residual connections, for images of about 32×32.

The output layer is named fc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from lotteryfw import ModelFamily
from lotteryfw.std.models import Affine, OutputBias, Width, check_images, scaled

if TYPE_CHECKING:
    from torch import nn


class ResNet20(ModelFamily):
    """ResNet-20 for small images, "Resnet-18" in the lottery-ticket papers: 3 stages of 3 blocks.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet20"
    formula = "3×3 conv 16; 3 × 3 blocks of two 3×3 convs, 16, 32, 64; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, shortcuts B"
    )

    width: Width = 1.0
    affine: Affine = True
    bias: OutputBias = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(self.use, shape)
        from lotteryfw.std.residual import BasicBlock, resnet

        channels = [scaled(units, self.width) for units in (16, 16, 32, 64)]
        return resnet(BasicBlock, [shape[0], *channels], 3, classes, self.affine, self.bias)


class ResNet18(ModelFamily):
    """ResNet-18, 64 channels wide, for small images: its stem is a 3×3 convolution without pooling.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet18"
    formula = "3×3 conv 64; 4 × 2 blocks of two 3×3 convs, 64, 128, 256, 512; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, table 1, "
        "with the stem of section 4.2"
    )

    width: Width = 1.0
    affine: Affine = True
    bias: OutputBias = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(self.use, shape)
        from lotteryfw.std.residual import BasicBlock, resnet

        channels = [scaled(units, self.width) for units in (64, 64, 128, 256, 512)]
        return resnet(BasicBlock, [shape[0], *channels], 2, classes, self.affine, self.bias)


class WideResNet(ModelFamily):
    """WRN-depth-widen: a wide, pre-activation residual network without dropout."""

    use = "wide_resnet"
    formula = (
        "3×3 conv 16; 3 × (depth - 4) / 6 blocks of two 3×3 convs, (16, 32, 64) × widen; "
        "mean; classes"
    )
    source = "Zagoruyko & Komodakis 2016, Wide Residual Networks, table 1"

    depth: Annotated[int, Field(ge=10)] = 28
    """Convolutions on the way to the output layer, shortcuts not counted: 10, 16, 22, 28, …"""
    widen: Annotated[int, Field(ge=1)] = 10
    """Multiplies the channels of every block."""
    affine: Affine = True
    bias: OutputBias = True

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 4:
            raise ValueError(f"must be 6 n + 4 (10, 16, 22, 28, …), not {depth}")
        return depth

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(self.use, shape)
        from lotteryfw.std.residual import PreactivationBlock, resnet

        channels = [16, *(units * self.widen for units in (16, 32, 64))]
        blocks = (self.depth - 4) // 6
        return resnet(
            PreactivationBlock, [shape[0], *channels], blocks, classes, self.affine, self.bias
        )
