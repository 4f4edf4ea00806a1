"""The residual networks of torchvision, for images of ImageNet's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lotteryfw import ModelFamily, UsageError
from lotteryfw.std.models import Affine, OutputBias

if TYPE_CHECKING:
    from torch import nn


class TorchvisionModel(ModelFamily):
    """An untrained residual network of torchvision; its layers keep torchvision's names."""

    use = "torchvision"
    formula = "torchvision.models.<name>(weights=None, num_classes=classes)"
    source = (
        "He et al. 2016, Deep Residual Learning for Image Recognition, table 1; "
        "Zagoruyko & Komodakis 2016 (wide)"
    )

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2"] = "resnet50"
    """The function in torchvision.models."""
    affine: Affine = True
    bias: OutputBias = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3 or shape[0] != 3:
            raise UsageError(
                f"torchvision's {self.name} reads images [3, height, width], not {list(shape)}"
            )
        from torch import nn
        from torchvision import models

        # no published weights: a ticket is found from a random start
        network: nn.Module = getattr(models, self.name)(weights=None, num_classes=classes)
        # removed afterwards, since torchvision's constructors fill the scales of their norm layers
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d) and not self.affine:
                part.affine = False
                part.register_parameter("weight", None)
                part.register_parameter("bias", None)
            if isinstance(part, nn.Linear) and not self.bias:
                part.register_parameter("bias", None)
        return network
