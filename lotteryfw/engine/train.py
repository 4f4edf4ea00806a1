"""The reference kernel: trains any unmodified `nn.Module` under a mask, one plain step after another.

It is the truth that faster kernels are held against. Masked weights are put back to what they are frozen at after every
update, so neither momentum nor weight decay can move them, whatever the optimizer does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lotteryfw.engine.checkpoint import load_optimizer, optimizer_tensors
from lotteryfw.engine.feed import Feed
from lotteryfw.engine.workshop import Workshop
from lotteryfw.errors import TrainingDiverged
from lotteryfw.jobs import Gradient, Train
from lotteryfw.rng import seed_of, stream
from lotteryfw.steps import Clock
from lotteryfw.views import Curve, Metrics

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Training:
    """One training in progress. Everything that a checkpoint must hold is in `state()`."""

    def __init__(self, job: Train, shop: Workshop):
        import torch

        self.job = job
        self.feed: Feed = shop.feed(job.data)
        self.module = shop.network(job.model, self.feed)
        names = {name for name, _ in self.module.named_parameters()}
        values = {name: value.to(shop.device, copy=True) for name, value in job.values.items()}
        self.parameters = {name: v.requires_grad_() for name, v in values.items() if name in names}
        self.buffers = {name: v for name, v in values.items() if name not in names}
        self._frozen = _frozen(job, self.parameters)
        self._augment = [shop.component(spec) for spec in job.augment]
        self._clock = Clock(job.total, job.steps_per_epoch)
        self._schedule = shop.component(job.schedule)
        self._optimizer: torch.optim.Optimizer = shop.component(job.optimizer).build(list(self.parameters.values()))
        if job.optimizer_state is not None:
            load_optimizer(self._optimizer, job.optimizer_state)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._factor = 1.0
        self.step = job.start
        self.curve: dict[str, list[Any]] = {
            "step": [], "train_loss": [], "validation_loss": [], "validation_accuracy": []
        }  # fmt: skip
        self._losses = torch.zeros((), device=shop.device)
        self._counted = 0
        self.best_step = -1
        self.best: dict[str, Tensor] = {}
        torch.manual_seed(seed_of(job.order_seed, "in training"))  # what dropout and the like draw from

    @property
    def end(self) -> int:
        """The step at which this training is over."""
        return self.job.start + self.job.steps

    def advance(self) -> None:
        """One optimizer update."""
        import torch
        from torch.func import functional_call
        from torch.nn.functional import cross_entropy

        job = self.job
        inputs, labels = self.feed.batch(self.step, job.batch, job.steps_per_epoch, job.order_seed)
        for position, augmentation in enumerate(self._augment):
            inputs = augmentation.apply(inputs, stream(job.augment_seed, "augmentation", position, self.step))
        factor = self._schedule.factor(min(self.step, job.total - 1), self._clock)
        if factor != self._factor:
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._factor = factor
        self.module.train()
        logits = functional_call(self.module, {**self.parameters, **self.buffers}, (inputs,))
        loss = cross_entropy(logits, labels)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.hold_frozen()
        self._losses += loss.detach()
        self._counted += 1
        self.step += 1

    def hold_frozen(self) -> None:
        """Puts every masked weight back to its mask-0 value, bit for bit."""
        import torch

        with torch.no_grad():
            for name, dead, value in self._frozen:
                if value is None:
                    self.parameters[name].masked_fill_(dead, 0.0)
                else:
                    torch.where(dead, value, self.parameters[name], out=self.parameters[name])

    @property
    def evaluation_due(self) -> bool:
        """True at the start, at the end, and at every `evaluate_every`-th step of the schedule."""
        return self.step in (self.job.start, self.end) or self.step % self.job.evaluate_every == 0

    def evaluate(self) -> None:
        """Adds a point to the curve and keeps the best weights so far. Raises TrainingDiverged."""
        loss, accuracy = self.measure("validation", self.values())
        mean = float(self._losses) / self._counted if self._counted else None
        if not math.isfinite(loss) or (mean is not None and not math.isfinite(mean)):
            raise TrainingDiverged(self.step)
        for name, value in zip(self.curve, (self.step, mean, loss, accuracy), strict=True):
            self.curve[name].append(value)
        self._losses.zero_()
        self._counted = 0
        if loss <= min(self.curve["validation_loss"]) and (not self.best or loss < self._best_loss()):
            self.best_step = self.step
            self.best = {name: value.clone() for name, value in self.values().items()}

    def _best_loss(self) -> float:
        return float(self.curve["validation_loss"][self.curve["step"].index(self.best_step)])

    def measure(self, part: str, values: Mapping[str, Tensor]) -> tuple[float, float]:
        """Mean loss (nats) and accuracy in [0, 1] of `values` over every example of a part of the data."""
        import torch
        from torch.func import functional_call
        from torch.nn.functional import cross_entropy

        self.module.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self._losses.device)
        correct = torch.zeros((), dtype=torch.int64, device=self._losses.device)
        examples = 0
        with torch.no_grad():
            for inputs, labels in self.feed.sweep(part):
                logits = functional_call(self.module, dict(values), (inputs,))
                loss += cross_entropy(logits, labels, reduction="sum")
                correct += (logits.argmax(1) == labels).sum()
                examples += len(labels)
        return float(loss) / examples, int(correct) / examples

    def values(self) -> dict[str, Tensor]:
        """Every parameter and buffer now (not copies)."""
        return {**{name: p.detach() for name, p in self.parameters.items()}, **self.buffers}

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state now, as tensors."""
        return optimizer_tensors(self._optimizer)

    def metrics(self) -> Metrics:
        """The figures of the finished training. The test set is read here, at the end and at the best step."""
        curve = self.curve
        best = curve["step"].index(self.best_step)
        test = self.measure("test", self.values())
        early = test if self.best_step == self.step else self.measure("test", self.best)
        return Metrics(
            steps=self.job.steps,
            early_stop_step=self.best_step,
            validation_loss=curve["validation_loss"][-1],
            validation_accuracy=curve["validation_accuracy"][-1],
            test_loss=test[0],
            test_accuracy=test[1],
            early_validation_loss=curve["validation_loss"][best],
            early_validation_accuracy=curve["validation_accuracy"][best],
            early_test_loss=early[0],
            early_test_accuracy=early[1],
            curve=Curve(**{name: tuple(values) for name, values in curve.items()}),
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint holds: tensors and plain data, enough to go on bit for bit."""
        import torch

        tensors = {f"value.{name}": value for name, value in self.values().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer_state().items()}
        tensors |= {"losses": self._losses, "rng": torch.get_rng_state()}
        if self._losses.is_cuda:
            tensors["rng_cuda"] = torch.cuda.get_rng_state()
        plain = {"step": self.step, "counted": self._counted, "best_step": self.best_step, "curve": self.curve}
        return tensors, plain

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Goes back to a state that `state()` gave."""
        import torch

        parts: dict[str, dict[str, Tensor]] = {"value": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            if head in parts:
                parts[head][rest] = tensor.to(self._losses.device)
        with torch.no_grad():
            for name, value in self.values().items():
                value.copy_(parts["value"][name])
        self.best = parts["best"]
        load_optimizer(self._optimizer, parts["optimizer"])
        self._losses.copy_(tensors["losses"])
        torch.set_rng_state(tensors["rng"].cpu())
        if "rng_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng_cuda"].cpu())
        self.step, self._counted, self.best_step = plain["step"], plain["counted"], plain["best_step"]
        self.curve = {name: list(values) for name, values in plain["curve"].items()}


