"""Trains an MLP of Linear and ReLU layers at a cost that falls with the density of its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lotteryfw.engine.kernels.optimizer_rules import UpdateRule
from lotteryfw.engine.kernels.sparse.loops import Loops
from lotteryfw.engine.kernels.sparse.mlp_products import MlpProducts


class SparseMlp:
    """Linear → ReLU → … → Linear in training (see `MlpProducts`).

    Masked weights stay as they are; with a weight decay they must be 0.
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
        self._loops = loops
        self._update = update
        self._steps = 0
        # Arrays that the rule does not use stay empty.
        size = len(self.products.values)
        self._first = torch.zeros(size if update.rule != "sgd" or update.momentum else 0)
        self._second = torch.zeros(size if update.rule != "sgd" else 0)
        flats = (self.products.values, self.products.gradient, self._first, self._second)
        self._flat = [flat.numpy() for flat in flats]

    def step(self, inputs: Tensor, labels: Tensor, indices: Tensor, rate: float) -> float:
        """Make one update at a learning rate, and return the mean loss of the batch before it.

        See `MlpProducts.loss_and_gradient`.
        """
        loss = self.products.loss_and_gradient(inputs, labels, indices)
        # Before the update, which Adam's correction of its bias counts from 1.
        self._steps += 1
        self._apply_gradient(float(rate))
        return loss

    def optimizer_state(self) -> list[dict[str, Tensor]]:
        """Return the optimizer's state, a dict for each weight and bias in the order of layers.

        It has torch.optim's names; its tensors are dense, in the parameter's shape, 0 where masked;
        it is empty where torch keeps nothing.
        """
        names = self._state_names() if self._steps else {}
        states = []
        for parameter in self.products.parameters:
            state = {name: parameter.expand(flat) for name, flat in names.items()}
            # Adam and AdamW, which have two moments, count their steps.
            if len(names) == 2:
                state = {"step": torch.tensor(float(self._steps)), **state}
            states.append(state)
        return states

    def load_optimizer_state(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from states of the form of `optimizer_state()`; masked weights are ignored."""
        self._steps = 0
        for parameter, state in zip(self.products.parameters, states, strict=True):
            for name, flat in self._state_names().items():
                # torch keeps no state of a parameter that no step has updated.
                if name not in state:
                    flat[parameter.span] = 0.0
                    continue
                alive = state[name]
                if parameter.mask is not None:
                    alive = alive.where(parameter.mask, 0.0)
                flat[parameter.span] = parameter.compress(alive)
                # SGD asks only whether it is the first step.
                self._steps = int(state["step"]) if "step" in state else 1

    def _state_names(self) -> dict[str, Tensor]:
        if self._update.rule != "sgd":
            return {"exp_avg": self._first, "exp_avg_sq": self._second}
        return {"momentum_buffer": self._first} if self._update.momentum else {}

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
