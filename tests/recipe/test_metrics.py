"""Metrics in a recipe: what is accepted, what is refused and where the fault is placed."""

from __future__ import annotations

from typing import Any

import pytest
from support.recipes import CLAIM, changed, faults, load

from lotteryfw.std.metrics import TopK
from lotteryfw.std.objectives import Classification


def measuring(*metrics: Any, **changes: Any) -> dict[str, Any]:
    return changed(evaluate={"metrics": list(metrics)}, **changes)


def test_metrics_are_components_of_every_cell() -> None:
    recipe = load(measuring("top_k", {"use": "ece", "bins": 10}))
    for cell in recipe.cells:
        assert [metric.name() for metric in cell.metrics] == ["top_5", "ece"]
        assert cell.metric_units == {"top_5": "share", "ece": "share"}
        assert cell.evaluated_parts == ("test",)


def test_the_training_set_is_measured_on_request() -> None:
    (cell, *_) = load(changed(evaluate={"train": True, "metrics": ["nll"]})).cells
    assert cell.evaluated_parts == ("test", "train")
    assert list(cell.metric_units.items()) == [
        ("nll", "number"),
        ("train_loss", "number"),
        ("train_accuracy", "share"),
        ("train_nll", "number"),
    ]


def test_the_resolved_recipe_has_them_and_loads_to_the_same_cells() -> None:
    recipe = load(changed(evaluate={"train": True, "metrics": ["top_k"], "points": 7}))
    again = load(recipe.resolved())
    assert again.cells == recipe.cells
    (study,) = recipe.resolved()["study"]
    assert study["evaluate"]["metrics"] == [{"use": "top_k", "k": 5}]


def test_a_recipe_without_metrics_resolves_to_what_it_was() -> None:
    (study,) = load(changed()).resolved()["study"]
    assert set(study["evaluate"]) == {"points"}


def test_a_profile_that_changes_the_points_keeps_the_metrics() -> None:
    table = changed(
        evaluate={"every": "10it", "metrics": ["nll"], "train": True},
        profiles={"quick": {"evaluate": {"points": 3}}},
    )
    (cell, *_) = load(table, "quick").cells
    assert cell.evaluate_every == 200 // 3
    assert list(cell.metric_units) == ["nll", "train_loss", "train_accuracy", "train_nll"]


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        (measuring("top_5"), "evaluate.metrics[0]", "top_5"),
        (measuring("nll", {"use": "top_k", "k": 0}), "evaluate.metrics[1].k", "must be >= 1"),
        (measuring("top_k", "top_k"), "evaluate.metrics[1]", "'top_5' is listed twice"),
        (measuring({"use": "top_k", "k": 10}), "evaluate.metrics[0]", "10 largest logits"),
        (
            measuring("nll", train={"length": "9it", "batch": 2, "objective": "reconstruction",
                                    "optimizer": {"use": "sgd", "lr": 0.1}}),
            "evaluate.metrics[0]",
            "reads labels as classes, and the objective 'reconstruction' does not",
        ),
        (changed(evaluate={"train": "yes"}), "evaluate.train", "true or false"),
        (changed(evaluate={"metrics": "nll"}), "evaluate.metrics", "list"),
        (
            changed(grid={"evaluate.metrics": [["nll"]]}),
            "evaluate.metrics",
            "for all cells of a study alike",
        ),
        (
            measuring("nll", claim=[{**CLAIM, "metric": "metric.nl"}]),
            "claim[0].metric",
            "measures no 'nl'",
        ),
        (
            changed(claim=[{**CLAIM, "metric": "metric.nll"}]),
            "claim[0].metric",
            "measures no 'nll'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_where_it_was_written(
    table: dict[str, Any], key: str, text: str
) -> None:
    (reported,) = faults(table)
    assert key in reported
    assert text in reported


def test_a_claim_may_be_about_a_metric() -> None:
    table = changed(
        evaluate={"metrics": ["top_k"], "train": True},
        claim=[{**CLAIM, "metric": "metric.top_5"}, {**CLAIM, "metric": "metric.train_accuracy"}],
    )
    assert len(load(table).claims) == 2


@pytest.mark.parametrize(
    ("cls", "key", "who"),
    [
        (TopK, "evaluate.metrics[0]", "the metric 'top_k' of lotteryfw=="),
        (Classification, "train.objective", "the objective 'classification' of lotteryfw=="),
    ],
)
def test_a_component_that_breaks_in_a_check_is_named_with_its_distribution(
    cls: type, key: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def why_not(*arguments: Any) -> str:
        return {}["no such key"]

    monkeypatch.setattr(cls, "why_not", why_not)
    (reported,) = faults(measuring("top_k"))
    assert key in reported
    assert who in reported
    assert "KeyError: 'no such key'" in reported
