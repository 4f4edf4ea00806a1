"""The classification networks of torchvision, untrained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lotteryfw import AuxiliaryOutputs, ModelFamily, UsageError
from lotteryfw.std.models import Affine, NormScale, check_images

if TYPE_CHECKING:
    from torch import Tensor, nn

Name = Literal[
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1",
    "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6",
    "efficientnet_b7", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf",
    "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18",
    "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s",
    "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
]  # fmt: skip
"""The classification networks of torchvision 0.29. Written out: a plan is made without torch."""

AUXILIARY_WEIGHTS = {"inception_v3": 0.4, "googlenet": 0.3}
"""By network: what multiplies the loss of each auxiliary head.

GoogLeNet's is its paper's (Szegedy et al. 2015, section 5). The paper of Inception v3 states none:
assumed is the 0.4 of PyTorch's own tutorial on fine-tuning.
"""

INCEPTION_SIDE = 299
"""Pixels: below, nothing is left of an image for the convolution of Inception's auxiliary head."""


class TorchvisionModel(ModelFamily):
    """An untrained classification network of torchvision; its layers keep torchvision's names.

    Another number of image channels than three changes the first convolution. ViT and MaxViT are
    built for the size of the images. In a ViT, queries, keys and values are projected by one packed
    parameter of the attention, which is not pruned; in a Swin by a linear layer, which is.
    """

    use = "torchvision"
    formula = "torchvision.models.<name>(weights=None, num_classes=classes)"
    source = "torchvision.models, which names the paper of each network"

    name: Name = "resnet50"
    """The function in torchvision.models."""
    affine: Affine = True
    norm_scale: NormScale = "ones"
    bias: bool = True
    """False: no linear and no convolutional layer has biases."""
    auxiliary: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Multiplies the loss of each auxiliary head, which Inception v3 and GoogLeNet have.

    Left out: 0.4 and 0.3, but 0 where images are too small for the head of Inception v3, which
    needs 299×299 pixels. 0: the network is built without these heads."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_images(f"torchvision's {self.name}", shape)
        from torchvision import models

        from lotteryfw.std.norms import set_norms

        constructor = getattr(models, self.name, None)
        if constructor is None:
            raise UsageError(f"the torchvision that is installed has no network '{self.name}'")
        # no published weights: a ticket is found from a random start
        options = {"weights": None, "num_classes": classes, **self._further_options(shape)}
        network: nn.Module = constructor(**options)
        _set_channels(network, shape[0])
        set_norms(network, self.affine, self.norm_scale)
        # after the channels, since a convolution that is replaced has its bias again
        if not self.bias:
            _remove_biases(network)
        if weight := self._auxiliary_weight(shape):
            _report_auxiliary_heads(network, weight)
        return network

    def _further_options(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return what some of the constructors take or need beside weights and classes."""
        _, height, width = shape
        if self.name.startswith("vit_"):
            if height != width:
                raise UsageError(f"{self.name} reads square images, not {height}×{width}")
            return {"image_size": height}
        # it cuts images into a grid, whose size is fixed when it is built
        if self.name == "maxvit_t":
            return {"input_size": (height, width)}
        if self.name in AUXILIARY_WEIGHTS:
            # lotteryfw draws the weights; torchvision's own draw takes seconds
            return {"aux_logits": self._auxiliary_weight(shape) > 0, "init_weights": False}
        return {}

    def _auxiliary_weight(self, shape: tuple[int, ...]) -> float:
        published = AUXILIARY_WEIGHTS.get(self.name, 0.0)
        is_too_small = self.name == "inception_v3" and min(shape[1:]) < INCEPTION_SIDE
        if self.auxiliary is None:
            return 0.0 if is_too_small else published
        if self.auxiliary and is_too_small:
            raise UsageError(
                f"the auxiliary head of inception_v3 reads images of at least {INCEPTION_SIDE} "
                f"pixels a side, not {shape[1]}×{shape[2]}; leave `auxiliary` out"
            )
        return self.auxiliary if published else 0.0


def _set_channels(network: nn.Module, channels: int) -> None:
    """Let the first convolution read so many image channels."""
    from torch import nn

    convolutions = [item for item in network.named_modules() if isinstance(item[1], nn.Conv2d)]
    path, part = convolutions[0]
    assert isinstance(part, nn.Conv2d)
    if part.in_channels == channels:
        return
    parent, _, name = path.rpartition(".")
    # the other arguments of the constructor are set afterwards: their types do not fit its own
    height, width = part.kernel_size
    replacement = nn.Conv2d(
        channels, part.out_channels, (height, width), bias=part.bias is not None
    )
    replacement.stride, replacement.padding = part.stride, part.padding
    network.get_submodule(parent).register_module(name, replacement)


def _remove_biases(network: nn.Module) -> None:
    from torch import nn

    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.register_parameter("bias", None)


def _report_auxiliary_heads(network: nn.Module, weight: float) -> None:
    """Let the network return `AuxiliaryOutputs` in training, instead of a tuple of torchvision's.

    By a hook: a module around it would change the names of its layers.
    """

    def report(module: nn.Module, inputs: object, outputs: Any) -> Any:
        if not isinstance(outputs, tuple):
            return outputs  # in evaluation, the main head's alone
        main, auxiliary = _split_heads(outputs)
        return AuxiliaryOutputs(main, auxiliary, weight)

    network.register_forward_hook(report)


def _split_heads(outputs: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    # InceptionOutputs has logits and aux_logits, GoogLeNetOutputs logits, aux_logits2, aux_logits1
    main, *auxiliary = outputs
    return main, tuple(auxiliary)
