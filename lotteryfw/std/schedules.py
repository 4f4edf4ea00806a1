"""Learning-rate schedules: a factor for each step, each with an optional linear warmup."""

from __future__ import annotations

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field

from lotteryfw import Clock, Schedule, Step

Per = Annotated[
    Literal["step", "epoch"],
    Field(
        description="step: the factor changes at every step; epoch: after the warmup it is that of "
        "the epoch's first step, as in code that calls its scheduler once an epoch."
    ),
]
Warmup = Annotated[
    Step | None,
    Field(
        description="The factor rises linearly over this length, from 1 / its steps to 1; "
        "left out: no warmup."
    ),
]


class Constant(Schedule):
    """The learning rate stays as it is."""

    use = "constant"
    formula = "1"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, figure 2"
    default = True

    warmup: Warmup = None

    def factor(self, step: int, clock: Clock) -> float:
        return _warmed_up(step, _steps(self.warmup, clock))


class Multistep(Schedule):
    """The learning rate drops at given steps."""

    use = "multistep"
    formula = "gamma ^ (number of milestones reached)"
    source = "Frankle et al. 2019, Stabilizing the Lottery Ticket Hypothesis, figure 1"

    milestones: list[Step] = Field(min_length=1)
    """The steps at which it drops, counted from the start of training."""
    gamma: float = Field(default=0.1, gt=0)
    """The factor that it is multiplied by at each milestone."""
    warmup: Warmup = None

    def factor(self, step: int, clock: Clock) -> float:
        # >=: the step at a milestone is the first one at the lower rate
        reached = sum(step >= clock.steps(milestone) for milestone in self.milestones)
        return self.gamma**reached * _warmed_up(step, _steps(self.warmup, clock))


class Cosine(Schedule):
    """The learning rate falls along half a cosine, from the end of the warmup on."""

    use = "cosine"
    formula = (
        "final + (1 - final) (1 + cos(π t)) / 2, "
        "t in [0, 1) the share of the steps after the warmup"
    )
    source = (
        "Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, section 3"
    )

    final: float = Field(default=0.0, ge=0, le=1)
    """The factor that it falls to."""
    warmup: Warmup = None
    per: Per = "step"

    def factor(self, step: int, clock: Clock) -> float:
        warmup = _steps(self.warmup, clock)
        if step < warmup:
            return _warmed_up(step, warmup)
        if self.per == "epoch":
            # a warmup may end within an epoch, and no share of the cosine lies before it
            step = max(warmup, step - step % clock.steps_per_epoch)
        share = (step - warmup) / (clock.total - warmup)
        return self.final + (1 - self.final) * (1 + cos(pi * share)) / 2


def _steps(warmup: Step | None, clock: Clock) -> int:
    return 0 if warmup is None else clock.steps(warmup)


def _warmed_up(step: int, warmup: int) -> float:
    """Return the factor of a warmup: 1 / warmup at step 0, 1 from its last step on."""
    return min(1.0, (step + 1) / max(1, warmup))
