"""Model families with residual connections, for images of about 32×32.

The output layer is named fc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from lotteryfw import ModelFamily
from lotteryfw.std.models import Affine, NormScale, OutputBias, Width, check_images, scaled

if TYPE_CHECKING:
    from torch import nn


class _ResNet(ModelFamily):
    """Residual networks for small images: a 3×3 convolution, stages of basic blocks, the mean."""

    channels: ClassVar[tuple[int, ...]]
    """Of the first convolution, and of each stage."""
    blocks: ClassVar[tuple[int, ...]]
    """Blocks of two convolutions in each stage."""

    width: Width = 1.0
    affine: Affine = True
    norm_scale: NormScale = "ones"
    bias: OutputBias = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(self.use, shape)
        from lotteryfw.std.norms import set_norms
        from lotteryfw.std.residual import BasicBlock, resnet

        # the image's own channels are no choice of the family's, so `width` leaves them
        channels = [scaled(units, self.width) for units in self.channels]
        network = resnet(BasicBlock, [shape[0], *channels], self.blocks, classes, self.bias)
        set_norms(network, self.affine, self.norm_scale)
        return network


class ResNet20(_ResNet):
    """ResNet-20 for small images, "Resnet-18" in the lottery-ticket papers: 3 stages of 3 blocks.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet20"
    formula = "3×3 conv 16; 3 × 3 blocks of two 3×3 convs, 16, 32, 64; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, shortcuts B"
    )
    channels = (16, 16, 32, 64)
    blocks = (3, 3, 3)


class ResNet32(_ResNet):
    """ResNet-32 for small images: 3 stages of 5 blocks.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet32"
    formula = "3×3 conv 16; 3 × 5 blocks of two 3×3 convs, 16, 32, 64; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, shortcuts B"
    )
    channels = (16, 16, 32, 64)
    blocks = (5, 5, 5)


class ResNet44(_ResNet):
    """ResNet-44 for small images: 3 stages of 7 blocks.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet44"
    formula = "3×3 conv 16; 3 × 7 blocks of two 3×3 convs, 16, 32, 64; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, shortcuts B"
    )
    channels = (16, 16, 32, 64)
    blocks = (7, 7, 7)


class ResNet56(_ResNet):
    """ResNet-56 for small images: 3 stages of 9 blocks.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet56"
    formula = "3×3 conv 16; 3 × 9 blocks of two 3×3 convs, 16, 32, 64; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, shortcuts B"
    )
    channels = (16, 16, 32, 64)
    blocks = (9, 9, 9)


class ResNet110(_ResNet):
    """ResNet-110 for small images: 3 stages of 18 blocks.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet110"
    formula = "3×3 conv 16; 3 × 18 blocks of two 3×3 convs, 16, 32, 64; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2, shortcuts B"
    )
    channels = (16, 16, 32, 64)
    blocks = (18, 18, 18)


class ResNet18(_ResNet):
    """ResNet-18, 64 channels wide, for small images: its stem is a 3×3 convolution without pooling.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet18"
    formula = "3×3 conv 64; 4 × 2 blocks of two 3×3 convs, 64, 128, 256, 512; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, table 1, "
        "with the stem of section 4.2"
    )
    channels = (64, 64, 128, 256, 512)
    blocks = (2, 2, 2, 2)


class ResNet34(_ResNet):
    """ResNet-34, 64 channels wide, for small images: its stem is a 3×3 convolution without pooling.

    Shortcuts where a stage begins are 1×1 convolutions; patterns like "*shortcut*" name them.
    """

    use = "resnet34"
    formula = "3×3 conv 64; 3, 4, 6, 3 blocks of two 3×3 convs, 64, 128, 256, 512; mean; classes"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, table 1, "
        "with the stem of section 4.2"
    )
    channels = (64, 64, 128, 256, 512)
    blocks = (3, 4, 6, 3)


class WideResNet(ModelFamily):
    """WRN-depth-widen: a wide, pre-activation residual network without dropout."""

    use = "wide_resnet"
    formula = (
        "3×3 conv 16; 3 × (depth - 4) / 6 blocks of two 3×3 convs, (16, 32, 64) × widen; "
        "mean; classes"
    )
    source = "Zagoruyko & Komodakis 2016, Wide Residual Networks, table 1"

    depth: Annotated[int, Field(ge=10)] = 28
    """Convolutions of a network with `widen` above 1, its three shortcuts included: 6 n + 4 for n
    blocks in each stage, so 10, 16, 22, 28, …"""
    widen: Annotated[int, Field(ge=1)] = 10
    """Multiplies the channels of every block."""
    affine: Affine = True
    norm_scale: NormScale = "ones"
    bias: OutputBias = True

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 4:
            raise ValueError(f"must be 6 n + 4 (10, 16, 22, 28, …), not {depth}")
        return depth

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(self.use, shape)
        from lotteryfw.std.norms import set_norms
        from lotteryfw.std.residual import PreactivationBlock, resnet

        channels = [16, *(units * self.widen for units in (16, 32, 64))]
        blocks = [(self.depth - 4) // 6] * 3
        network = resnet(PreactivationBlock, [shape[0], *channels], blocks, classes, self.bias)
        set_norms(network, self.affine, self.norm_scale)
        return network
