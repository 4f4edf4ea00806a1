"""`[[target]]`: tickets that one study finds are trained on other data, or with another optimizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import cli
from support.recipes import faults, load
from support.runs import DATA, files, go, recipe

from lotteryfw import Run, load_ticket
from lotteryfw.api.errors import LotteryError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry
from lotteryfw.runner.context import StudyContext

OTHER = {**DATA, "classes": 5, "noise": 0.7}
ONE_LEVEL = {"use": "imp", "levels": 1}


def path_of(run: Run, variant: str, level: int) -> Path:
    name = f"level-{level:02d}" + ("" if variant == "ticket" else f"-{variant}")
    (path,) = (run.path / "tickets").rglob(f"{name}.safetensors")
    return path


def rows(run: Run) -> dict[tuple[str, int], Any]:
    return {(row.variant, row.level): row for row in run.levels}


# The command line

STUDY = """
name = "transfer"
data = {data}
model = {{ use = "mlp", hidden = [20] }}
search = {{ use = "imp", levels = 2 }}
[train]
length = "60it"
batch = 20
optimizer = {{ use = "sgd", lr = 0.1 }}
{targets}
"""
SYNTHETIC = """
[[target]]
name = "synthetic"
data = { use = "synthetic", examples = 400, classes = 4, shape = [1, 8, 8] }
"""
ADAM = """
[[target]]
name = "adam"
train = { optimizer = { use = "adam", lr = 1e-2 }, length = "30it" }
levels = [1, 2]
"""


def test_a_ticket_of_digits_is_trained_on_synthetic_data_and_stands_in_the_report(
    tmp_path: Path,
) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(data='"digits"', targets=SYNTHETIC))
    done = cli(tmp_path, "recipe", "study.toml", "--out", "run")
    assert done.returncode == 0, done.stderr
    by_row = rows(Run(tmp_path / "run"))
    assert {key for key in by_row if key[0] == "synthetic"} == {("synthetic", n) for n in range(3)}
    for level in (1, 2):
        ticket = load_ticket(path_of(Run(tmp_path / "run"), "ticket", level))
        moved = load_ticket(path_of(Run(tmp_path / "run"), "synthetic", level))
        # the hidden layer is the ticket's own, the output layer new and whole
        assert torch.equal(moved.mask["fc1.weight"], ticket.mask["fc1.weight"])
        assert torch.equal(moved.values["fc1.weight"], ticket.values["fc1.weight"])
        assert moved.mask["fc2.weight"].shape == (4, 20)
        assert bool(moved.mask["fc2.weight"].all())
        assert by_row["synthetic", level].test_accuracy > 0.5
    printed = cli(tmp_path, "report", "run").stdout
    assert "synthetic" in printed
    assert "synthetic" in (tmp_path / "run" / "report.html").read_text()


def test_a_ticket_found_with_sgd_is_trained_with_adam_at_the_chosen_levels(tmp_path: Path) -> None:
    data = json.dumps(DATA).replace(":", "=")
    (tmp_path / "study.toml").write_text(STUDY.format(data=data, targets=ADAM))
    planned = cli(tmp_path, "plan", "study.toml", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["unique"] == 5
    done = cli(tmp_path, "recipe", "study.toml", "--out", "run")
    assert done.returncode == 0, done.stderr
    by_row = rows(Run(tmp_path / "run"))
    assert {key for key in by_row if key[0] == "adam"} == {("adam", 1), ("adam", 2)}
    for level in (1, 2):
        assert by_row["adam", level].steps == 30
        assert by_row["adam", level].density == by_row["ticket", level].density
        assert by_row["adam", level].test_loss != by_row["ticket", level].test_loss
        moved = load_ticket(path_of(Run(tmp_path / "run"), "adam", level))
        ticket = load_ticket(path_of(Run(tmp_path / "run"), "ticket", level))
        for name, value in ticket.values.items():
            assert torch.equal(moved.values[name], value)
    assert "adam" in cli(tmp_path, "report", "run").stdout


# What a target's training is


def target(**changes: Any) -> dict[str, Any]:
    return {"name": "other", "data": OTHER, **changes}


def test_a_targets_training_is_that_of_a_study_of_its_own(tmp_path: Path) -> None:
    """With the same classes a target's dense row is the dense row of a study on its data."""
    other = {**DATA, "noise": 0.9}
    table = recipe(search=ONE_LEVEL, target=[{"name": "noisy", "data": other}])
    first, watch = go(tmp_path, table)
    assert len(watch.trained) == 4
    second, watch = go(tmp_path, recipe(search={"use": "imp", "levels": 0}, data=other), "alone")
    assert not watch.trained
    assert rows(first)["noisy", 0].test_loss == rows(second)["ticket", 0].test_loss


