"""Rewind policies: the point where each round after the dense one starts."""

from __future__ import annotations

from typing import Literal

from lotteryfw import LATEST, Clock, RewindPoint, RewindPolicy, Step


class ToInit(RewindPolicy):
    """Back to the dense network's initial weights."""

    use = "to_init"
    formula = "weights and schedule of step 0"
    source = "Frankle & Carbin 2019, The Lottery Ticket Hypothesis, section 1"
    default = True

    def point(self, clock: Clock) -> RewindPoint:
        return RewindPoint(weights=0, schedule=0)


class ToStep(RewindPolicy):
    """Back to an early step of the dense training: weights and schedule alike."""

    use = "to_step"
    formula = "weights and schedule of step k"
    source = "Frankle et al. 2019, Stabilizing the Lottery Ticket Hypothesis, section 3"

    step: Step
    """Step k of the dense training."""
    optimizer: Literal["fresh", "saved"] = "fresh"
    """Start the optimizer's state (momentum, …) anew, or from what it was at step k."""
    buffers: Literal["rewound", "latest"] = "rewound"
    """Batch-norm statistics: those of step k, or those that the round just trained ended with."""

    def point(self, clock: Clock) -> RewindPoint:
        step = clock.steps(self.step)
        return RewindPoint(
            weights=step, schedule=step, optimizer=self.optimizer, buffers=self.buffers
        )


class LearningRate(RewindPolicy):
    """Weights stay as trained, the learning-rate schedule starts over."""

    use = "learning_rate"
    formula = "latest weights, schedule of step 0"
    source = (
        "Renda et al. 2020, Comparing Rewinding and Fine-tuning in Neural Network Pruning, "
        "section 3"
    )

    def point(self, clock: Clock) -> RewindPoint:
        # trained weights belong to the batch-norm statistics that they were trained with
        return RewindPoint(weights=LATEST, schedule=0, buffers="latest")


class FineTune(RewindPolicy):
    """Weights stay as trained, training goes on at the last learning rate."""

    use = "fine_tune"
    formula = "latest weights, schedule held at its end"
    source = (
        "Renda et al. 2020, Comparing Rewinding and Fine-tuning in Neural Network Pruning, "
        "section 3"
    )

    length: Step | None = None
    """The length of each round; left out: that of the dense training."""

    def point(self, clock: Clock) -> RewindPoint:
        steps = clock.total if self.length is None else clock.steps(self.length)
        # the end of the schedule, whose factor then holds: fine-tuning uses the last learning rate
        return RewindPoint(weights=LATEST, schedule=clock.total, steps=steps, buffers="latest")
