import pytest
from pydantic import ValidationError

from lotteryfw.api.layers import LATEST
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import RewindPoint
from lotteryfw.std.rewind import FineTune, LearningRate, ToInit, ToStep

CLOCK = Clock(total=1000, steps_per_epoch=50)


def test_rewind_points() -> None:
    assert ToInit().point(CLOCK) == RewindPoint(weights=0, schedule=0)
    assert ToStep(step="2ep").point(CLOCK) == RewindPoint(weights=100, schedule=100)
    assert ToStep(step="1.4%").point(CLOCK) == ToStep(step=14).point(CLOCK)
    assert ToStep(step="14it", optimizer="saved", buffers="latest").point(CLOCK) == RewindPoint(
        weights=14, schedule=14, optimizer="saved", buffers="latest"
    )
    assert LearningRate().point(CLOCK) == RewindPoint(weights=LATEST, schedule=0, buffers="latest")
    assert FineTune().point(CLOCK) == RewindPoint(
        weights=LATEST, schedule=1000, steps=1000, buffers="latest"
    )
    assert FineTune(length="3ep").point(CLOCK).steps == 150


def test_to_step_needs_its_step() -> None:
    with pytest.raises(ValidationError):
        ToStep()