def test_a_new_head_is_one_for_all_levels_and_another_for_another_seed(tmp_path: Path) -> None:
    table = recipe(search={"use": "imp", "levels": 2}, target=[target()], seeds=[0, 1])
    done, _ = go(tmp_path, table)
    heads: dict[str, list[Any]] = {}
    for path in sorted((done.path / "tickets").rglob("*-other.safetensors")):
        heads.setdefault(path.parent.name, []).append(load_ticket(path).values["fc3.weight"])
    first, second = heads.values()
    assert len(first) == len(second) == 3
    for head in first:
        assert head.shape == (5, 6)
        assert torch.equal(head, first[0])
        assert not torch.equal(head, second[0])


def test_a_run_with_targets_is_repeated_from_the_store_and_alike_with_workers(
    tmp_path: Path,
) -> None:
    table = recipe(search=ONE_LEVEL, target=[target()], controls=["random_mask"])
    done, _ = go(tmp_path, table)
    again, watch = go(tmp_path, table, "again")
    assert not watch.trained
    workers, _ = go(tmp_path, table, "workers", store=tmp_path / "other", jobs=2)
    assert files(done.path) == files(again.path) == files(workers.path)


def test_metrics_of_a_target_are_measured_on_its_data(tmp_path: Path) -> None:
    evaluate = {"points": 2, "metrics": ["nll"], "train": True}
    done, _ = go(tmp_path, recipe(search=ONE_LEVEL, target=[target()], evaluate=evaluate))
    by_row = rows(done)
    # negative log-likelihood is the loss of the target's own test set
    other = by_row["other", 1]
    assert other.metrics["nll"] == pytest.approx(other.test_loss, rel=1e-4)
    assert other.metrics["train_accuracy"] != by_row["ticket", 1].metrics["train_accuracy"]


def test_a_target_follows_the_grid_and_the_resolved_recipe_is_the_same_study(
    tmp_path: Path,
) -> None:
    table = recipe(
        search=ONE_LEVEL,
        target=[target(train={"optimizer": "adam", "augment": []})],
        grid={"train.length": ["20it", "40it"]},
    )
    registry = Registry.load()
    loaded = load_recipe(table, registry, data_folder=tmp_path)
    assert [cell.targets[0].cell.clock.total for cell in loaded.cells] == [20, 40]
    resolved = load_recipe(loaded.resolved(), registry, data_folder=tmp_path)
    assert [cell.targets for cell in resolved.cells] != [()] * 2
    first, _ = go(tmp_path, table)
    _, watch = go(tmp_path, loaded.resolved(), "resolved")
    assert not watch.trained
    assert len(rows(first)) == 4


def test_a_plan_counts_targets_and_needs_no_tensors(tmp_path: Path) -> None:
    table = recipe(
        search={"use": "imp", "levels": 3}, target=[target(), target(name="more", levels=[2])]
    )
    context = StudyContext(table, store=tmp_path / "s", data=tmp_path)
    planned = context.plan()
    # both targets are one training at level 2
    assert (planned.asked, planned.unique, planned.trainings) == (9, 8, 8)
    assert (planned.broken, planned.unknown) == ((), ())


def test_a_ticket_from_a_file_goes_to_a_target_with_another_head(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL), "first")
    start = str(path_of(first, "ticket", 1))
    done, _ = go(tmp_path, recipe(search=ONE_LEVEL, start=start, target=[target()]), "second")
    begun, moved = load_ticket(Path(start)), load_ticket(path_of(done, "other", 0))
    assert torch.equal(moved.mask["fc1.weight"], begun.mask["fc1.weight"])


# Refusals


