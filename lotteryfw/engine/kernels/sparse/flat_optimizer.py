"""The optimizers of torch.optim that have a loop, over flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lotteryfw.engine.kernels.optimizer_rules import UpdateRule
from lotteryfw.engine.kernels.sparse.flat_parameters import FlatParameter
from lotteryfw.engine.kernels.sparse.loops import Loops


class FlatOptimizer:
    """Updates `values` [n] float32 in place along `gradient` [n] float32, which it may write over.

    `parameters` lie in both; entries outside them are updated as well. With a weight decay, values
    that are to stay as they are must be 0.
    """

    def __init__(
        self,
        update: UpdateRule,
        parameters: Sequence[FlatParameter],
        values: Tensor,
        gradient: Tensor,
        loops: Loops,
    ):
        self._update = update
        self._parameters = parameters
        self._loops = loops
        self._steps = 0
        # Arrays that the rule does not use stay empty.
        size = len(values)
        self._first = torch.zeros(size if update.rule != "sgd" or update.momentum else 0)
        self._second = torch.zeros(size if update.rule != "sgd" else 0)
        flats = (values, gradient, self._first, self._second)
        self._flat = [flat.numpy() for flat in flats]

    def step(self, rate: float) -> None:
        """Make one update at a learning rate."""
        # Before the update, which Adam's correction of its bias counts from 1.
        self._steps += 1
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

    def state(self) -> dict[str, Tensor]:
        """Return the state in the form of `lotteryfw.engine.checkpoint`.

        Its tensors are dense, in the parameter's shape, 0 where masked; there are none where torch
        keeps nothing.
        """
        names = self._names() if self._steps else {}
        tensors = {}
        for index, parameter in enumerate(self._parameters):
            # Adam and AdamW, which have two moments, count their steps.
            if len(names) == 2:
                tensors[f"{index}.step"] = torch.tensor(float(self._steps))
            for name, flat in names.items():
                tensors[f"{index}.{name}"] = parameter.expand(flat[parameter.span])
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state of the form of `state()`; masked weights are ignored."""
        self._steps = 0
        for index, parameter in enumerate(self._parameters):
            for name, flat in self._names().items():
                # torch keeps no state of a parameter that no step has updated.
                alive = tensors.get(f"{index}.{name}")
                if alive is None:
                    flat[parameter.span] = 0.0
                    continue
                if parameter.mask is not None:
                    alive = alive.where(parameter.mask, 0.0)
                flat[parameter.span] = parameter.compress(alive)
                # SGD asks only whether it is the first step.
                self._steps = int(tensors.get(f"{index}.step", 1))

    def _names(self) -> dict[str, Tensor]:
        """Return the arrays of the state by torch's names."""
        if self._update.rule != "sgd":
            return {"exp_avg": self._first, "exp_avg_sq": self._second}
        return {"momentum_buffer": self._first} if self._update.momentum else {}
