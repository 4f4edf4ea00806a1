"""Stability: the line between two copies of a ticket, and distances to the dense network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.labs import run as play
from support.mask_updates import FILE
from support.runs import go, recipe
from support.small import cell, lab

from lotteryfw import load_ticket
from lotteryfw.engine import StoredOutcome
from lotteryfw.runner import FindingRow, StudyContext
from lotteryfw.std.connectivity import _distances, barrier

ANALYSES = [{"use": "linear_mode_connectivity", "points": 5}, "stability_to_pruning"]


def by_figure(findings: list[FindingRow], level: int) -> dict[str, Any]:
    return {line.figure: line.value for line in findings if line.level == level}


def test_a_barrier_is_measured_from_the_mean_of_the_ends() -> None:
    assert barrier([1.0, 4.0, 2.0]) == 2.5
    assert barrier([3.0, 3.0, 3.0]) == 0
    assert barrier([1.0, 2.0, 3.0]) == 1


def test_the_line_begins_at_the_levels_own_network(tmp_path: Path) -> None:
    done, watch = go(tmp_path, recipe(analyses=ANALYSES, engine={"kernel": "reference"}))
    # A copy of each of three levels, and five networks between each two.
    steps = [event.steps for event in watch.of("JobFinished") if not event.stored]
    assert len([one for one in steps if one]) == 6
    assert len([one for one in steps if not one]) == 15
    assert set(done.statuses.values()) == {"done"}
    for row in done.levels:
        found = by_figure(done.findings, row.level)
        assert found["alpha"] == (0, 0.25, 0.5, 0.75, 1)
        assert found["loss"][0] == row.test_loss
        assert found["error"][0] == 1 - row.test_accuracy
        assert found["loss"][-1] != row.test_loss
        assert found["loss_barrier"] == barrier(found["loss"])
        assert found["error_barrier"] == barrier(found["error"])


def test_distances_to_the_dense_network_are_a_plain_loops(tmp_path: Path) -> None:
    table = recipe(analyses=ANALYSES[1:])
    done, _ = go(tmp_path, table)
    store = StudyContext(table, store=tmp_path / "store", data=tmp_path).store
    dense, _, ticket = done.levels
    ours = StoredOutcome(store, ticket.key).tensors().values
    theirs = StoredOutcome(store, dense.key).tensors().values
    (path,) = (done.path / "tickets").rglob("level-02.safetensors")
    squares = dot = norm = other = 0.0
    for name, mask in load_ticket(path).mask.items():
        for index in mask.nonzero().tolist():
            place = tuple(index)
            one, two = float(ours[name][place]), float(theirs[name][place])
            squares += (one - two) ** 2
            dot, norm, other = dot + one * two, norm + one * one, other + two * two
    found = by_figure(done.findings, 2)
    expected = {
        "l2": math.sqrt(squares),
        "l2_normalised": math.sqrt(squares / other),
        "cosine": dot / math.sqrt(norm * other),
        "angle": math.degrees(math.acos(dot / math.sqrt(norm * other))),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    # The dense network is not compared with itself.
    assert not by_figure(done.findings, 0)


def test_the_line_to_another_recorded_network(tmp_path: Path) -> None:
    analyses = [{"use": "error_barrier", "points": 3}]
    table = recipe(analyses=analyses, controls=["random_mask"], engine={"kernel": "reference"})
    done, watch = go(tmp_path, table)
    dense, *others = done.levels
    assert {row.variant for row in others} == {"ticket", "random_mask"}
    # Nothing is trained beside the study: a dense network, two tickets and their controls.
    assert len([event for event in watch.of("JobFinished") if event.steps]) == 5
    for row in others:
        lines = [
            line for line in done.findings if (line.level, line.variant) == (row.level, row.variant)
        ]
        figures = {line.figure: line.value for line in lines}
        assert figures["loss"][0] == row.test_loss
        assert figures["loss"][-1] == dense.test_loss
        assert figures["error_barrier"] == barrier(figures["error"])
    assert not by_figure(done.findings, 0)


@pytest.mark.parametrize(
    ("against", "compared"),
    [
        ("previous", {("ticket", 1), ("ticket", 2), ("random_mask", 2)}),
        ("random_mask", {("ticket", 1), ("ticket", 2)}),
        ("ticket", {("random_mask", 1), ("random_mask", 2)}),
    ],
)
def test_the_other_end_may_be_the_level_before_or_a_control(
    tmp_path: Path, against: str, compared: set[tuple[str, int]]
) -> None:
    analyses = [{"use": "error_barrier", "points": 3, "against": against}]
    done, _ = go(tmp_path, recipe(analyses=analyses, controls=["random_mask"]))
    assert {(line.variant, line.level) for line in done.findings} == compared


def test_a_control_that_the_study_lacks_is_named(tmp_path: Path) -> None:
    analyses = [{"use": "error_barrier", "against": "random_masks"}]
    done, watch = go(tmp_path, recipe(analyses=analyses, controls=["random_mask"]))
    assert not done.findings
    text = "the study has no 'random_masks'; it has dense, previous, random_mask, ticket"
    assert any(text in warning for warning in watch.warnings), watch.warnings
    assert len(done.levels) == 5  # nothing is lost


def test_stability_to_the_data_order_is_the_mean_over_all_pairs(tmp_path: Path) -> None:
    analyses = [{"use": "stability_to_data_order", "copies": 3}]
    done, watch = go(tmp_path, recipe(analyses=analyses))
    # A dense network and two tickets, each with two copies.
    assert len(watch.trained) == 9
    assert {line.level for line in done.findings} == {0, 1, 2}

    pairs = [{"use": "stability_to_data_order", "copies": 2}]
    two, _ = go(tmp_path, recipe(analyses=pairs), name="two")
    for level in range(3):
        three = by_figure(done.findings, level)
        assert three.keys() == {"l2", "l2_normalised", "cosine", "angle"}
        assert three["l2"] > 0
        assert three["l2"] != by_figure(two.findings, level)["l2"]
        assert three["angle"] == pytest.approx(math.degrees(math.acos(three["cosine"])), rel=0.05)


# Levels that report another training than that of their ticket

COPIES = ["linear_mode_connectivity", "stability_to_data_order"]
UPDATED = {
    "search": {"use": "during_training", "density": 0.4, "retrain": True},
    "train": recipe()["train"] | {"mask_update": "swap"},
}
JOINT = {
    "search": {"use": "joint_training", "density": 0.5, "retrain": True},
    "parametrization": {"use": "frozen_weights", "inner": "top_k", "frozen": ["*.weight"]},
}


def places(findings: list[FindingRow]) -> dict[str, set[tuple[str, int]]]:
    found: dict[str, set[tuple[str, int]]] = {}
    for line in findings:
        found.setdefault(line.analysis, set()).add((line.variant, line.level))
    return found


@pytest.mark.parametrize("changes", [UPDATED, JOINT], ids=["updated", "joint"])
def test_copies_are_made_of_trainings_that_are_the_tickets_own(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    done, watch = go(tmp_path, recipe(analyses=COPIES, **changes), trust=[FILE])
    assert not [warning for warning in watch.warnings if "analys" in warning]
    assert len(done.levels) == 3
    own = {("ticket", 0), ("retrained", 1)}
    assert places(done.findings) == dict.fromkeys(COPIES, own)


def test_weights_under_a_learned_mask_are_compared_with_no_others(tmp_path: Path) -> None:
    analyses: list[Any] = [{"use": "error_barrier", "points": 3}, "stability_to_pruning"]
    done, watch = go(tmp_path, recipe(analyses=analyses, **JOINT))
    assert not [warning for warning in watch.warnings if "analys" in warning]
    assert places(done.findings) == {
        "error_barrier": {("retrained", 1)},
        "stability_to_pruning": {("retrained", 1)},
    }


def test_weights_whose_mask_was_changed_in_training_are_compared(tmp_path: Path) -> None:
    analyses: list[Any] = [{"use": "error_barrier", "points": 3}, "stability_to_pruning"]
    done, _ = go(tmp_path, recipe(analyses=analyses, **UPDATED), trust=[FILE])
    both = {("ticket", 1), ("retrained", 1)}
    assert places(done.findings) == {"error_barrier": both, "stability_to_pruning": both}


def test_a_lab_tells_a_tickets_own_training_from_others() -> None:
    desk = lab(cell())
    dense = desk.dense()
    trained = play(desk.train(dense))
    assert desk.is_training_of(dense, trained)
    assert not desk.is_training_of(desk.prune(dense, trained), trained)
    assert not desk.is_training_of(desk.again(dense, 1), trained)
    partial = play(desk.stop_when(dense, lambda segments: True, every="5it"))
    assert not desk.is_training_of(dense, partial)


def test_distance_and_angle_are_symmetric_and_0_to_itself() -> None:
    rng = torch.Generator().manual_seed(0)
    one, two = ({"w": torch.randn(5, 4, generator=rng)} for _ in range(2))
    mask = {"w": torch.rand(5, 4, generator=rng) < 0.5}
    forth, back = _distances(mask, one, two), _distances(mask, two, one)
    for figure in ("l2", "cosine", "angle"):
        assert forth[figure] == back[figure]
    itself = _distances(mask, one, one)
    assert itself["l2"] == 0
    assert itself["angle"] == pytest.approx(0, abs=1e-5)
    assert not _distances(mask, one, {"w": torch.zeros(5, 4)})
