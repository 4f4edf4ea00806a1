"""Training a chain of Linear and ReLU layers at a cost that falls with the density of its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lotteryfw.engine.kernels.sparse_loops import TILE, Floats, Layer, Longs, Loops

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")

SWEEP = 256
"""Examples that `SparseChain.forward` takes at a time: their activations stay in a core's own cache."""


@dataclass(frozen=True)
class Update:
    """What is done with a gradient: a rule of torch.optim, by torch's own names and defaults. The rate comes with each
    step."""

    rule: Literal["sgd", "adam", "adamw"]
    weight_decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


class SparseChain:
    """Linear → ReLU → … → Linear in training, with mean cross-entropy as the loss.

    weights: one [out, in] float32 a layer; masks: [out, in] bool, True = alive, or None for a layer without one;
    biases: [out] or None. Masked weights must be 0: they stay so, and are never read. A layer under a mask of at least
    `dense_from` density, and one without a mask, is multiplied densely; masked weights of such a layer stay 0 too.
    Everything is copied; all of it is on the CPU. The bits of a result depend on what was given alone, `loops`, which
    do the arithmetic, included.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        masks: Sequence[Tensor | None],
        biases: Sequence[Tensor | None],
        update: Update,
        batch: int,
        dense_from: float,
        loops: Loops,
    ):
        import torch

        self._loops = loops
        self._update = update
        self._batch = batch
        self._steps = 0
        self._weights: list[_Trained] = []
        self._biases: list[_Trained | None] = []
        size = 0
        for weight, mask, bias in zip(weights, masks, biases, strict=True):
            sparse = mask is not None and float(mask.float().mean()) < dense_from
            living = mask.flatten().nonzero().flatten() if mask is not None and sparse else None
            self._weights.append(_Trained(weight.shape, mask, living, size))
            size = self._weights[-1].stop
            self._biases.append(None if bias is None else _Trained(bias.shape, None, None, size))
            size += 0 if bias is None else len(bias)
        # torch's memory starts at a cache line, wherever the machine's does: BLAS rounds alike in every run.
        self._values = torch.zeros(size)
        self._gradient = torch.zeros(size)
        self._first = torch.zeros(size if update.rule != "sgd" or update.momentum else 0)
        self._second = torch.zeros(size if update.rule != "sgd" else 0)
        self._flat = [
            flat.numpy() for flat in (self._values, self._gradient, self._first, self._second)
        ]
        self.load(weights, biases)
        self._layers: list[Layer] = []
        for here, bias_here, mask in zip(self._weights, self._biases, masks, strict=True):
            values, gradient = self._values[here.place], self._gradient[here.place]
            outputs = here.shape[0]
            shift, shift_gradient = torch.zeros(outputs), torch.zeros(outputs)
            if bias_here is not None:
                shift, shift_gradient = (
                    self._values[bias_here.place],
                    self._gradient[bias_here.place],
                )
            if here.living is None:
                self._layers.append(
                    _Dense(here.shape, mask, values, gradient, shift, shift_gradient)
                )
            else:
                self._layers.append(
                    loops.Products(here.shape, here.living, values, gradient, shift, shift_gradient)
                )
        self._activations = self._buffers(batch)
        self._slopes = self._buffers(batch)[1:]

    def step(self, inputs: Tensor, labels: Tensor, chosen: Tensor, rate: float) -> float:
        """One update on the examples `chosen` [batch] int64 of a data set; the batch's mean loss before it, in nats.

        inputs: [N, …], uint8, which is divided by 255, or float32; labels: [N] int64, in [0, classes). `rate` is the
        learning rate. Raises ValueError where `chosen` has another length.
        """
        if len(chosen) != self._batch:
            raise ValueError(f"{len(chosen)} examples were chosen; every step takes {self._batch}")
        rows = chosen.numpy()
        self._take(_rows(inputs), rows, self._activations)
        loss = self._loops.cross_entropy(
            self._activations[-1], labels.numpy(), rows, self._slopes[-1]
        )
        for number in reversed(range(len(self._layers))):
            into = self._slopes[number - 1] if number else None
            self._layers[number].backward(self._slopes[number], self._activations[number], into)
        self._steps += 1
        self._apply(float(rate))
        return loss

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [n, classes] of inputs [n, …], uint8 or float32."""
        import torch

        buffers = self._buffers(SWEEP)
        rows, everything = _rows(inputs), np.arange(len(inputs))
        logits = np.empty((len(buffers[-1]), len(inputs)), np.float32)
        for start in range(0, len(rows), SWEEP):
            chosen = everything[start : start + SWEEP]
            self._take(rows, chosen, buffers)
            logits[:, start : start + SWEEP] = buffers[-1][:, : len(chosen)]
        return torch.from_numpy(logits).t().contiguous()

    def weights(self) -> list[Tensor]:
        """The weights now, [out, in] each, masked ones 0."""
        return [trained.expand(self._values) for trained in self._weights]

    def biases(self) -> list[Tensor | None]:
        """The biases now, [out] each, None where there is none."""
        return [
            None if trained is None else trained.expand(self._values) for trained in self._biases
        ]

    def load(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        """Goes on from these weights, [out, in] each, and biases; what they say of masked weights is left out."""
        for trained, start in zip(self._trained, _present(weights, biases), strict=True):
            self._values[trained.place] = trained.compress(start)

    def state(self) -> list[dict[str, Tensor]]:
        """The optimizer's state as torch.optim names it, a dict for each weight and bias in the order of the layers.

        Dense, in the parameter's shape, 0 where masked; empty where torch keeps nothing.
        """
        import torch

        names = self._names() if self._steps else {}
        steps = {"step": torch.tensor(float(self._steps))} if len(names) == 2 else {}
        return [
            {name: tensor.clone() for name, tensor in steps.items()}
            | {name: trained.expand(flat) for name, flat in names.items()}
            for trained in self._trained
        ]

    def load_state(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Goes on from a state of `state()`'s form; what it says of masked weights is left out."""
        self._steps = 0
        for trained, known in zip(self._trained, state, strict=True):
            for name, flat in self._names().items():
                flat[trained.place] = trained.compress(known[name]) if name in known else 0.0
                if name in known:
                    self._steps = (
                        int(known["step"]) if "step" in known else 1
                    )  # SGD asks only whether it is the first

    @property
    def _trained(self) -> list[_Trained]:
        return _present(self._weights, self._biases)

    def _names(self) -> dict[str, Tensor]:
        if self._update.rule != "sgd":
            return {"exp_avg": self._first, "exp_avg_sq": self._second}
        return {"momentum_buffer": self._first} if self._update.momentum else {}

    def _buffers(self, examples: int) -> list[Floats]:
        """Room for the inputs and every layer's outputs, [features, examples, rounded up]."""
        import torch

        width = -(-examples // TILE) * TILE
        features = [self._weights[0].shape[1], *(trained.shape[0] for trained in self._weights)]
        return [torch.zeros(count, width).numpy() for count in features]

    def _take(self, rows: NDArray[Any], chosen: Longs, buffers: Sequence[Floats]) -> None:
        """Inputs and every layer's outputs for some examples, into the buffers."""
        scale = 1 / 255 if rows.dtype == np.uint8 else 1.0
        self._loops.gather(rows, chosen, self._layers[0].reads, scale, buffers[0])
        for number, layer in enumerate(self._layers, 1):
            layer.forward(buffers[number - 1], buffers[number], number < len(self._layers))

    def _apply(self, rate: float) -> None:
        """Updates all weights and biases from their gradients."""
        values, gradient, first, second = self._flat
        how = self._update
        if how.rule == "sgd" and not how.momentum:
            self._loops.sgd(values, gradient, rate, how.weight_decay)
        elif how.rule == "sgd":
            fresh = 1.0 if self._steps == 1 else 1 - how.dampening
            self._loops.momentum_sgd(
                values, gradient, first, rate, how.weight_decay, how.momentum, fresh, how.nesterov
            )
        else:
            coupled, decoupled = (
                (how.weight_decay, 0.0) if how.rule == "adam" else (0.0, how.weight_decay)
            )
            self._loops.adam(
                values,
                gradient,
                first,
                second,
                self._steps,
                rate,
                how.beta1,
                how.beta2,
                how.eps,
                coupled,
                decoupled,
            )


def warm_up(loops: Loops) -> None:
    """Compiles every loop, or loads it from disk: with numba a few seconds the first time on a machine."""
    import torch

    mask = torch.eye(2, dtype=torch.bool)
    labels = torch.zeros(1, dtype=torch.int64)
    for update in (Update("sgd"), Update("sgd", momentum=0.9), Update("adam")):
        for dtype in (torch.uint8, torch.float32):
            chain = SparseChain(
                [torch.eye(2)] * 3, [mask, mask, None], [None] * 3, update, 1, 1.0, loops
            )
            chain.step(torch.ones(1, 2, dtype=dtype), labels, labels, 0.1)


@dataclass(frozen=True)
class _Trained:
    """A weight or a bias: its shape and mask, the places of the entries that are kept (None: all), and where those lie
    in a flat array."""

    shape: Sequence[int]
    mask: Tensor | None
    living: Tensor | None
    start: int

    @property
    def stop(self) -> int:
        return self.start + (int(np.prod(self.shape)) if self.living is None else len(self.living))

    @property
    def place(self) -> slice:
        return slice(self.start, self.stop)

    def compress(self, dense: Tensor) -> Tensor:
        if self.living is not None:
            return dense.flatten()[self.living]
        return (dense if self.mask is None else dense.where(self.mask, 0.0)).flatten()

    def expand(self, flat: Tensor) -> Tensor:
        if self.living is None:
            return flat[self.place].reshape(*self.shape).clone()
        dense = flat.new_zeros(int(np.prod(self.shape)))
        dense[self.living] = flat[self.place]
        return dense.reshape(*self.shape)


def _present(weights: Sequence[_T], biases: Sequence[_T | None]) -> list[_T]:
    """Weight and bias of each layer in turn, as `Module.parameters()` has them."""
    return [part for pair in zip(weights, biases, strict=True) for part in pair if part is not None]


def _rows(inputs: Tensor) -> NDArray[Any]:
    """The same memory, an example a row."""
    return inputs.reshape(len(inputs), -1).numpy()


class _Dense:
    """Products by BLAS; a mask, if any, holds the gradient of its masked weights at 0, and so the weights."""

    def __init__(
        self,
        shape: Sequence[int],
        mask: Tensor | None,
        values: Tensor,
        gradient: Tensor,
        bias: Tensor,
        bias_gradient: Tensor,
    ):
        self._weight, self._gradient = values.view(*shape), gradient.view(*shape)
        self._bias, self._bias_gradient = bias.view(-1, 1), bias_gradient
        self._alive = None if mask is None else mask.float()
        self.reads = np.arange(shape[1], dtype=np.int32)

    def forward(self, x: Floats, y: Floats, rectify: bool) -> None:
        import torch

        out = torch.from_numpy(y)
        torch.addmm(self._bias, self._weight, torch.from_numpy(x), out=out)
        if rectify:
            out.relu_()

    def backward(self, dy: Floats, x: Floats, dx: Floats | None) -> None:
        import torch

        slope, inputs = torch.from_numpy(dy), torch.from_numpy(x)
        torch.mm(slope, inputs.t(), out=self._gradient)
        torch.sum(slope, 1, out=self._bias_gradient)
        if self._alive is not None:
            self._gradient.mul_(self._alive)
        if dx is not None:
            into = torch.from_numpy(dx)
            torch.mm(self._weight.t(), slope, out=into)
            torch.ops.aten.threshold_backward.grad_input(into, inputs, 0.0, grad_input=into)
