"""Stability: the line between two copies of a ticket, and distances to the dense network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from support.runs import go, recipe

from lotteryfw import load_ticket
from lotteryfw.engine import StoredOutcome
from lotteryfw.runner import FindingRow, StudyContext
from lotteryfw.std.connectivity import barrier

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
