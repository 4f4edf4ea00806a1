"""Metrics from the recipe to the run folder, and what they leave as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import Watch, files, go, recipe

from lotteryfw import runner
from lotteryfw.report import check_claims, summary_markdown
from lotteryfw.runner import StudyContext
from lotteryfw.store import RunFolder

MEASURED = {"points": 4, "metrics": ["nll", {"use": "top_k", "k": 2}], "train": True}
COLUMNS = ["nll", "top_2", "train_loss", "train_accuracy", "train_nll", "train_top_2"]
BROKEN = """
from lotteryfw import Metric, hookimpl

class Broken(Metric):
    "Divides by zero."
    use = "broken"
    def per_example(self, outputs, inputs, labels):
        return labels
    def result(self, values):
        return 1 / 0

@hookimpl
def register_components():
    return [Broken]
"""


def measured(**changes: Any) -> dict[str, Any]:
    return recipe(evaluate=MEASURED, controls=["random_mask"], **changes)


def counts(watch: Watch) -> tuple[int, int]:
    """How many trainings, and how many evaluations, were computed."""
    computed = [event for event in watch.of("JobFinished") if not event.stored]
    trained = sum(event.steps > 0 for event in computed)
    return trained, len(computed) - trained


def test_the_figures_of_every_level_and_control_are_columns(tmp_path: Path) -> None:
    done, watch = go(tmp_path, measured())
    # Levels 0, 1, 2 and a control of 1 and 2, each on two parts of the data.
    assert counts(watch) == (5, 10)
    assert len(done.levels) == 5
    for row in done.levels:
        assert list(row.metrics) == COLUMNS
        # The objective is the plain cross-entropy, so its loss is the negative log-likelihood.
        assert row.metrics["nll"] == pytest.approx(row.test_loss, abs=1e-6)
        assert row.metrics["train_nll"] == pytest.approx(row.metrics["train_loss"], abs=1e-6)
        assert 0 <= row.test_accuracy <= row.metrics["top_2"] <= 1
        assert 0 <= row.metrics["train_accuracy"] <= row.metrics["train_top_2"] <= 1
    assert "metric.train_top_2" in done.levels.to_pandas().columns
    assert done.manifest["metrics"]["train_loss"] == "number"


def test_trainings_keep_their_keys_and_bits_and_are_not_repeated(tmp_path: Path) -> None:
    plain, first = go(tmp_path, recipe(controls=["random_mask"]), "plain")
    done, second = go(tmp_path, measured(), "measured")
    assert counts(first) == (5, 0)
    assert counts(second) == (0, 10)
    assert [row.key for row in done.levels] == [row.key for row in plain.levels]
    before, after = files(plain.path), files(done.path)
    for name in before:
        if name != "levels.csv":
            assert after[name] == before[name]


def test_a_second_run_evaluates_nothing_and_ends_with_the_same_table(tmp_path: Path) -> None:
    done, _ = go(tmp_path, measured())
    before = files(done.path)
    again, watch = go(tmp_path, measured())
    assert counts(watch) == (0, 0)
    assert files(again.path) == before
    elsewhere, watch = go(tmp_path, measured(), "elsewhere", jobs=2)
    assert counts(watch) == (0, 0)
    assert files(elsewhere.path) == before


def test_worker_processes_give_the_same_figures(tmp_path: Path) -> None:
    done, _ = go(tmp_path, measured())
    others, _ = go(tmp_path, measured(), "others", jobs=2, store=tmp_path / "another store")
    assert files(others.path) == files(done.path)


def test_one_more_metric_trains_nothing(tmp_path: Path) -> None:
    go(tmp_path, measured())
    more = {**MEASURED, "metrics": [*MEASURED["metrics"], "ece"]}  # type: ignore[misc]
    done, watch = go(tmp_path, {**measured(), "evaluate": more}, "more")
    assert counts(watch) == (0, 10)
    assert all("train_ece" in row.metrics for row in done.levels)


def test_cells_that_share_a_training_share_its_evaluation(tmp_path: Path) -> None:
    table = measured(grid={"criterion": ["large_final", "small_final"]})
    _, watch = go(tmp_path, table)
    # The dense network and the random masks are the same in both cells; the four tickets differ.
    assert counts(watch) == (7, 14)


def test_the_plan_counts_evaluations_apart_from_trainings(tmp_path: Path) -> None:
    context = StudyContext(measured(), store=tmp_path / "store", data=tmp_path)
    plan = context.plan("cpu")
    assert (plan.unique, plan.evaluations, plan.stored) == (15, 10, 0)
    go(tmp_path, measured())
    plan = StudyContext(measured(), store=tmp_path / "store", data=tmp_path).plan("cpu")
    assert (plan.unique, plan.stored, plan.steps_to_do) == (15, 15, 0)


def test_a_learned_mask_is_measured_as_it_was_trained(tmp_path: Path) -> None:
    table = recipe(
        evaluate=MEASURED,
        search={"use": "edge_popup", "density": 0.5},
        parametrization="top_k",
        initialiser="signed_constant",
        model={"use": "mlp", "hidden": [8, 6], "bias": False},
    )
    done, _ = go(tmp_path, table)
    for row in done.levels:
        assert row.metrics["nll"] == pytest.approx(row.test_loss, abs=1e-6)
    assert {row.status for row in done.levels} == {"done"}
    assert any(row.learned for row in done.levels)


def test_sampled_masks_are_averaged_as_in_the_training(tmp_path: Path) -> None:
    table = recipe(
        evaluate=MEASURED,
        search="supermask",
        parametrization={"use": "bernoulli", "samples": 3},
        model={"use": "mlp", "hidden": [8, 6], "bias": False},
    )
    done, _ = go(tmp_path, table)
    for row in done.levels:
        assert row.metrics["nll"] == pytest.approx(row.test_loss, abs=1e-6)


def test_a_metric_that_breaks_costs_its_figures_alone(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    table = recipe(
        evaluate={"points": 4, "metrics": ["broken"], "train": True},
        plugins=[str(plugin)],
        controls=["random_mask"],
    )
    done, watch = go(tmp_path, table, trust=[plugin])
    plain, _ = go(tmp_path, recipe(controls=["random_mask"]), "plain")
    assert [row.key for row in done.levels] == [row.key for row in plain.levels]
    assert all(not row.metrics for row in done.levels)
    assert done.statuses == {"small/seed=0": "failed"}
    (text,) = {event.message for event in watch.of("CellFinished")}
    assert "metric 'broken' of broken.py" in text
    assert "broke in result(): ZeroDivisionError" in text
    assert text.count("ZeroDivisionError") == 1


def test_claims_and_tables_have_them(tmp_path: Path) -> None:
    claim = {"text": "t", "source": "s", "of": {}, "metric": "metric.train_accuracy"}
    claims = [{**claim, "at_least": 0.0}, {**claim, "at_least": 1.01}]
    done, _ = go(tmp_path, measured(seeds=[0, 1, 2], claim=claims))
    verdicts = check_claims(RunFolder(done.path))
    assert [verdict.outcome for verdict in verdicts] == ["supported", "contradicted"]
    rows = [row for row in done.levels if row.variant == "ticket"]
    mean = sum(row.metrics["train_accuracy"] for row in rows) / len(rows)
    assert f"{100 * mean:.2f}" in verdicts[0].numbers
    titles = summary_markdown(RunFolder(done.path))
    assert "small: train accuracy, %" in titles
    assert "small: top 2, %" in titles
    assert "small: nll (" in titles


def test_outcomes_in_the_store_are_plain(tmp_path: Path) -> None:
    go(tmp_path, measured())
    records = [json.loads(path.read_text()) for path in (tmp_path / "store").rglob("outcome.json")]
    evaluations = [record["evaluation"] for record in records if "evaluation" in record]
    assert len(evaluations) == 10
    assert {tuple(sorted(evaluation)) for evaluation in evaluations} == {
        ("accuracy", "loss", "metrics")
    }
    assert runner.StudyContext(measured(), store=tmp_path / "store").store.damaged == []
