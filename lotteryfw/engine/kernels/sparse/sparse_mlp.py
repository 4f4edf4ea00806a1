"""Trains an MLP of Linear and ReLU layers at a cost that falls with the density of its masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lotteryfw.engine.kernels.optimizer_rules import UpdateRule
from lotteryfw.engine.kernels.sparse.flat_optimizer import FlatOptimizer
from lotteryfw.engine.kernels.sparse.loops import Loops
from lotteryfw.engine.kernels.sparse.mlp_products import MlpProducts


class SparseMlp:
    """Linear → ReLU → … → Linear in training (see `MlpProducts`).

    The gradient of masked weights is 0, so that they stay as they are, but for -0.0, which may
    become 0.0; with a weight decay they must be 0.
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
        sparse_inputs: bool = False,
    ):
        self.products = MlpProducts(weights, masks, biases, batch, dense_from, loops, sparse_inputs)
        self.optimizer = FlatOptimizer(
            update, self.products.parameters, self.products.values, self.products.gradient, loops
        )

    def step(self, inputs: Tensor, labels: Tensor, indices: Tensor, rate: float) -> float:
        """Make one update at a learning rate, and return the mean loss of the batch before it.

        See `MlpProducts.loss_and_gradient`.
        """
        loss = self.products.loss_and_gradient(inputs, labels, indices)
        self.optimizer.step(float(rate))
        return loss


def warm_up(loops: Loops) -> None:
    """Compile a module of loops, or load them from disk, before steps are tried or timed.

    With numba this takes a few seconds the first time on a machine. The loops of `numba_inputs` and
    `numba_scores` are not among them.
    """
    mask = torch.eye(2, dtype=torch.bool)
    masks = [mask, mask, None]
    labels = torch.zeros(1, dtype=torch.int64)
    for rule in (UpdateRule("sgd"), UpdateRule("sgd", momentum=0.9), UpdateRule("adam")):
        for dtype in (torch.uint8, torch.float32):
            mlp = SparseMlp([torch.eye(2)] * 3, masks, [None] * 3, rule, 1, 1.0, loops)
            mlp.step(torch.ones(1, 2, dtype=dtype), labels, labels, 0.1)