def test_an_input_shape_that_does_not_fit_is_refused_with_file_and_key(tmp_path: Path) -> None:
    text = STUDY.format(data=json.dumps(DATA).replace(":", "="), targets=SYNTHETIC)
    (tmp_path / "study.toml").write_text(text)
    done = cli(tmp_path, "recipe", "study.toml", "--out", "run")
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert "study.toml: target[0].data: tickets of the study do not fit" in message
    assert "'fc1.weight' is [20, 16] in the study's network and [20, 64] here" in message
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").rglob("metrics.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "ticket"}, "levels are recorded under the name 'ticket' already"),
        ({"name": "random_mask"}, "levels are recorded under the name 'random_mask' already"),
        ({"data": None}, "changes nothing"),
        ({"data": "sinthetic"}, "target[0].data: there is no data source 'sinthetic'"),
        ({"train": {"optimiser": "adam"}}, "target[0].train.optimiser"),
        ({"train": {"optimizer": {"use": "adam", "lr": -1}}}, "target[0].train.optimizer"),
        ({"train": {"mask_update": "x"}}, "the mask of a target's ticket stays as it is"),
        (
            {"data": {"use": "synthetic_text"}, "train": {"augment": ["flip"]}},
            "target[0].train.augment[0]: 'flip' changes images, and the inputs are tokens",
        ),
        ({"levels": [-1]}, "target[0].levels[0]"),
        ({"extra": 1}, "target[0].extra"),
    ],
)
def test_mistakes_in_a_target_are_faults_of_the_recipe(
    changes: dict[str, Any], message: str
) -> None:
    entry = {key: value for key, value in target(**changes).items() if value is not None}
    found = faults(recipe(controls=["random_mask"], target=[entry]))
    assert len(found) == 1
    assert message in found[0]


def test_what_fits_the_study_and_not_a_target_is_a_fault_of_what_the_target_changes() -> None:
    study = recipe(evaluate={"metrics": ["top_k"]}, data={**DATA, "classes": 10})
    (fault,) = faults(study | {"target": [target()]})
    assert "target[0].data: the metric 'top_k' says nothing here" in fault
    objective = {"name": "other", "train": {"objective": "reconstruction"}}
    (fault,) = faults(study | {"target": [objective]})
    assert "target[0].train.objective: the metric 'top_k' reads labels as classes" in fault
    study = recipe()
    study["train"]["augment"] = ["flip"]
    (fault,) = faults(study | {"target": [target(data={"use": "synthetic_text"})]})
    assert "target[0].data: 'flip' changes images, and the inputs are tokens" in fault


def test_two_targets_of_one_name_are_refused() -> None:
    (fault,) = faults(recipe(target=[target(), target(levels=[1])]))
    assert "target[1].name: levels are recorded under the name 'other' already" in fault


def test_a_claim_may_name_a_target(tmp_path: Path) -> None:
    claim = {
        "text": "t", "source": "s", "of": {"variant": "other"}, "density": 0.8, "expect": 0.5,
        "tolerance": 0.5, "tolerance_reason": "r",
    }  # fmt: skip
    assert faults(recipe(target=[target()], claim=[claim])) == []
    (fault,) = faults(recipe(claim=[claim]))
    assert "other" in fault


def test_missing_data_of_a_target_is_told_before_any_training(tmp_path: Path) -> None:
    table = recipe(data={**DATA, "shape": [1, 28, 28]}, target=[{"name": "m", "data": "mnist"}])
    with pytest.raises(LotteryError, match=r"target\[0\]\.data: .*MNIST"):
        go(tmp_path, table)
    assert not list((tmp_path / "store").rglob("metrics.json"))


def test_a_level_that_no_search_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=r"target\[0\]\.levels: .*no level 7.*0, 1"):
        go(tmp_path, recipe(search=ONE_LEVEL, target=[target(levels=[1, 7])]))
    assert not list((tmp_path / "store").rglob("metrics.json"))


def test_levels_may_be_a_range() -> None:
    for levels in ([1, 2], "1..2"):
        table = recipe(search={"use": "imp", "levels": 2}, target=[target(levels=levels)])
        (cell,) = load(table).cells
        assert [chosen.levels for chosen in cell.targets] == [frozenset({1, 2})], levels
    (fault,) = faults(recipe(search=ONE_LEVEL, target=[target(levels="1-2")]))
    assert "target[0].levels" in fault
