"""The search `at_init` in whole runs: what it shares, plans, resumes and refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import command, environment
from support.recipes import changed, faults
from support.runs import Watch, files, go, recipe

from lotteryfw import load_ticket
from lotteryfw.api.errors import RecipeError
from lotteryfw.runner import StudyContext

CRITERIA = """
from lotteryfw import MaskCriterion, Need, NetworkCriterion, hookimpl


class Steep(MaskCriterion):
    "Keeps the weights of steepest loss."
    use = "steep"
    needs = frozenset({Need.GRADIENT})

    def score(self, layer):
        return layer.gradient.abs()


class Flat(Steep):
    "Keeps the weights of flattest loss."
    use = "flat"

    def score(self, layer):
        return -layer.gradient.abs()


class Flow(NetworkCriterion):
    "SynFlow, with inputs of ones."
    use = "flow"

    def scores(self, probe):
        import torch

        tensors = {name: value.abs() for name, value in probe.tensors.items()}
        layers = {name: tensors[name].clone().requires_grad_() for name in probe.masks}
        flow = probe.forward(probe.ones(1), {**tensors, **layers}, mode="eval").sum()
        slopes = torch.autograd.grad(flow, list(layers.values()))
        return {name: (slope * layers[name]).detach() for name, slope in zip(layers, slopes)}


class Greedy(NetworkCriterion):
    "Asks for more examples than there are."
    use = "greedy"

    def scores(self, probe):
        list(probe.batches("train", 3, 128))


@hookimpl
def register_components():
    return [Steep, Flat, Flow, Greedy]
