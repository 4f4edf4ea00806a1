"""`lotteryfw plan`: counts, networks, and a measured time, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import QUICK
from support.messages import CommandLine

import lotteryfw
from lotteryfw import RecipeError
from lotteryfw.runner import plan as plan_module
from lotteryfw.runner import scheduler
from lotteryfw.runner.plan import timed_steps
from lotteryfw.search import jobs
from lotteryfw.search.jobs import Train
from lotteryfw.store import Store

ATTENTION = """
from lotteryfw import ModelFamily, hookimpl

class Attention(ModelFamily):
    "One layer of attention."
    use = "attention"

    def build(self, shape, classes):
        from torch import nn

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
                self.head = nn.Linear(16, classes)

            def forward(self, x):
                rows = x.flatten(1, 2)
                mixed, _ = self.attention(rows, rows, rows)
                return self.head(mixed.flatten(1))

        return Network()

@hookimpl
def register_components():
    return [Attention]
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    (tmp_path / "attention.py").write_text(ATTENTION)
    return CommandLine(tmp_path, monkeypatch)


def test_a_plan_counts_what_the_study_would_do(command: CommandLine) -> None:
    code, out, error = command("plan", "tiny.toml", "--set", 'evaluate.metrics=["nll"]')
    assert (code, error) == (0, "")
    rows = dict(line.strip().rsplit("  ", 1) for line in out.splitlines()[1:12])
    counts = {name.strip(): value.strip() for name, value in rows.items()}
    assert counts["different jobs"] == "12"
    assert counts["of them trainings"] == "6"
    assert counts["of them evaluations"] == "6"
    assert counts["steps to do"] == "240"
    assert counts["time, one process"] == "not known yet"
    assert "nothing like it was trained in this store: --measure estimates the time" in out


def test_the_network_with_its_layers_and_levels(command: CommandLine) -> None:
    code, out, error = command("plan", "tiny.toml", "--network")
    assert (code, error) == (0, "")
    # 16 inputs, hidden layers of 8 and 6, 3 classes; 20 % of each layer: 102+38+14, then 82+30+11
    assert out.split("\n\n")[1] == (
        "tiny: network 'mlp' for inputs 1×4×4\n"
        "  fc1.weight              8×16             128\n"
        "  fc2.weight               6×8              48\n"
        "  fc3.weight               3×6              18\n"
        "  prunable: 194 of 211 parameters (91.9%)\n"
        "  not pruned: fc1.bias (8), fc2.bias (6), fc3.bias (3)\n"
        "  weights remaining, %: 100, 79.4, 63.4\n"
        "  memory of a training: at least 11.5 kB (weights 1.0 kB, gradients 0.8 kB, optimizer 0.0 kB, "
        "activations of a batch of 16 2.2 kB, data set 7.4 kB)\n"
    )


def test_what_is_not_pruned_is_named(command: CommandLine) -> None:
    words = ("plan", "tiny.toml", "--set", 'model="attention"', "--trust", "attention.py")
    code, out, error = command(*words, "--network", "--json")
    assert (code, error) == (0, "")
    (network,) = json.loads(out)["networks"]
    assert [name for name, _, _ in network["layers"]] == [
        "attention.out_proj.weight",
        "head.weight",
    ]
    # PyTorch packs the three projections into one parameter, which is no layer's weight
    assert dict(network["not_pruned"])["attention.in_proj_weight"] == 3 * 4 * 4
    assert network["prunable"] == 4 * 4 + 3 * 16
    assert network["densities"][0] == 1


def test_learned_masks_have_densities_that_show_later(command: CommandLine) -> None:
    learned = ("--set", 'search="edge_popup"', "--set", 'parametrization="top_k"')
    code, out, error = command("plan", "tiny.toml", *learned, "--network")
    assert (code, error) == (0, "")
    assert "  weights remaining: known only as the study runs\n" in out


