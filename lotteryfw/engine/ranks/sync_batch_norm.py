"""Batch normalisation by the statistics of the whole batch, of which each rank has a share.

torch's `SyncBatchNorm` is for GPUs alone.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lotteryfw.engine.ranks.exchange import Ranks


def synchronise_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Let the batch normalisation of a network in training use the statistics of all ranks.

    Evaluations, which one rank makes alone, stay as they are. Layers with a forward pass of their
    own are left alone.
    """
    for module in network.modules():
        # After a return to an earlier state, the layers are given other ranks.
        forward = vars(module).get("forward")
        if forward is not None and not isinstance(forward, _Synchronised):
            continue
        if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward:
            module.forward = _Synchronised(module, ranks)  # type: ignore[method-assign, assignment]


class _Synchronised:
    """The forward pass of a layer of batch normalisation."""

    def __init__(self, norm: _BatchNorm, ranks: Ranks):
        # The layer has this object, and in a cycle its memory would outlive the training.
        self._norm = weakref.ref(norm)
        self._ranks = ranks

    def __call__(self, inputs: Tensor) -> Tensor:
        norm = self._norm()
        assert norm is not None
        if not norm.training:
            return _BatchNorm.forward(norm, inputs)
        norm._check_input_dim(inputs)  # type: ignore[no-untyped-call]
        outputs, mean, variance, count = _Normalise.apply(
            inputs, norm.weight, norm.bias, norm.eps, self._ranks
        )
        if norm.track_running_stats:
            with torch.no_grad():
                _move_statistics(norm, mean, variance * (count / (count - 1)))
        result: Tensor = outputs
        return result


def _move_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as torch's own layer does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    # Without a momentum, they are means over all batches.
    momentum: Any = norm.momentum
    if momentum is None:
        momentum = 1 / norm.num_batches_tracked.to(mean.dtype)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), momentum)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) · weight + bias, over the batches of all ranks.

    The formulas are those of Ioffe & Szegedy 2015, Batch Normalization, section 3; the statistics
    of the shares are joined by Chan et al. 1983, since sums of squares would lose digits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        own_variance, own_mean = torch.var_mean(x, _rows(x), correction=0)
        own_count = own_mean.new_full((1,), x.numel() // x.shape[1])
        gathered = ranks.gather(torch.cat([own_mean, own_variance, own_count]))
        channels = x.shape[1]
        means, variances, counts = torch.split(gathered, [channels, channels, 1], dim=1)

        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = torch.rsqrt(variance + eps)
        normalised = (x - _by_channel(mean, x)) * _by_channel(scale, x)
        outputs = normalised
        if weight is not None:
            outputs = outputs * _by_channel(weight, x)
        if bias is not None:
            outputs = outputs + _by_channel(bias, x)

        ctx.save_for_backward(normalised, scale, count, weight)
        ctx.ranks = ranks
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return outputs.to(inputs.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, count, weight = ctx.saved_tensors
        incoming = gradients[0]
        gradient = incoming.to(normalised.dtype)
        of_bias = gradient.sum(_rows(gradient))
        of_weight = (gradient * normalised).sum(_rows(gradient))
        # Of weight and bias each rank returns its own part: they are added up with all gradients.
        sums = torch.stack([of_bias, of_weight])
        ctx.ranks.add_up(sums)
        mean, slope = sums / count
        centred = gradient - _by_channel(mean, gradient) - normalised * _by_channel(slope, gradient)
        factor = scale if weight is None else scale * weight
        of_inputs = (centred * _by_channel(factor, gradient)).to(incoming.dtype)
        return (
            of_inputs,
            None if weight is None else of_weight,
            of_bias if ctx.has_bias else None,
            None,
            None,
        )


def _rows(x: Tensor) -> list[int]:
    """Return all dimensions but that of the channels."""
    return [0, *range(2, x.dim())]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return numbers by channel in a shape that goes with x [n, channels, …]."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
