"""What the displays say of a run: counted by hand, with a clock that the test moves."""

from __future__ import annotations

import json
import math
import time

import pytest

from lotteryfw.api.events import (
    CellFinished,
    Finding,
    JobFailed,
    JobFinished,
    LevelFinished,
    RunFinished,
    RunStarted,
    TrainingProgress,
)
from lotteryfw.api.metrics import Curve, Metrics
from lotteryfw.session.displays import JsonLines, PlainLines
from lotteryfw.session.run_progress import RunProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


START = RunStarted("small", "runs/small", cells=2, jobs=4, steps=400)


def test_the_summary_has_jobs_cells_speed_and_time_left() -> None:
    clock = Clock()
    progress = RunProgress(clock)
    progress.event(START)
    clock.now += 10
    progress.event(JobFinished("a", 100, stored=False, seconds=9.0))
    progress.event(JobFinished("b", 100, stored=True, seconds=0.0))
    progress.event(CellFinished("one", "done"))
    # 100 of 400 steps in 10 s: 300 are left at 10 a second
    assert progress.summary() == "2/4 jobs  1/2 cells  10 steps/s  10 s  about 30 s left"
    progress.event(RunFinished("runs/small", 2, 0, 0))
    # two jobs were shared, and nothing is pending
    assert progress.summary() == "2 jobs  2 cells  10 steps/s  10 s"


def test_a_finished_run_with_failed_cells_has_no_pending_jobs() -> None:
    clock = Clock()
    progress = RunProgress(clock)
    progress.event(START)
    clock.now += 10
    progress.event(JobFinished("a", 100, stored=False, seconds=9.0))
    progress.event(CellFinished("one", "failed"))
    assert progress.summary().startswith("1/4 jobs  1/2 cells")
    progress.event(RunFinished("runs/small", cells=2, failed=1, diverged=1))
    assert progress.summary() == "1 job  2 cells, 1 failed, 1 diverged  10 steps/s  10 s"


def test_a_running_training_has_steps_figures_speed_and_time_left() -> None:
    clock = Clock()
    progress = RunProgress(clock)
    progress.event(START)
    # it goes on from a checkpoint at step 40: those steps were not made now
    progress.training(TrainingProgress("0123456789", 40, 100))
    assert progress.trainings(2) == ["training 01234567: step 40 of 100"]
    clock.now += 4
    progress.training(TrainingProgress("0123456789", 60, 100, 0.51234, 0.875))
    assert progress.trainings(2) == [
        "training 01234567: step 60 of 100  loss 0.5123  accuracy 87.50% (validation)  5 steps/s"
        "  8 s left"
    ]
    progress.training(TrainingProgress("f" * 20, 1, 100))
    assert progress.trainings(1)[0].endswith("and 1 more training")
    # the steps of running trainings count for the whole: 20 steps in 4 s, and 400 - 60 - 1 left
    assert progress.summary() == "0/4 jobs  0/2 cells  5 steps/s  4 s  about 1 min 8 s left"
    clock.now += 8
    # the runner reports the 60 steps that were made now
    progress.event(JobFinished("0123456789", 60, stored=False, seconds=5.0))
    assert len(progress.trainings(4)) == 1
    # 60 of its 100 steps were made now, in 12 s: finishing makes no speed of those before
    assert progress.summary() == "1/4 jobs  0/2 cells  5 steps/s  12 s  about 1 min 0 s left"


def test_a_training_that_diverged_leaves_none_of_its_steps_to_do() -> None:
    clock = Clock()
    progress = RunProgress(clock)
    progress.event(START)
    progress.training(TrainingProgress("a", 0, 100))
    clock.now += 10
    progress.training(TrainingProgress("a", 20, 100))
    progress.event(JobFinished("a", 20, stored=False, seconds=9.0))
    assert progress.summary() == "1/4 jobs  0/2 cells  2 steps/s  10 s  about 2 min 30 s left"


def test_a_training_that_failed_is_shown_no_longer_and_one_that_starts_again_from_there() -> None:
    clock = Clock()
    progress = RunProgress(clock)
    progress.event(START)
    for key in "ab":
        progress.training(TrainingProgress(key, 0, 100))
        progress.training(TrainingProgress(key, 80, 100))
    clock.now += 10
    progress.event(JobFailed("a", "out of luck"))
    # its process was killed, and another begins at the last checkpoint
    progress.training(TrainingProgress("b", 40, 100))
    clock.now += 10
    progress.training(TrainingProgress("b", 60, 100))
    assert progress.trainings(2) == ["training b: step 60 of 100  2 steps/s  20 s left"]


def test_json_lines_are_json_where_a_figure_is_not_finite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    curve = Curve((0, 10), (None, 0.5), (0.1, math.inf), (0.5, math.nan))
    figures = (math.nan, 0.5, math.inf, 0.5, 0.1, 0.5, 0.1, 0.5)
    metrics = Metrics(10, 10, *figures, curve)
    view = JsonLines()
    view.event(LevelFinished("a cell", "ticket", 1, 0.5, metrics))
    view.event(Finding("x", "a cell", "ticket", 1, "y", (0.5, math.nan), "", ""))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = capsys.readouterr().out.splitlines()
    level, finding = (json.loads(line, parse_constant=refuse) for line in lines)
    assert level["metrics"]["validation_loss"] is None
    assert level["metrics"]["validation_accuracy"] == 0.5
    assert finding["value"] == [0.5, None]


def test_plain_lines_come_without_a_call_and_end_with_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainLines(seconds=0.01) as view:
        view.event(START)
        view.progress(TrainingProgress("0123456789", 40, 100, 0.5, 0.75))
        deadline = time.monotonic() + 60
        lines: list[str] = []
        # nothing happens any more, as in a long step
        while len(lines) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
            lines += capsys.readouterr().err.splitlines()
    assert lines[0] == "small: 2 cells, up to 4 jobs and 400 steps to do → runs/small"
    assert "0/4 jobs" in lines[1]
    assert "step 40 of 100  loss 0.5  accuracy 75.00% (validation)" in lines[1]
    after = capsys.readouterr().err
    assert "0/4 jobs" in after
    time.sleep(0.05)
    assert capsys.readouterr().err == ""