def test_a_measured_plan_knows_time_and_disk_and_keeps_nothing(command: CommandLine) -> None:
    code, out, error = command("plan", "tiny.toml", "--measure", "--json")
    assert (code, error) == (0, "")
    plan = json.loads(out)
    assert 0 < plan["seconds"] < 3600
    # six trainings of 211 parameters
    assert plan["bytes"] == 6 * (4 * 211 + 4000)
    assert not (command.folder / "store").exists()
    assert json.loads(command("plan", "tiny.toml", "--json")[1])["seconds"] is None


def test_a_training_that_diverges_at_once_or_has_one_step_has_no_measured_time(
    command: CommandLine,
) -> None:
    for change in ('initialiser={use="constant",value=1e38}', "train.length=1it"):
        code, out, error = command("plan", "tiny.toml", "--measure", "--json", "--set", change)
        assert (code, error) == (0, "")
        assert json.loads(out)["seconds"] is None


def test_a_measurement_counts_more_than_what_is_stored(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("recipe", "tiny.toml", "--set", "seeds=[5]")[0] == 0
    monkeypatch.setattr(plan_module, "_stored_cost", lambda store, cost_class: (1e6, 1))
    assert json.loads(command("plan", "tiny.toml", "--json")[1])["seconds"] > 1e6
    assert json.loads(command("plan", "tiny.toml", "--measure", "--json")[1])["seconds"] < 3600


def test_estimates_are_made_of_the_longest_training(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes: set[str] = set()

    def likeness(job: Train) -> str:
        classes.add(jobs.likeness(job))
        return jobs.likeness(job)

    monkeypatch.setattr(scheduler, "likeness", likeness)
    store = Store(command.folder / "store")
    lengths = []
    for length in (20, 300, 40):
        words = ("--set", f"train.length={length}it", "--set", "evaluate.points=1")
        assert command("recipe", "tiny.toml", *words, "--out", f"run-{length}")[0] == 0
        (cost_class,) = classes
        lengths.append(timed_steps(store, cost_class))
    assert lengths == [20, 300, 300]


def test_an_absurd_network_is_refused(command: CommandLine) -> None:
    words = ("--set", "model.hidden=[9000000, 9000000]")
    code, out, error = command("plan", "tiny.toml", "--network", *words)
    assert (code, out) == (2, "")
    assert error.startswith("error: tiny.toml: model: model 'lotteryfw/mlp' of lotteryfw==")
    assert "bytes for its parameters and buffers" in error


BROKEN_SEARCH = """
from lotteryfw import SearchAlgorithm, hookimpl

class Broken(SearchAlgorithm):
    "Raises before it asks for anything."
    use = "broken"
    def search(self, lab):
        raise ZeroDivisionError("no search")
        yield

@hookimpl
def register_components():
    return [Broken]
"""


def test_a_search_that_cannot_run_is_a_fault_for_check_and_plan(command: CommandLine) -> None:
    (command.folder / "broken.py").write_text(BROKEN_SEARCH)
    (command.folder / "wrong.toml").write_text(
        QUICK.format(length="40it", more="").replace('"imp", levels = 2', '"broken"')
    )
    words = ("wrong.toml", "--trust", "broken.py")
    reason = "broke in search(): ZeroDivisionError: no search"
    code, out, error = command("check", *words)
    assert (code, out) == (2, "")
    assert error.startswith("error: wrong.toml: search: search 'broken.py/broken' of ")
    assert error.endswith(f"{reason} (in tiny/seed=0 and 1 more cell)\n")
    for command_words in (("plan", *words), ("recipe", "wrong.toml", *words, "--dry-run")):
        code, out, error = command(*command_words)
        assert (code, error) == (1, "")
        assert f"{reason}\n" in out
    # of two recipes, the plan of the second is printed too
    assert out.count("cannot run: tiny/seed=0") == 2
    code, out, _ = command("plan", *words, "--json")
    assert (code, len(json.loads(out)["broken"])) == (1, 2)
    with pytest.raises(RecipeError, match="no search"):
        lotteryfw.check(command.folder / "wrong.toml", trust=[command.folder / "broken.py"])