"""
DENSITIES = [0.5, 0.25]


@pytest.fixture
def trust(tmp_path: Path) -> list[Path]:
    plugin = tmp_path / "criteria.py"
    plugin.write_text(CRITERIA)
    return [plugin]


def at_init(**options: Any) -> dict[str, Any]:
    return {"use": "at_init", "densities": DENSITIES, **options}


def ran(watch: Watch) -> dict[str, int]:
    """How many trainings (True steps) and probes were computed."""
    computed = [event for event in watch.of("JobFinished") if not event.stored]
    trainings = sum(1 for event in computed if event.steps)
    return {"trainings": trainings, "probes": len(computed) - trainings}


def test_levels_are_the_dense_network_and_the_densities(tmp_path: Path, trust: list[Path]) -> None:
    table = recipe(criterion="flow", scope="global", search=at_init(rounds=3))
    done, watch = go(tmp_path, table, trust=trust)
    assert not watch.warnings
    size = 16 * 8 + 8 * 6 + 6 * 3
    kept = [row.weights_kept for row in done.levels]
    assert kept == [size, round(0.5 * size), round(0.25 * size)]
    # one dense training and one for each density; the whole network once, and two more rounds each
    assert ran(watch) == {"trainings": 3, "probes": 5}
    for level in (1, 2):
        (path,) = done.path.rglob(f"level-0{level}.safetensors")
        ticket = load_ticket(path)
        (start,) = done.path.rglob("level-00.safetensors")
        initial = load_ticket(start).values
        for name, mask in ticket.mask.items():
            assert (ticket.values[name] == initial[name] * mask).all()


def test_criteria_of_one_seed_share_the_dense_training_and_the_gradient(
    tmp_path: Path, trust: list[Path]
) -> None:
    table = recipe(search=at_init(), grid={"criterion": ["steep", "flat", "flow", "large_final"]})
    _, watch = go(tmp_path, table, trust=trust)
    # four criteria of two densities each beside one dense training; one gradient for two of them
    assert ran(watch) == {"trainings": 4 * 2 + 1, "probes": 2}

    plan = StudyContext(table, store=tmp_path / "other", data=tmp_path, trust=trust).plan()
    assert plan.asked == 4 * 3 + 3
    assert plan.unique == 4 * 2 + 1 + 2
    assert plan.steps == 9 * 40

    # A rerun computes nothing, and a ticket of another list of densities is the same ticket. At
    # the same level: every level has a data order of its own.
    _, watch = go(tmp_path, table, name="again", trust=trust)
    assert ran(watch) == {"trainings": 0, "probes": 0}
    more = recipe(search=at_init(densities=DENSITIES[:1]), criterion="flat")
    _, watch = go(tmp_path, more, name="more", trust=trust)
    assert ran(watch) == {"trainings": 0, "probes": 0}


def test_imp_probes_share_the_gradient_of_the_dense_training(
    tmp_path: Path, trust: list[Path]
) -> None:
    """In `imp` the gradient follows each training: that of the dense network serves both."""
    table = recipe(
        grid={"criterion": ["steep", "flat", "flow"]}, search={"use": "imp", "levels": 1}
    )
    _, watch = go(tmp_path, table, trust=trust)
    assert ran(watch) == {"trainings": 1 + 3, "probes": 1 + 2 + 1 + 1}


def test_tickets_may_be_measured_untrained_and_have_controls(
    tmp_path: Path, trust: list[Path]
) -> None:
    table = recipe(
        criterion="flow",
        search=at_init(train=False, rounds=2),
        controls=["layer_shuffle", "reinit"],
    )
    done, _ = go(tmp_path, table, trust=trust)
    assert [row.steps for row in done.levels if row.variant == "ticket"] == [40, 0, 0]
    controls = [row for row in done.levels if row.variant != "ticket"]
    assert {(row.variant, row.level) for row in controls} == {
        (name, level) for name in ("layer_shuffle", "reinit") for level in (1, 2)
    }
    kept = {row.level: row.weights_kept for row in done.levels if row.variant == "ticket"}
    assert all(row.weights_kept == kept[row.level] for row in controls)


def test_it_runs_the_same_in_worker_processes(tmp_path: Path, trust: list[Path]) -> None:
    table = recipe(criterion="flow", search=at_init(rounds=3))
    one, _ = go(tmp_path, table, trust=trust)
    two, _ = go(tmp_path, table, name="two", store=tmp_path / "other", jobs=2, trust=trust)
    assert files(one.path) == files(two.path)


def test_killed_in_the_middle_of_its_rounds_it_ends_with_the_same_bits(
    tmp_path: Path, trust: list[Path]
) -> None:
    table = recipe(criterion="flow", scope="global", search=at_init(rounds=30))
    whole, _ = go(tmp_path, table, name="whole", store=tmp_path / "whole-store", trust=trust)

    path = tmp_path / "killed.toml"
    lines = [
        'name = "small"',
        "data = { use = 'synthetic', examples = 330, classes = 3, shape = [1, 4, 4], noise = 0.5 }",
        "model = { use = 'mlp', hidden = [8, 6] }",
        "criterion = 'flow'",
        "scope = 'global'",
        "search = { use = 'at_init', densities = [0.5, 0.25], rounds = 30 }",
        "evaluate = { points = 4 }",
        "[train]",
        "length = '40it'",
        "batch = 16",
        "optimizer = { use = 'sgd', lr = 0.1, momentum = 0.9 }",
    ]
    path.write_text("\n".join(lines))
    words = ("recipe", str(path), "--jobs", "1", "--out", str(tmp_path / "killed"))
    running = subprocess.Popen(
        command(*words, "--trust", str(trust[0])),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    objects = tmp_path / "store" / "objects"
    while running.poll() is None and len(list(objects.rglob("outcome.json"))) < 10:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it was over before it could be killed"
    stored = len(list(objects.rglob("outcome.json")))
    assert 10 <= stored < 59

    done, watch = go(tmp_path, path, name="killed", store=tmp_path / "store", trust=trust)
    assert set(done.statuses.values()) == {"done"}
    assert sum(ran(watch).values()) <= 59 + 3 - stored
    assert files(done.path) == files(whole.path)


def test_it_is_planned_without_torch(tmp_path: Path, trust: list[Path]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from lotteryfw.runner import StudyContext\n"
        f"plan = StudyContext({recipe(criterion='flow', search=at_init(rounds=100))!r}, "
        f"store=Path({str(tmp_path / 'store')!r}), data=Path({str(tmp_path)!r}), "
        f"trust=[Path({str(trust[0])!r})]).plan()\n"
        "print(plan.asked, plan.unique, plan.steps, plan.broken)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["202", "202", "120", "()"], done.stderr


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "densities rise": ({"densities": [0.2, 0.5]}, r"0\.5 follows 0\.2"),
    "a density twice": ({"densities": [0.2, 0.2]}, r"0\.2 follows 0\.2"),
    "no density": ({"densities": []}, "densities"),
    "above 1": ({"densities": [1.5]}, "1.5"),
    "zero": ({"densities": [0]}, "0"),
    "no round": ({"rounds": 0}, "rounds"),
    "a typing error": ({"density": [0.2]}, "densities"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_options_are_refused_by_key(fault: str) -> None:
    options, message = WRONG[fault]
    (text,) = faults(changed(search={"use": "at_init", **options}))
    assert "search" in text
    assert re.search(message, text), text


def refusal(folder: Path, table: dict[str, Any], trust: list[Path]) -> str:
    """The message of a recipe that is refused before anything is computed."""
    with pytest.raises(RecipeError) as raised:
        go(folder, table, trust=trust)
    assert not (folder / "store" / "objects").exists()
    return str(raised.value)


def test_a_policy_that_rewinds_into_a_training_is_refused_before_any(
    tmp_path: Path, trust: list[Path]
) -> None:
    table = recipe(search=at_init(), rewind={"use": "to_step", "step": "5it"})
    assert "goes back to step 5 of a training" in refusal(tmp_path, table, trust)
    assert 'use "to_init"' in refusal(tmp_path, table, trust)


def test_a_density_that_leaves_nothing_is_refused_before_any_training(
    tmp_path: Path, trust: list[Path]
) -> None:
    table = recipe(search=at_init(densities=[1e-6]))
    assert "leaves no weights" in refusal(tmp_path, table, trust)


def test_too_few_examples_for_a_probe_end_the_cell_before_any_training(
    tmp_path: Path, trust: list[Path]
) -> None:
    done, watch = go(tmp_path, recipe(criterion="greedy", search=at_init()), trust=trust)
    assert set(done.statuses.values()) == {"failed"}
    assert ran(watch) == {"trainings": 0, "probes": 0}
    (message,) = [event.message for event in watch.of("CellFinished")]
    expected = (
        r"criterion 'criteria\.py/greedy' of .*: 3 batches of 128 examples were asked for; the "
        r"train part has 330 examples"
    )
    assert re.search(expected, message), message
