"""Studies from Python: components and data of the session, `check` and `plan`, display and report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import environment
from support.runs import recipe

import lotteryfw
from lotteryfw import Layer, MaskCriterion, TrainingProgress, UsageError
from lotteryfw.api.errors import RecipeError


class Squares(MaskCriterion):
    """The squares of final weights."""

    use = "squares"

    def score(self, layer: Layer) -> torch.Tensor:
        return layer.final.square()


class Unfinished(MaskCriterion):
    """Has no score."""

    use = "unfinished"


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    parts = {}
    for part, examples in (("train", 120), ("validation", 40), ("test", 40)):
        x = rng.normal(size=(examples, 1, 3, 3))
        parts[part] = (x, (x.sum(axis=(1, 2, 3)) > 0).astype(np.int64))
    return parts


def go(folder: Path, table: Any = None, **arguments: Any) -> lotteryfw.Run:
    arguments = {"quiet": True, "report": False, "jobs": 1, "device": "cpu"} | arguments
    return lotteryfw.run(table or recipe(), out=folder / "run", store=folder / "store", **arguments)


def test_a_component_and_arrays_of_the_session(tmp_path: Path) -> None:
    table = recipe(criterion="squares")
    del table["data"]
    done = go(tmp_path, table, components=[Squares], data=arrays(), jobs=None)
    assert {row.status for row in done.levels} == {"done"}
    assert done.levels[-1].test_accuracy is not None
    # squares are ordered as magnitudes are, so the masks are those of large_final
    plain = go(tmp_path / "plain", recipe() | {"criterion": "large_final"}, data=arrays())
    rows = [(row.density, row.test_loss) for row in plain.levels]
    assert [(row.density, row.test_loss) for row in done.levels] == rows


def test_other_arrays_are_other_results(tmp_path: Path) -> None:
    one = go(tmp_path, data=arrays(0)).levels[0]
    again = go(tmp_path / "again", data=arrays(0)).levels[0]
    other = go(tmp_path / "other", data=arrays(1)).levels[0]
    assert one.key == again.key != other.key


def test_tensors_that_require_gradients_are_data(tmp_path: Path) -> None:
    tensors = {}
    for part, (x, y) in arrays().items():
        tensors[part] = (torch.as_tensor(x).requires_grad_(), torch.as_tensor(y))
    done = go(tmp_path, data=tensors).levels[0]
    assert done.key == go(tmp_path / "plain", data=arrays()).levels[0].key


def test_components_of_the_session_are_refused_where_workers_would_need_them(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match=r"^jobs = 2: the components squares are defined in this"):
        go(tmp_path, recipe(criterion="squares"), components=[Squares], data=tmp_path, jobs=2)
    with pytest.raises(UsageError, match=r"^components: Unfinished does not define score$"):
        go(tmp_path, components=[Unfinished], data=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": None}, r"^data: must be \{\"train\": \(x, y\), .*, got train, validation$"),
        ({"test": 3}, "^data: test must be a pair of arrays, inputs and labels$"),
        (
            {"test": (np.zeros((2, 1, 3, 3)), np.zeros(2))},
            r"^data: the labels of test must be integers, one for each of its 2 inputs, got "
            r"torch.float64 of shape \[2\]$",
        ),
        (
            {"test": (np.zeros((2, 9)), np.zeros(2, int))},
            r"^data: test has inputs of shape \[9\], train of \[1, 3, 3\]$",
        ),
    ],
)
def test_arrays_that_are_no_data_are_refused(change: dict[str, Any], message: str) -> None:
    data = arrays() | change
    with pytest.raises(UsageError, match=message):
        lotteryfw.check(recipe(), data={part: pair for part, pair in data.items() if pair})


def test_check_returns_warnings_and_raises_faults(tmp_path: Path) -> None:
    assert lotteryfw.check(recipe(), data=tmp_path) == []
    (warning,) = lotteryfw.check(recipe(evaluate={"every": "100it"}), data=tmp_path)
    assert warning.startswith("study small: evaluate.every is 100 steps")
    with pytest.raises(RecipeError, match="there is no criterion 'randm'"):
        lotteryfw.check(recipe(criterion="randm"), data=tmp_path)


def test_plan_counts_jobs(tmp_path: Path) -> None:
    planned = lotteryfw.plan(recipe(seeds=[0, 1]), data=tmp_path, store=tmp_path / "store")
    assert (planned.cells, planned.unique, planned.steps) == (2, 6, 240)


def test_a_listener_hears_the_figures_inside_a_training(tmp_path: Path) -> None:
    class Watch:
        def __init__(self) -> None:
            self.heard: list[TrainingProgress] = []

        def event(self, event: Any) -> None: ...
        def warning(self, message: str) -> None: ...

        def progress(self, progress: TrainingProgress) -> None:
            self.heard.append(progress)

    watch = Watch()
    done = go(tmp_path, data=tmp_path, listener=watch)
    last = [one for one in watch.heard if one.key == done.levels[0].key][-1]
    assert (last.step, last.steps) == (40, 40)
    assert last.loss is not None
    assert last.accuracy is not None
    (curve,) = [curve for curve in done.curves if curve.level == 0]
    # evaluated at steps 0, 10, 20, 30 and 40: step 40 is announced before it is evaluated
    assert last.loss == curve.validation_loss[3]
    assert last.accuracy == curve.validation_accuracy[3]


SCRIPT = """
import lotteryfw
from lotteryfw import MaskCriterion

POWER = 2


def power(weights):
    return weights.abs() ** POWER


class Powers(MaskCriterion):
    "Powers of final weights."
    use = "powers"

    def score(self, layer):
        return power(layer.final)


TABLE = {
    "name": "script", "criterion": "powers",
    "data": {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5},
    "model": {"use": "mlp", "hidden": [8, 6]}, "search": {"use": "imp", "levels": 1},
    "train": {"length": "40it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
}
done = lotteryfw.run(TABLE, components=[Powers], out="run", device="cpu")
print(sorted(path.name for path in done.path.iterdir() if path.suffix == ".html"))
print(done.levels[-1].key)
"""


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "study.py").write_text(text)
    return subprocess.run(
        [sys.executable, "study.py"], cwd=folder, env=environment(folder), capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.large
def test_a_script_is_keyed_by_what_its_class_names_shows_progress_and_writes_the_report(
    tmp_path: Path,
) -> None:
    first = script(tmp_path, SCRIPT)
    assert first.returncode == 0, first.stderr
    report, key = first.stdout.splitlines()
    assert report == "['report.html']"
    assert first.stderr.startswith("script: 1 cell, up to 2 jobs and 80 steps to do → run\n")
    # another comment in the script changes nothing, and another constant does
    again = script(tmp_path, SCRIPT.replace("print(done", "# a remark\nprint(done"))
    assert again.stdout.splitlines()[1] == key
    # its name alone would find the jobs of the first script in the store
    other = script(tmp_path, SCRIPT.replace("POWER = 2", "POWER = -2").replace('"run"', '"run2"'))
    assert other.returncode == 0, other.stderr
    assert other.stdout.splitlines()[1] != key
