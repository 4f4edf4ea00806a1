"""Trainings in progress: when to evaluate, what to keep, how to go on. A kernel makes the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError, TrainingDiverged
from lotteryfw.api.metrics import Curve, Metrics
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.steps import Clock
from lotteryfw.engine.batch_norm import with_own_statistics
from lotteryfw.engine.kernels.dispatch import description_of, make_kernel
from lotteryfw.engine.kernels.kernel import Member
from lotteryfw.engine.learned_mask import evaluate_state
from lotteryfw.engine.mask_changes import ChangeSteps
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Train

_CURVE = ("step", "train_loss", "validation_loss", "validation_accuracy")
_STATE, _BEST, _OPTIMIZER = "value", "best", "optimizer"


class TrainingGroup:
    """Trainings that one kernel advances in step; mostly a group of one."""

    def __init__(self, jobs: Sequence[Train], context: EngineContext):
        jobs = [with_own_statistics(job, context) for job in jobs]
        self.kernel = make_kernel(jobs, context)
        # The losses since the last evaluation. They stay on the device: a look at them waits.
        self._losses = torch.zeros(len(jobs), dtype=self.kernel.loss_dtype, device=context.device)
        self.trainings: list[Training] = []
        for slot, (job, member) in enumerate(zip(jobs, self.kernel.members, strict=True)):
            self.trainings.append(Training(job, context, member, self._losses[slot]))

    def close(self) -> None:
        """Release what the kernel holds beside memory."""
        description_of(self.trainings[0].job.kernel).close(self.kernel)

    def update(self, step: int, until: int, interrupt: Callable[[int], bool]) -> int:
        """Make the updates from `step` on, and return how many were made.

        They end at step `until`, or once `interrupt` returns True, which is called with the step
        after every update.
        """
        factor = self.trainings[0].factor
        updates = 0
        while step < until:
            # An addition on the device: nobody waits for the loss of a single step.
            self._losses += self.kernel.update(step, factor(step))
            step += 1
            updates += 1
            if interrupt(step):
                break
        return updates


class Training:
    """A training in progress, at `step` of its schedule.

    Everything that a checkpoint must hold is in `checkpoint()`.
    """

    def __init__(self, job: Train, context: EngineContext, member: Member, losses: Tensor):
        """`losses`: the sum of the losses since the last evaluation, 0-d, that its group adds to."""
        self.job = job
        self.member = member
        self._context = context
        self._clock = Clock(job.total, job.steps_per_epoch)
        self._schedule = context.component(job.schedule)
        self._mask_changes = ChangeSteps(job, context)
        self._last_change = self._mask_changes.last()
        spec = job.parametrization
        if spec is not None and context.component(spec).trains_weights:
            # Its density falls until the end, and the one that is reported is that of the end.
            self._last_change = self.end
        self.step = job.start
        self.curve: dict[str, list[Any]] = {name: [] for name in (*_CURVE, *member.curve_units)}
        self._losses = losses
        self._counted = 0
        self.best_step = -1
        self.best = NetworkState()

    @property
    def end(self) -> int:
        """The step at which this training is over."""
        return self.job.start + self.job.steps

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate for the update from `step` to `step + 1`."""
        # A training that goes on after its schedule, as fine-tuning does, keeps the last factor.
        factor: float = self._schedule.factor(min(step, self.job.total - 1), self._clock)
        try:
            is_finite = math.isfinite(factor)
        except TypeError:
            is_finite = False
        if not is_finite:
            raise ContractError(
                f"{describe(self.job.schedule)}: factor() returned {factor!r} for step {step}; it "
                "must return a finite number"
            )
        return factor

    def count(self, updates: int) -> None:
        """Count updates that were made, none of them beyond `next_point`, and evaluate where due.

        Raises TrainingDiverged.
        """
        self.step += updates
        self._counted += updates
        is_point = self.step in (self.job.start, self.end)
        is_point |= self.step % self.job.evaluate_every == 0
        # The curve shows every change of the masks.
        is_point |= self.step in self._mask_changes
        # A resumed training stands at a point that its curve has already.
        if is_point and self.curve["step"][-1:] != [self.step]:
            self._evaluate()

    @property
    def next_point(self) -> int:
        """The next step at which the network is evaluated."""
        every = self.job.evaluate_every
        point = min(self.end, (self.step // every + 1) * every)
        return self._mask_changes.next(self.step, point)

    def _evaluate(self) -> None:
        """Add a point to the curve and keep the best state so far. Raises TrainingDiverged."""
        loss, accuracy = self.member.evaluate("validation")
        train_loss = float(self._losses) / self._counted if self._counted else None
        if not math.isfinite(loss) or (train_loss is not None and not math.isfinite(train_loss)):
            raise TrainingDiverged(self.step)
        self._context.last_points[self.job.key] = (loss, accuracy)
        # Before the last change of the masks the network is another than the one that is found: a
        # denser one, mostly.
        if self.step >= self._last_change and loss < self._best_loss():
            self.best_step = self.step
            # The member's own tensors change at the next update.
            self.best = self.member.state().copied()
        point = {
            "step": self.step,
            "train_loss": train_loss,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            **self.member.curve_figures(),
        }
        for name, value in point.items():
            self.curve[name].append(value)
        self._losses.zero_()
        self._counted = 0

    def _best_loss(self) -> float:
        if self.best_step < 0:
            return math.inf
        best: float = self.curve["validation_loss"][self.curve["step"].index(self.best_step)]
        return best

    def metrics(self) -> Metrics:
        """Return the figures of the finished training.

        The test set is read here alone, for the end and the best step.
        """
        curve = self.curve
        best = curve["step"].index(self.best_step)
        # The last step is mostly the best one: it is then measured once.
        early = test = self.member.evaluate("test")
        if self.best_step != self.step:
            early = evaluate_state(self.job, self._context, self.best, "test")
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
            curve=Curve.of({**curve, "units": self.member.curve_units}),
        )

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain data, enough to go on bit for bit."""
        parts = {
            _STATE: self.member.state().encoded(),
            _BEST: self.best.encoded(),
            _OPTIMIZER: self.member.optimizer_state(),
        }
        tensors = {"losses": self._losses}
        for part, named in parts.items():
            for name, tensor in named.items():
                tensors[f"{part}.{name}"] = tensor
        plain = {
            "step": self.step,
            "counted": self._counted,
            "best_step": self.best_step,
            "curve": self.curve,
        }
        return tensors, plain

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Go back to a state that `checkpoint()` returned.

        Raises ValueError, KeyError or TypeError for anything else.
        """
        # Everything is checked before anything of this object changes.
        curve = {name: list(plain["curve"][name]) for name in self.curve}
        are_whole = all(isinstance(plain[name], int) for name in ("step", "counted", "best_step"))
        lengths = set(map(len, curve.values()))
        if not are_whole or len(lengths) != 1 or set(plain["curve"]) != set(curve):
            raise ValueError("its numbers are not those of a training")

        parts: dict[str, dict[str, Tensor]] = {_STATE: {}, _BEST: {}, _OPTIMIZER: {}}
        for label, tensor in tensors.items():
            part, _, name = label.partition(".")
            if part == _OPTIMIZER:
                # An optimizer moves its state by itself: counts of steps mostly stay on the CPU.
                parts[part][name] = tensor
            elif part in parts:
                parts[part][name] = tensor.to(self._losses.device)
        self.member.restore(NetworkState.decoded(parts[_STATE]), parts[_OPTIMIZER])
        self.best = NetworkState.decoded(parts[_BEST])
        self._losses.copy_(tensors["losses"])
        self.step = plain["step"]
        self._counted = plain["counted"]
        self.best_step = plain["best_step"]
        self.curve = curve
