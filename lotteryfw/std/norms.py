"""Batch norm as the model families' options want it.

Imported where a network is built, since it needs torch when it is read.
"""

from __future__ import annotations

from typing import Literal

from torch import nn


class UniformScaleNorm(nn.BatchNorm2d):
    """Batch norm whose scale starts as a draw from U[0, 1] per channel.

    Source: Frankle et al. 2020, The Early Phase of Neural Network Training, appendix A.
    """

    def reset_parameters(self) -> None:
        # torch calls this as it builds the module, and lotteryfw again, under the cell's seed
        super().reset_parameters()
        if self.affine:
            nn.init.uniform_(self.weight)


def set_norms(network: nn.Module, affine: bool, norm_scale: Literal["ones", "uniform"]) -> None:
    """Replace every batch norm of images in the network by one with these options.

    Afterwards, since many constructors fill the scale themselves, or build a norm by its class.
    """
    kind = UniformScaleNorm if norm_scale == "uniform" else nn.BatchNorm2d
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            # registered under the same name, so that a state dict keeps its order
            if isinstance(norm, nn.BatchNorm2d):
                replacement = kind(
                    norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=affine
                )
                parent.register_module(name, replacement)
