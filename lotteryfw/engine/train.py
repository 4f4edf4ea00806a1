"""One training from start to end: when to measure, what to keep, how to go on. A kernel does the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lotteryfw.api.errors import TrainingDiverged
from lotteryfw.api.metrics import Curve, Metrics
from lotteryfw.api.rng import seed_of
from lotteryfw.api.steps import Clock
from lotteryfw.engine.kernels.choose import kernel_of
from lotteryfw.engine.kernels.kernel import Kernel, Watched
from lotteryfw.engine.masking import measure_job
from lotteryfw.engine.workshop import Workshop, seed_torch
from lotteryfw.search.jobs import Train

if TYPE_CHECKING:
    from torch import Tensor

    from lotteryfw.engine.kernels.lockstep import Member


class Training:
    """A training in progress, at `step` of its schedule. Everything that a checkpoint must hold is in `state()`."""

    def __init__(self, job: Train, shop: Workshop, member: Member | None = None):
        """`member`: its place in a lockstep group, which then makes the updates and adds the losses up."""
        import torch

        self.job = job
        self.kernel: Kernel = member or kernel_of(job, shop)
        self._shop = shop
        self._clock = Clock(job.total, job.steps_per_epoch)
        self._schedule = shop.component(job.schedule)
        self.step = job.start
        self.curve: dict[str, list[Any]] = {
            "step": [], "train_loss": [], "validation_loss": [], "validation_accuracy": []
        }  # fmt: skip
        if isinstance(self.kernel, Watched):
            self.curve |= {name: [] for name in self.kernel.units}
        self._losses = member.losses if member else torch.zeros((), device=shop.device)
        self._plain_losses = 0.0  # of a kernel that gives numbers
        self._counted = 0
        self.best_step = -1
        self.best: dict[str, Tensor] = {}
        seed_torch(
            seed_of(job.order_seed, "in training"), shop.device
        )  # what dropout and the like draw from

    @property
    def end(self) -> int:
        """The step at which this training is over."""
        return self.job.start + self.job.steps

    def run(self, until: int, at_step: Callable[[Training], None]) -> None:
        """Trains up to step `until`, measuring on the way; `at_step` is called at the start and after every update.

        Raises TrainingDiverged, and what `at_step` raises.
        """
        if not self.curve["step"]:
            self.take(0)
            at_step(self)
        while self.step < until:
            loss = self.kernel.update(self.step, self.factor(self.step))
            if isinstance(loss, float):
                self._plain_losses += loss
            else:
                self._losses += loss
            self.take(1)
            at_step(self)

    def factor(self, step: int) -> float:
        """Times the learning rate, for the update from `step` to `step + 1`."""
        factor: float = self._schedule.factor(min(step, self.job.total - 1), self._clock)
        return factor

    def take(self, updates: int) -> None:
        """Counts updates that were made, none of them beyond `next_point`, and measures where it is time to.

        Raises TrainingDiverged.
        """
        self.step += updates
        self._counted += updates
        is_point = (
            self.step in (self.job.start, self.end) or self.step % self.job.evaluate_every == 0
        )
        if is_point and self.curve["step"][-1:] != [self.step]:
            self._evaluate()

    @property
    def next_point(self) -> int:
        """The next step to measure at."""
        every = self.job.evaluate_every
        return min(self.end, (self.step // every + 1) * every)

    def _evaluate(self) -> None:
        """Adds a point to the curve and keeps the best weights so far. Raises TrainingDiverged."""
        loss, accuracy = self.kernel.measure("validation")
        mean = (float(self._losses) + self._plain_losses) / self._counted if self._counted else None
        if not math.isfinite(loss) or (mean is not None and not math.isfinite(mean)):
            raise TrainingDiverged(self.step)
        if loss < min(self.curve["validation_loss"], default=math.inf):
            self.best_step = self.step
            self.best = {name: value.clone() for name, value in self.kernel.values().items()}
        told = {
            "step": self.step,
            "train_loss": mean,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
        }
        if isinstance(self.kernel, Watched):
            told |= self.kernel.figures()
        for name, value in told.items():
            self.curve[name].append(value)
        self._losses.zero_()
        self._plain_losses = 0.0
        self._counted = 0

    def metrics(self) -> Metrics:
        """The figures of the finished training. The test set is read here, at the end and at the best step."""
        curve, shop = self.curve, self._shop
        units = self.kernel.units if isinstance(self.kernel, Watched) else {}
        best = curve["step"].index(self.best_step)
        early = test = self.kernel.measure("test")
        if self.best_step != self.step:
            feed = shop.feed_of(self.job)
            module = shop.network(self.job.model, feed, self.job.objective)
            early = measure_job(self.job, shop, module, self.best, feed, "test")
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
            curve=Curve.of({**curve, "units": units}),
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint holds: tensors and plain data, enough to go on bit for bit."""
        import torch

        tensors = {f"value.{name}": value for name, value in self.kernel.values().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {
            f"optimizer.{name}": value for name, value in self.kernel.optimizer_state().items()
        }
        tensors |= {"losses": self._losses, "rng": torch.get_rng_state()}
        if self._losses.is_cuda:
            tensors["rng_cuda"] = torch.cuda.get_rng_state()
        plain = {
            "step": self.step,
            "counted": self._counted,
            "best_step": self.best_step,
            "curve": self.curve,
        }
        plain |= {"losses": self._plain_losses}
        return tensors, plain

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Goes back to a state that `state()` gave. Raises ValueError, KeyError or TypeError for another."""
        import torch

        curve = {name: list(plain["curve"][name]) for name in self.curve}
        whole = all(isinstance(plain[name], int) for name in ("step", "counted", "best_step"))
        if (
            not whole
            or len(set(map(len, curve.values()))) != 1
            or set(plain["curve"]) != set(curve)
        ):
            raise ValueError("its numbers are not those of a training")
        parts: dict[str, dict[str, Tensor]] = {"value": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            head, _, rest = name.partition(".")
            if head in parts:
                # an optimizer puts its state where it wants it: counts of steps mostly stay on the CPU
                parts[head][rest] = (
                    tensor if head == "optimizer" else tensor.to(self._losses.device)
                )
        self.kernel.restore(parts["value"], parts["optimizer"])
        self.best = parts["best"]
        self._losses.copy_(tensors["losses"])
        torch.set_rng_state(tensors["rng"].cpu())
        if "rng_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng_cuda"].cpu())
        self.step, self._counted, self.best_step = (
            plain["step"],
            plain["counted"],
            plain["best_step"],
        )
        self._plain_losses = float(plain["losses"])
        self.curve = curve
