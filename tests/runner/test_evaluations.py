"""Evaluations in whole runs: planned, shared, repeated from the store, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import Watch, files, go, recipe

from lotteryfw.runner import StudyContext

PLUGIN = """
from lotteryfw import Analysis, AnalysisResult, SearchAlgorithm, hookimpl

class Copies(SearchAlgorithm):
    "Trains a ticket and a copy, and measures the line between them."
    use = "copies"
    variants = ("copy",)
    def search(self, lab):
        ticket = lab.dense()
        first, second = yield from lab.train_all([ticket, lab.again(ticket, 1)])
        line = [lab.interpolate(first, second, alpha) for alpha in (0.0, 0.5, 1.0)]
        figures = yield from lab.evaluate_all(line, part="train")
        lab.record(0, ticket, first)
        lab.record(0, ticket, second, variant="copy")
        if min(one.loss for one in figures) < 0:
            raise AssertionError

class Train(Analysis):
    "Measures every level on the training set."
    use = "on_train"
    figures = ("loss",)
    def levels(self, lab, levels):
        figures = yield from lab.evaluate_all([level.trained for level in levels], part="train")
        return [AnalysisResult(one, "loss", each.loss) for one, each in zip(levels, figures)]

@hookimpl
def register_components():
    return [Copies, Train]
"""


@pytest.fixture(name="plugin")
def _plugin(tmp_path: Path) -> Path:
    path = tmp_path / "copies.py"
    path.write_text(PLUGIN)
    return path


def copies(plugin: Path, **changes: Any) -> dict[str, Any]:
    return recipe(plugins=[str(plugin)], search="copies", analyses=["on_train"], **changes)


def counts(watch: Watch) -> tuple[int, int]:
    """How many trainings, and how many evaluations, were computed."""
    computed = [event for event in watch.of("JobFinished") if not event.stored]
    trained = sum(event.steps > 0 for event in computed)
    return trained, len(computed) - trained


def test_a_search_and_an_analysis_share_evaluations(tmp_path: Path, plugin: Path) -> None:
    done, watch = go(tmp_path, copies(plugin), trust=[plugin])
    # The ends of the line are what the analysis measures.
    assert counts(watch) == (2, 3)
    assert [row.variant for row in done.levels] == ["ticket", "copy"]
    assert len(done.findings) == 2
    again, watch = go(tmp_path, copies(plugin), trust=[plugin])
    assert counts(watch) == (0, 0)
    assert files(again.path) == files(done.path)


def test_copies_are_planned_up_to_the_first_figure(tmp_path: Path, plugin: Path) -> None:
    context = StudyContext(copies(plugin), store=tmp_path / "s", data=tmp_path, trust=[plugin])
    plan = context.plan("cpu")
    # two trainings and three points of the line, then an evaluation of each of both levels
    assert (plan.unique, plan.evaluations) == (7, 5)
    assert plan.unknown == ("small/seed=0",)


def test_worker_processes_give_the_same_results(tmp_path: Path, plugin: Path) -> None:
    table = copies(plugin, seeds=[0, 1])
    done, _ = go(tmp_path, table, trust=[plugin])
    others, watch = go(tmp_path, table, "others", trust=[plugin], jobs=2, store=tmp_path / "s2")
    assert counts(watch) == (4, 6)
    assert files(others.path) == files(done.path)
