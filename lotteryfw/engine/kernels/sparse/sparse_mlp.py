"""Trains an MLP of Linear and ReLU layers at a cost that falls with the density of its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotteryfw.engine.kernels.optimizer_rules import UpdateRule
from lotteryfw.engine.kernels.sparse.loops import TILE, Floats, LayerProducts, Longs, Loops

_T = TypeVar("_T")

FORWARD_CHUNK = 256
"""Examples that `SparseMlp.forward` takes at a time.

Their activations stay in a core's own cache."""


class SparseMlp:
    """Linear → ReLU → … → Linear in training, with mean cross-entropy as the loss.

    weights: one [out, in] float32 for each layer; masks: [out, in] bool, True = alive, or None for
    a layer without one; biases: [out] or None. Masked weights must be 0: they stay so, and are
    never read. A layer under a mask of at least `dense_from` density, and one without a mask, is
    multiplied densely; masked weights of such a layer stay 0 too. Everything is copied; all of it
    is on the CPU. The bits of a result depend on the arguments alone, `loops`, which do the
    arithmetic, included.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        masks: Sequence[Tensor | None],
        biases: Sequence[Tensor | None],
        update: UpdateRule,
        batch: int,
        dense_from: float,
        loops: Loops,
    ):
        self._loops = loops
        self._update = update
        self._batch = batch
        self._steps = 0
        self._weights: list[_Parameter] = []
        self._biases: list[_Parameter | None] = []
        size = 0
        for weight, mask, bias in zip(weights, masks, biases, strict=True):
            kept = None
            if mask is not None and float(mask.float().mean()) < dense_from:
                # Flat indices in ascending order: rows of the matrix lie one after another, as CSR
                # has them.
                kept = mask.flatten().nonzero().flatten()
            self._weights.append(_Parameter(weight.shape, mask, kept, size))
            # Weights and biases share one flat array, which an optimizer's loop passes over once.
            size = self._weights[-1].stop
            self._biases.append(None if bias is None else _Parameter(bias.shape, None, None, size))
            size += 0 if bias is None else len(bias)

        # torch's memory starts at a cache line on every machine: BLAS rounds alike in every run.
        self._values = torch.zeros(size)
        self._gradient = torch.zeros(size)
        # Arrays that the rule does not use stay empty.
        self._first = torch.zeros(size if update.rule != "sgd" or update.momentum else 0)
        self._second = torch.zeros(size if update.rule != "sgd" else 0)
        self._flat = [
            flat.numpy() for flat in (self._values, self._gradient, self._first, self._second)
        ]
        self.load(weights, biases)

        self.layers: list[LayerProducts] = []
        for parameter, bias_parameter, mask in zip(self._weights, self._biases, masks, strict=True):
            self.layers.append(self._layer(parameter, bias_parameter, mask))
        self._activations = self._buffers(batch)
        self._output_gradients = self._buffers(batch)[1:]

    def _layer(
        self, weight: _Parameter, bias: _Parameter | None, mask: Tensor | None
    ) -> LayerProducts:
        """Return the products of a layer, over its parts of the flat arrays."""
        values, gradient = self._values[weight.span], self._gradient[weight.span]
        outputs = weight.shape[0]
        bias_values, bias_gradient = torch.zeros(outputs), torch.zeros(outputs)
        if bias is not None:
            bias_values, bias_gradient = self._values[bias.span], self._gradient[bias.span]
        if weight.kept is None:
            return DenseProducts(weight.shape, mask, values, gradient, bias_values, bias_gradient)
        return self._loops.Products(
            weight.shape, weight.kept, values, gradient, bias_values, bias_gradient
        )

    def step(self, inputs: Tensor, labels: Tensor, indices: Tensor, rate: float) -> float:
        """Make one update, and return the mean loss (nats) of the batch before it.

        inputs: [N, …], uint8, which is divided by 255, or float32; labels: [N] int64, in
        [0, classes); indices: [batch] int64, the examples of the batch. `rate` is the learning
        rate. Raises ValueError where `indices` has another length.
        """
        if len(indices) != self._batch:
            raise ValueError(f"{len(indices)} examples were chosen; every step takes {self._batch}")
        chosen = indices.numpy()
        self._forward(_rows(inputs), chosen, self._activations)
        loss = self._loops.cross_entropy(
            self._activations[-1], labels.numpy(), chosen, self._output_gradients[-1]
        )
        for number in reversed(range(len(self.layers))):
            # Nobody needs the gradient of the inputs of the first layer.
            input_gradient = self._output_gradients[number - 1] if number else None
            self.layers[number].backward(
                self._output_gradients[number], self._activations[number], input_gradient
            )
        # Before the update, which Adam's correction of its bias counts from 1.
        self._steps += 1
        self._apply_gradient(float(rate))
        return loss

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [n, classes] of inputs [n, …], uint8 or float32."""
        buffers = self._buffers(FORWARD_CHUNK)
        rows, indices = _rows(inputs), np.arange(len(inputs))
        logits = np.empty((len(buffers[-1]), len(inputs)), np.float32)
        for start in range(0, len(rows), FORWARD_CHUNK):
            chosen = indices[start : start + FORWARD_CHUNK]
            self._forward(rows, chosen, buffers)
            logits[:, start : start + FORWARD_CHUNK] = buffers[-1][:, : len(chosen)]
        return torch.from_numpy(logits).t().contiguous()

    def weights(self) -> list[Tensor]:
        """Return the weights now, [out, in] each, masked ones 0."""
        return [parameter.expand(self._values) for parameter in self._weights]

    def biases(self) -> list[Tensor | None]:
        """Return the biases now, [out] each, None where there is none."""
        biases: list[Tensor | None] = []
        for parameter in self._biases:
            biases.append(None if parameter is None else parameter.expand(self._values))
        return biases

    def load(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        """Go on from these weights, [out, in] each, and biases; masked weights are ignored."""
        for parameter, start in zip(self._parameters, _present(weights, biases), strict=True):
            self._values[parameter.span] = parameter.compress(start)

    def optimizer_state(self) -> list[dict[str, Tensor]]:
        """Return the optimizer's state, a dict for each weight and bias in the order of layers.

        It has torch.optim's names; its tensors are dense, in the parameter's shape, 0 where masked;
        it is empty where torch keeps nothing.
        """
        names = self._state_names() if self._steps else {}
        states = []
        for parameter in self._parameters:
            state = {name: parameter.expand(flat) for name, flat in names.items()}
            # Adam and AdamW, which have two moments, count their steps.
            if len(names) == 2:
                state = {"step": torch.tensor(float(self._steps)), **state}
            states.append(state)
        return states

    def load_optimizer_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from states of the form of `optimizer_state()`; masked weights are ignored."""
        self._steps = 0
        for parameter, state in zip(self._parameters, states, strict=True):
            for name, flat in self._state_names().items():
                # torch keeps no state of a parameter that no step has updated.
                if name not in state:
                    flat[parameter.span] = 0.0
                    continue
                flat[parameter.span] = parameter.compress(state[name])
                # SGD asks only whether it is the first step.
                self._steps = int(state["step"]) if "step" in state else 1

    @property
    def _parameters(self) -> list[_Parameter]:
        return _present(self._weights, self._biases)

    def _state_names(self) -> dict[str, Tensor]:
        if self._update.rule != "sgd":
            return {"exp_avg": self._first, "exp_avg_sq": self._second}
        return {"momentum_buffer": self._first} if self._update.momentum else {}

    def _buffers(self, examples: int) -> list[Floats]:
        """Return buffers for the inputs and every layer's outputs, [features, width].

        The width is that of the examples, rounded up to whole tiles.
        """
        # Loops without remainders are what the compiler turns into vector instructions.
        width = -(-examples // TILE) * TILE
        features = [self._weights[0].shape[1]]
        features += [parameter.shape[0] for parameter in self._weights]
        return [torch.zeros(count, width).numpy() for count in features]

    def _forward(self, rows: NDArray[Any], chosen: Longs, buffers: Sequence[Floats]) -> None:
        """Write the inputs and every layer's outputs for some examples into the buffers."""
        scale = 1 / 255 if rows.dtype == np.uint8 else 1.0
        self._loops.gather(rows, chosen, self.layers[0].reads, scale, buffers[0])
        for number, layer in enumerate(self.layers, 1):
            layer.forward(buffers[number - 1], buffers[number], number < len(self.layers))

    def _apply_gradient(self, rate: float) -> None:
        """Update all weights and biases from their gradients."""
        values, gradient, first, second = self._flat
        update = self._update
        if update.rule == "sgd" and not update.momentum:
            self._loops.sgd(values, gradient, rate, update.weight_decay)
            return
        if update.rule == "sgd":
            # torch's first step takes the gradient undamped.
            fresh = 1.0 if self._steps == 1 else 1 - update.dampening
            self._loops.momentum_sgd(
                values,
                gradient,
                first,
                rate,
                update.weight_decay,
                update.momentum,
                fresh,
                update.nesterov,
            )
            return
        # Adam adds the decay to the gradient; AdamW takes it off the weight.
        coupled, decoupled = update.weight_decay, 0.0
        if update.rule == "adamw":
            coupled, decoupled = decoupled, coupled
        self._loops.adam(
            values,
            gradient,
            first,
            second,
            self._steps,
            rate,
            update.beta1,
            update.beta2,
            update.eps,
            coupled,
            decoupled,
        )


def warm_up(loops: Loops) -> None:
    """Compile every loop, or load it from disk.

    With numba this takes a few seconds the first time on a machine.
    """
    mask = torch.eye(2, dtype=torch.bool)
    masks = [mask, mask, None]
    labels = torch.zeros(1, dtype=torch.int64)
    for rule in (UpdateRule("sgd"), UpdateRule("sgd", momentum=0.9), UpdateRule("adam")):
        for dtype in (torch.uint8, torch.float32):
            mlp = SparseMlp([torch.eye(2)] * 3, masks, [None] * 3, rule, 1, 1.0, loops)
            mlp.step(torch.ones(1, 2, dtype=dtype), labels, labels, 0.1)


@dataclass(frozen=True)
class _Parameter:
    """A weight or a bias, and where its entries lie in a flat array from `start` on."""

    shape: Sequence[int]
    mask: Tensor | None
    kept: Tensor | None
    """The flat indices of the entries that are kept; None for all."""
    start: int

    @property
    def stop(self) -> int:
        return self.start + (int(np.prod(self.shape)) if self.kept is None else len(self.kept))

    @property
    def span(self) -> slice:
        return slice(self.start, self.stop)

    def compress(self, dense: Tensor) -> Tensor:
        if self.kept is not None:
            return dense.flatten()[self.kept]
        return (dense if self.mask is None else dense.where(self.mask, 0.0)).flatten()

    def expand(self, flat: Tensor) -> Tensor:
        if self.kept is None:
            return flat[self.span].reshape(*self.shape).clone()
        dense = flat.new_zeros(int(np.prod(self.shape)))
        dense[self.kept] = flat[self.span]
        return dense.reshape(*self.shape)


def _present(weights: Sequence[_T], biases: Sequence[_T | None]) -> list[_T]:
    """Return weight and bias of each layer in turn, as `Module.parameters()` has them."""
    present = []
    for weight, bias in zip(weights, biases, strict=True):
        present.append(weight)
        if bias is not None:
            present.append(bias)
    return present


def _rows(inputs: Tensor) -> NDArray[Any]:
    """Return the same memory with one example in each row."""
    return inputs.reshape(len(inputs), -1).numpy()


class DenseProducts:
    """Products by BLAS.

    A mask, if any, holds the gradient of its masked weights at 0, and so the weights.
    """

    def __init__(
        self,
        shape: Sequence[int],
        mask: Tensor | None,
        values: Tensor,
        gradient: Tensor,
        bias: Tensor,
        bias_gradient: Tensor,
    ):
        self._weight = values.view(*shape)
        self._gradient = gradient.view(*shape)
        self._bias = bias.view(-1, 1)
        self._bias_gradient = bias_gradient
        # A factor of 0 or 1, so that one multiplication clears the masked entries.
        self._mask = None if mask is None else mask.float()
        self.reads = np.arange(shape[1], dtype=np.int32)

    def forward(self, x: Floats, y: Floats, rectify: bool) -> None:
        out = torch.from_numpy(y)
        torch.addmm(self._bias, self._weight, torch.from_numpy(x), out=out)
        if rectify:
            out.relu_()

    def backward(self, dy: Floats, x: Floats, dx: Floats | None) -> None:
        gradient, inputs = torch.from_numpy(dy), torch.from_numpy(x)
        torch.mm(gradient, inputs.t(), out=self._gradient)
        torch.sum(gradient, 1, out=self._bias_gradient)
        if self._mask is not None:
            self._gradient.mul_(self._mask)
        if dx is not None:
            out = torch.from_numpy(dx)
            torch.mm(self._weight.t(), gradient, out=out)
            # The derivative of the ReLU before, in place, as autograd computes it.
            torch.ops.aten.threshold_backward.grad_input(out, inputs, 0.0, grad_input=out)
