"""Evaluations and probes that are killed, shared, and made over other data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.killed import run_killed

from lotteryfw.runner import run_study as run

PLUGIN = '''
import os
import signal
from pathlib import Path

from lotteryfw import (
    Analysis, AnalysisResult, DataSource, Metric, NetworkCriterion, hookimpl
)


def count(folder, what, kill_at):
    """Note a call; kill the process at this one, unless it was killed before."""
    calls = Path(folder) / what
    with calls.open("a") as file:
        file.write("x")
    killed = Path(folder) / "killed"
    if kill_at and len(calls.read_text()) == kill_at and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Confident(Metric):
    """The mean of the largest logit."""

    use = "confident"
    folder: str
    kill_at: int = 0

    def per_example(self, outputs, inputs, labels):
        count(self.folder, "evaluations", self.kill_at)
        return outputs.amax(1)

    def result(self, values):
        return float(values.mean())


class Drawn(NetworkCriterion):
    """Scores weights by their gradient on a random batch, and some noise."""

    use = "drawn"
    folder: str
    kill_at: int = 0

    def scores(self, probe):
        import torch

        weights = {name: value.clone().requires_grad_() for name, value in probe.weights.items()}
        (batch,) = probe.batches("train", 1, 32)
        gradients = torch.autograd.grad(probe.loss(*batch, weights), list(weights.values()))
        count(self.folder, "probes", self.kill_at)
        noise = torch.rand(1, generator=probe.rng).item()
        return {name: gradient.abs() + noise for name, gradient in zip(weights, gradients)}


class Elsewhere(Analysis):
    """Measures every level on other data."""

    use = "elsewhere"
    figures = ("loss",)
    other: DataSource

    def levels(self, lab, levels):
        trained = [level.trained for level in levels]
        figures = yield from lab.evaluate_all(trained, data=self.other)
        return [AnalysisResult(level, "loss", one.loss) for level, one in zip(levels, figures)]


@hookimpl
def register_components():
    return [Confident, Drawn, Elsewhere]
'''
DATA = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "counted.py"
    file.write_text(PLUGIN)
    return file


def study(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": "small", "seeds": [0, 1], "data": DATA, "model": {"use": "mlp", "hidden": [8, 6]},
        "search": {"use": "imp", "levels": 2}, "evaluate": {"points": 2},
        "train": {"length": "12it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
    }  # fmt: skip
    return plain | changes


def done(folder: Path, store: Path, plugin: Path, table: dict[str, Any]) -> Any:
    finished = run(table, out=folder, store=store, trust=[plugin], jobs=1, device="cpu")
    assert set(finished.statuses.values()) == {"done"}
    return finished


def figures(finished: Any) -> list[Any]:
    return [
        (row.cell, row.level, row.test_loss, row.density, tuple(row.metrics.items()))
        for row in finished.levels
    ]


def calls(folder: Path, what: str) -> int:
    return len((folder / what).read_text())


def kinds_of_jobs(store: Path) -> list[str]:
    records = [json.loads(path.read_text()) for path in store.rglob("outcome.json")]
    return sorted(record["job"]["job"] for record in records)


def test_a_killed_evaluation_is_made_again_and_nothing_else_is(
    tmp_path: Path, plugin: Path
) -> None:
    def table(name: str, kill_at: int) -> dict[str, Any]:
        folder = tmp_path / name
        folder.mkdir()
        metric = {"use": "confident", "folder": str(folder), "kill_at": kill_at}
        return study(evaluate={"points": 2, "train": True, "metrics": [metric]})

    whole = done(tmp_path / "a", tmp_path / "whole", plugin, table("whole-calls", 0))
    killed = table("killed-calls", 5)
    run_killed(killed, tmp_path / "run", tmp_path / "store", [plugin])
    before = kinds_of_jobs(tmp_path / "store").count("Evaluate")
    again = done(tmp_path / "run", tmp_path / "store", plugin, killed)
    # only the evaluation that was under way is made a second time
    assert (
        calls(tmp_path / "killed-calls", "evaluations")
        == calls(tmp_path / "whole-calls", "evaluations") + 1
    )
    assert 0 < before < kinds_of_jobs(tmp_path / "store").count("Evaluate")
    assert figures(again) == figures(whole)
    # and none of them once more
    done(tmp_path / "c", tmp_path / "store", plugin, killed)
    assert (
        calls(tmp_path / "killed-calls", "evaluations")
        == calls(tmp_path / "whole-calls", "evaluations") + 1
    )


def test_a_killed_probe_is_made_again_with_the_same_draws(tmp_path: Path, plugin: Path) -> None:
    def table(name: str, kill_at: int) -> dict[str, Any]:
        folder = tmp_path / name
        folder.mkdir()
        return study(criterion={"use": "drawn", "folder": str(folder), "kill_at": kill_at})

    whole = done(tmp_path / "a", tmp_path / "whole", plugin, table("whole-calls", 0))
    killed = table("killed-calls", 3)
    run_killed(killed, tmp_path / "run", tmp_path / "store", [plugin])
    again = done(tmp_path / "run", tmp_path / "store", plugin, killed)
    assert (
        calls(tmp_path / "killed-calls", "probes") == calls(tmp_path / "whole-calls", "probes") + 1
    )
    assert figures(again) == figures(whole)
    # each network of each seed once, and none of them once more
    jobs = kinds_of_jobs(tmp_path / "store")
    assert jobs.count("ProbeJob") == calls(tmp_path / "whole-calls", "probes")
    done(tmp_path / "c", tmp_path / "store", plugin, killed)
    assert kinds_of_jobs(tmp_path / "store") == jobs


def test_networks_are_measured_over_another_data_set(tmp_path: Path, plugin: Path) -> None:
    def measured(name: str, other: dict[str, Any]) -> tuple[Any, dict[Any, float]]:
        table = study(analyses=[{"use": "elsewhere", "other": other}])
        finished = done(tmp_path / name, tmp_path / "store", plugin, table)
        return finished, {(one.cell, one.level): one.value for one in finished.findings}

    finished, here = measured("a", DATA)
    reported = {(row.cell, row.level): row.test_loss for row in finished.levels}
    # kernels that evaluate by themselves round a little differently
    assert here == pytest.approx(reported, rel=1e-6)
    _, elsewhere = measured("b", {**DATA, "noise": 3.0})
    assert elsewhere.keys() == here.keys()
    assert all(loss > here[key] for key, loss in elsewhere.items())
    # the same data again is the same jobs
    jobs = kinds_of_jobs(tmp_path / "store")
    assert jobs.count("Evaluate") == 2 * len(here)
    measured("c", {**DATA, "noise": 3.0})
    assert kinds_of_jobs(tmp_path / "store") == jobs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1, 5, 5]}, r"asks for inputs \(1, 5, 5\), not inputs \(1, 4, 4\)"),
        ({"classes": 4}, r"asks for 4 outputs, not 3 outputs"),
    ],
)
def test_data_of_other_sizes_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, plugin: Path
) -> None:
    table = study(analyses=[{"use": "elsewhere", "other": DATA | change}], seeds=[0])
    finished = run(
        table, out=tmp_path / "run", store=tmp_path / "store", trust=[plugin], jobs=1, device="cpu"
    )
    # the levels are on record, whatever an analysis asks for
    assert set(finished.statuses.values()) == {"failed"}
    assert [row.level for row in finished.levels] == [0, 1, 2]
    assert re.search(message, (finished.path / "events.jsonl").read_text())
