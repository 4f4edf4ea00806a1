"""Activations that are computed twice instead of kept, by `torch.utils.checkpoint`."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> None:
    """Let the blocks of a network keep their inputs alone until the backward pass.

    A block is a child of the network that has children itself, such as a residual block. In an
    `nn.Sequential`, nested ones included, so is a layer with weights, with the layers that follow
    it up to the next one. A module with a forward of its own, which is not its class's, is no block.
    The network's results, gradients and names stay as they are.
    Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.
    """
    if _is_plain_sequence(network):
        # Its own forward pass would run the layers one by one.
        network.forward = _InBlocks(network)  # type: ignore[method-assign]
        return
    for child in network.children():
        # A list is only looked into by the network, which calls what it holds.
        if _is_plain_sequence(child) or type(child) in (nn.ModuleList, nn.ModuleDict):
            checkpoint_activations(child)
        elif _has_children(child) and not _has_own_forward(child):
            child.forward = _Checkpointed(child)


def _is_plain_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    if _has_own_forward(module):
        return False
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _has_own_forward(module: nn.Module) -> bool:
    return "forward" in vars(module)


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


class _InBlocks:
    """The forward pass of an `nn.Sequential`, block by block."""

    def __init__(self, sequence: nn.Sequential):
        self._parts: list[nn.Module] = []
        block: list[nn.Module] = []
        # Not `children()`, which leaves a layer out where it stands a second time.
        for layer in sequence:
            begins_block = _has_children(layer) or any(p.dim() > 1 for p in layer.parameters())
            if begins_block:
                self._add_block(block)
                block = []
            if _is_plain_sequence(layer):
                checkpoint_activations(layer)
                self._parts.append(layer)
            else:
                block.append(layer)
        self._add_block(block)

    def _add_block(self, layers: list[nn.Module]) -> None:
        if layers:
            block = nn.Sequential(*layers)
            block.forward = _Checkpointed(block)  # type: ignore[method-assign]
            self._parts.append(block)

    def __call__(self, inputs: Any) -> Any:
        for part in self._parts:
            inputs = part(inputs)
        return inputs


class _Checkpointed:
    """The forward pass of a block, which is made again where the backward pass needs it."""

    def __init__(self, block: nn.Module):
        # The block has this object, and in a cycle its memory would outlive the training.
        self._block = weakref.ref(block)
        self._is_again = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        block = self._block()
        assert block is not None
        # Blocks that are made here are not in the network, so that their own mode says nothing.
        is_training = any(module.training for module in block.children())
        if self._is_again or not is_training or not torch.is_grad_enabled():
            return type(block).forward(block, *args, **kwargs)
        # `functional_call` has put the weights in training into the network and takes them out
        # before the backward pass, so the second forward pass is handed them.
        parameters = dict(block.named_parameters())
        # It begins with the buffers that the first one began with, and leaves the network's alone:
        # otherwise the statistics of batch normalisation would move twice a step.
        buffers = {name: value.clone() for name, value in block.named_buffers()}
        passes = _Passes(self, block, parameters, buffers)
        return checkpoint(passes, *args, use_reentrant=False, **kwargs)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Make forward passes that keep everything."""
        self._is_again = True
        try:
            yield
        finally:
            self._is_again = False


class _Passes:
    """The forward passes of a block in one step: in the network as it is, then by themselves."""

    def __init__(
        self,
        checkpointed: _Checkpointed,
        block: nn.Module,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
    ):
        self._checkpointed = checkpointed
        self._block = block
        self._parameters = parameters
        self._buffers = buffers
        self._is_first = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._checkpointed.again():
            if self._is_first:
                self._is_first = False
                return type(self._block).forward(self._block, *args, **kwargs)
            # Copies, since a gradient that is asked for twice makes the pass a third time.
            buffers = {name: value.clone() for name, value in self._buffers.items()}
            return functional_call(self._block, {**self._parameters, **buffers}, args, kwargs)