def run(
    training: Training,
    until: int,
    *,
    at_step: Callable[[Training], None],
) -> None:
    """Trains up to step `until`, evaluating on the way; `at_step` is called at the start and after every update."""
    if training.step == training.job.start and not training.curve["step"]:
        training.evaluate()
        at_step(training)
    while training.step < until:
        training.advance()
        if training.evaluation_due:
            training.evaluate()
        at_step(training)


def gradient(job: Gradient, shop: Workshop) -> dict[str, Tensor]:
    """The gradient of the mean training loss, for every leaf, over the whole training set in the training mode."""
    import torch
    from torch.func import functional_call
    from torch.nn.functional import cross_entropy

    feed = shop.feed(job.data)
    module = shop.network(job.model, feed).train()
    values = {name: value.to(shop.device, copy=True) for name, value in job.values.items()}
    leaves = {name: values[name].requires_grad_() for name in job.mask}
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    for inputs, labels in feed.sweep("train", job.batch):
        loss = cross_entropy(functional_call(module, values, (inputs,)), labels, reduction="sum") / feed.examples
        for name, slope in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            total[name] += slope
    return total


def _frozen(job: Train, parameters: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor | None]]:
    """(name, dead [s] bool, values [s]) of every leaf that has masked weights; None for values that are all zero."""
    frozen: list[tuple[str, Tensor, Tensor | None]] = []
    for name, mask in job.mask.items():
        dead = ~mask.to(parameters[name].device)
        if bool(dead.any()):
            start = parameters[name].detach().clone()
            frozen.append((name, dead, None if not bool(start[dead].any()) else start))
    return frozen
