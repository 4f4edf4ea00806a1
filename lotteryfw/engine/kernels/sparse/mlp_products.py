"""Loss and gradients of an MLP of Linear and ReLU layers, at a cost that falls with its density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from lotteryfw.engine.kernels.sparse.flat_parameters import (
    FlatParameter,
    KeptParameter,
    TransposedParameter,
    WholeParameter,
)
from lotteryfw.engine.kernels.sparse.loops import (
    Floats,
    InputReader,
    Ints,
    LayerProducts,
    Longs,
    Loops,
    whole_tiles,
)
from lotteryfw.store.tensors import is_plus_zero

_T = TypeVar("_T")

FORWARD_CHUNK = 256
"""Examples that `MlpProducts.forward` takes at a time.

Their activations stay in a core's own cache."""


class MlpProducts:
    """Linear → ReLU → … → Linear, with mean cross-entropy as the loss.

    weights: one [out, in] float32 for each layer; masks: [out, in] bool, True = alive, or None for
    a layer without one; biases: [out] or None. A layer under a mask of at least `dense_from`
    density, one without a mask, and one with masked weights other than 0 is multiplied densely.
    With `sparse_inputs` the first layer is multiplied with the inputs that are not 0, which needs
    numba, whatever its mask. Everything is copied; all of it is on the CPU. The bits of a result
    depend on the arguments alone, `loops`, which do the arithmetic, included.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        masks: Sequence[Tensor | None],
        biases: Sequence[Tensor | None],
        batch: int,
        dense_from: float,
        loops: Loops,
        sparse_inputs: bool = False,
    ):
        self._loops = loops
        self._batch = batch
        self.weight_parameters: list[FlatParameter] = []
        """The weight of each layer."""
        self._biases: list[FlatParameter | None] = []
        size = 0
        for weight, mask, bias in zip(weights, masks, biases, strict=True):
            flat: FlatParameter
            if sparse_inputs and not self.weight_parameters:
                flat = TransposedParameter(weight.shape, mask, size)
            elif mask is not None and is_sparse(weight, mask, dense_from):
                flat = KeptParameter(weight.shape, mask, size)
            else:
                flat = WholeParameter(weight.shape, mask, size)
            self.weight_parameters.append(flat)
            # Weights and biases share one flat array, which an optimizer's loop passes over once.
            size = flat.span.stop
            flat_bias = None if bias is None else WholeParameter(bias.shape, None, size)
            self._biases.append(flat_bias)
            size = size if flat_bias is None else flat_bias.span.stop

        # torch's memory starts at a cache line on every machine: BLAS rounds alike in every run.
        self.values = torch.zeros(size)
        """All weights and biases, in the layout of `parameters`."""
        self.gradient = torch.zeros(size)
        """Their gradient, after `loss_and_gradient`; that of masked weights is 0, or not there."""
        self.load(weights, biases)

        self.layers: list[LayerProducts] = []
        for weight_part, bias_part in zip(self.weight_parameters, self._biases, strict=True):
            self.layers.append(self._layer(weight_part, bias_part))
        first = self.layers[0]
        self._reader: InputReader
        if isinstance(first, InputReader):
            self._reader = first
        else:
            self._reader = GatheredInputs(loops, first.reads, weights[0].shape[1])
        # Loops without remainders are what the compiler turns into vector instructions.
        width = whole_tiles(batch)
        self._inputs = self._reader.buffer(width)
        self._outputs = self._buffers(width)
        self._output_gradients = self._buffers(width)

    @property
    def parameters(self) -> list[FlatParameter]:
        """Weight and bias of each layer in turn, as `Module.parameters()` has them."""
        return _present(self.weight_parameters, self._biases)

    def load(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        """Take these weights, [out, in] each, and biases.

        Masked weights are to be what they were at first.
        """
        for parameter, dense in zip(self.parameters, _present(weights, biases), strict=True):
            self.values[parameter.span] = parameter.compress(dense)

    def weights(self) -> list[Tensor]:
        """Return the weights now, [out, in] each."""
        return [self._now(parameter) for parameter in self.weight_parameters]

    def biases(self) -> list[Tensor | None]:
        """Return the biases now, [out] each, None where there is none."""
        biases: list[Tensor | None] = []
        for parameter in self._biases:
            biases.append(None if parameter is None else self._now(parameter))
        return biases

    def _now(self, parameter: FlatParameter) -> Tensor:
        return parameter.expand(self.values[parameter.span])

    def loss_and_gradient(self, inputs: Tensor, labels: Tensor, indices: Tensor) -> float:
        """Return the mean loss (nats) of a batch, and fill `gradient`.

        inputs: [N, …], uint8, which is divided by 255, or float32; labels: [N] int64, in
        [0, classes); indices: [batch] int64, the examples of the batch. Raises ValueError where
        `indices` has another length.
        """
        if len(indices) != self._batch:
            raise ValueError(f"{len(indices)} examples were chosen; every step takes {self._batch}")
        chosen = indices.numpy()
        self._forward(_rows(inputs), chosen, self._inputs, self._outputs)
        loss = self._loops.cross_entropy(
            self._outputs[-1], labels.numpy(), chosen, self._output_gradients[-1]
        )
        for number in range(len(self.layers) - 1, 0, -1):
            self.layers[number].backward(
                self._output_gradients[number],
                self._outputs[number - 1],
                self._output_gradients[number - 1],
            )
        # Nobody needs the gradient of the inputs of the first layer.
        self.layers[0].backward(self._output_gradients[0], self._inputs, None)
        return loss

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits [n, classes] of inputs [n, …], uint8 or float32."""
        read, outputs = self._reader.buffer(FORWARD_CHUNK), self._buffers(FORWARD_CHUNK)
        rows, indices = _rows(inputs), np.arange(len(inputs))
        logits = np.empty((len(outputs[-1]), len(inputs)), np.float32)
        for start in range(0, len(rows), FORWARD_CHUNK):
            chosen = indices[start : start + FORWARD_CHUNK]
            self._forward(rows, chosen, read, outputs)
            logits[:, start : start + FORWARD_CHUNK] = outputs[-1][:, : len(chosen)]
        return torch.from_numpy(logits).t().contiguous()

    def measure(self, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return mean loss (nats) and accuracy in [0, 1] over examples (see `loss_and_gradient`)."""
        # No batches: `forward` takes a cache's worth of examples at a time by itself.
        logits = self.forward(inputs)
        correct = int((logits.argmax(1) == labels).sum())
        return float(cross_entropy(logits, labels)), correct / len(labels)

    def _layer(self, weight: FlatParameter, bias: FlatParameter | None) -> LayerProducts:
        """Return the products of a layer, over its parts of the flat arrays."""
        values, gradient = self.values[weight.span], self.gradient[weight.span]
        outputs = weight.shape[0]
        bias_values, bias_gradient = torch.zeros(outputs), torch.zeros(outputs)
        if bias is not None:
            bias_values, bias_gradient = self.values[bias.span], self.gradient[bias.span]
        arrays = values, gradient, bias_values, bias_gradient
        if isinstance(weight, KeptParameter):
            return self._loops.Products(weight.shape, weight.kept, *arrays)
        if isinstance(weight, TransposedParameter):
            # It needs numba, which takes a second to import.
            from lotteryfw.engine.kernels.sparse.numba_inputs import SparseInputProducts

            return SparseInputProducts(weight.shape, weight.mask, *arrays)
        return DenseProducts(weight.shape, weight.mask, *arrays)

    def _buffers(self, width: int) -> list[Floats]:
        """Return buffers for every layer's outputs, [features, width]."""
        return [
            torch.zeros(parameter.shape[0], width).numpy() for parameter in self.weight_parameters
        ]

    def _forward(
        self, rows: NDArray[Any], chosen: Longs, inputs: Any, outputs: Sequence[Floats]
    ) -> None:
        """Write the inputs and every layer's outputs for some examples into the buffers."""
        self._reader.read(rows, chosen, 1 / 255 if rows.dtype == np.uint8 else 1.0, inputs)
        x = inputs
        for layer, y in zip(self.layers, outputs, strict=True):
            layer.forward(x, y, rectify=y is not outputs[-1])
            x = y


def is_sparse(weight: Tensor, mask: Tensor, dense_from: float) -> bool:
    """Return whether a layer is multiplied on the pattern of its mask."""
    return float(mask.float().mean()) < dense_from and is_plus_zero(weight, ~mask)


def _present(weights: Sequence[_T], biases: Sequence[_T | None]) -> list[_T]:
    """Return weight and bias of each layer in turn, without biases that are not there."""
    present = []
    for weight, bias in zip(weights, biases, strict=True):
        present.append(weight)
        if bias is not None:
            present.append(bias)
    return present


def _rows(inputs: Tensor) -> NDArray[Any]:
    """Return the same memory with one example in each row."""
    return inputs.reshape(len(inputs), -1).numpy()


class GatheredInputs:
    """Reads all inputs that some weight reads, feature-major."""

    def __init__(self, loops: Loops, columns: Ints, count: int):
        self._loops = loops
        self._columns = columns
        self._count = count

    def buffer(self, examples: int) -> Floats:
        return torch.zeros(self._count, examples).numpy()

    def read(self, rows: NDArray[Any], chosen: Longs, scale: float, buffer: Floats) -> None:
        self._loops.gather(rows, chosen, self._columns, scale, buffer)


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
