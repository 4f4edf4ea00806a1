"""`start`: a search goes on from a ticket of another run, or from a plain state dict."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.commands import cli
from support.recipes import faults
from support.runs import go, recipe

from lotteryfw import Run, load_ticket
from lotteryfw.api.errors import LotteryError
from lotteryfw.runner.context import StudyContext

ONE_LEVEL = {"use": "imp", "levels": 1}


def ticket_file(run: Any, level: int) -> Path:
    """Return the file of one level's ticket in a run of one cell."""
    (file,) = (run.path / "tickets").rglob(f"level-{level:02d}.safetensors")
    return file


def test_a_ticket_of_one_run_is_continued_in_a_second_and_a_third(tmp_path: Path) -> None:
    whole, _ = go(tmp_path, recipe(search={"use": "imp", "levels": 2}), "whole")
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL), "first")
    second_table = recipe(search=ONE_LEVEL, start=str(ticket_file(first, 1)), seeds=[3])
    second, watch = go(tmp_path, second_table, "second")
    begun, found = load_ticket(ticket_file(first, 1)), load_ticket(ticket_file(second, 0))
    assert watch.trained
    for name, value in begun.values.items():
        assert torch.equal(found.values[name], value)
    for name, mask in begun.mask.items():
        assert torch.equal(found.mask[name], mask)

    third, _ = go(tmp_path, recipe(search=ONE_LEVEL, start=str(ticket_file(second, 1))), "third")
    last = load_ticket(ticket_file(third, 1))
    sizes = [load_ticket(ticket_file(run, 1)).density for run in (first, second, third)]
    assert sizes[0] > sizes[1] > sizes[2]
    for name, mask in begun.mask.items():
        # what the first run removed never comes back, and weights rewind to the file's
        assert not bool((last.mask[name] & ~mask).any())
        kept = last.mask[name]
        assert torch.equal(last.values[name][kept], begun.values[name][kept])
    # under the seed of the first run, the second is the whole run's second level up to its order
    assert load_ticket(ticket_file(whole, 2)).density == pytest.approx(sizes[1])


def test_a_state_dict_is_a_start_and_its_content_is_in_the_keys(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL), "first")
    values = dict(load_ticket(ticket_file(first, 0)).values)
    file = tmp_path / "net.safetensors"
    save_file(values, file)
    _, watch = go(tmp_path, recipe(search=ONE_LEVEL, start=str(file)), "same")
    # the drawn network, said as a file: the same keys
    assert not watch.trained
    values["fc1.bias"] = values["fc1.bias"] + 1
    save_file(values, file)
    _, watch = go(tmp_path, recipe(search=ONE_LEVEL, start=str(file)), "other")
    assert len(watch.trained) == 2


def test_a_path_is_relative_to_the_recipe(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL), "first")
    folder = tmp_path / "recipes"
    folder.mkdir()
    ticket_file(first, 1).rename(folder / "ticket.safetensors")
    text = f"""
        name = "small"
        start = "ticket.safetensors"
        model = {{ use = "mlp", hidden = [8, 6] }}
        data = {json.dumps(recipe()["data"]).replace(":", "=")}
        train = {{ length = "40it", batch = 16, optimizer = {{ use = "sgd", lr = 0.1 }} }}
    """
    (folder / "study.toml").write_text(text)
    (cell,) = StudyContext(folder / "study.toml", store=tmp_path / "s", data=tmp_path).recipe.cells
    assert cell.start is not None
    assert cell.start.path == folder / "ticket.safetensors"


def test_a_file_that_does_not_fit_is_refused_before_any_training(tmp_path: Path) -> None:
    save_file({"fc1.weight": torch.zeros(3, 3), "fc9.weight": torch.ones(2)}, tmp_path / "net")
    with pytest.raises(LotteryError) as caught:
        go(tmp_path, recipe(start=str(tmp_path / "net")))
    text = str(caught.value)
    assert "start: " in text
    assert "'fc1.weight' is [3, 3] in the file and [8, 16] in the network" in text
    assert "the network has no 'fc9.weight'" in text
    assert "the file has no 'fc1.bias'" in text
    assert not list((tmp_path / "store").rglob("metrics.json"))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("no tensors")
    with pytest.raises(LotteryError, match="no safetensors file"):
        go(tmp_path, recipe(start=str(tmp_path / "net")))


def test_a_missing_file_is_a_fault_of_the_recipe() -> None:
    (fault,) = faults(recipe(start="nowhere.safetensors"))
    assert "start: cannot read" in fault
    assert "No such file" in fault


def test_masks_are_not_learned_over_a_pruned_network(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL), "first")
    table = recipe(search="edge_popup", parametrization="top_k", start=str(ticket_file(first, 1)))
    with pytest.raises(LotteryError, match="start from a file without masks"):
        go(tmp_path, table, "learned")


def test_what_a_file_removed_bounds_the_densities_that_a_search_may_ask_for(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search={"use": "imp", "levels": 2}), "first")
    table = recipe(
        search={"use": "at_init", "densities": [0.9]},
        criterion="magnitude_increase",
        start=str(ticket_file(first, 2)),
    )
    before = len(list((tmp_path / "store").rglob("metrics.json")))
    with pytest.raises(LotteryError, match=r"density 0.9 keeps .* are left: pruned weights do not"):
        go(tmp_path, table, "denser")
    assert len(list((tmp_path / "store").rglob("metrics.json"))) == before


def test_numbers_that_are_not_finite_are_refused_before_any_training(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL), "first")
    values = dict(load_ticket(ticket_file(first, 0)).values)
    values["fc2.bias"] = values["fc2.bias"] / 0
    save_file(values, tmp_path / "net.safetensors")
    with pytest.raises(LotteryError, match=r"'fc2\.bias' has values that are not finite"):
        go(tmp_path, recipe(start=str(tmp_path / "net.safetensors")), "second")


# Files that torch.save wrote, torchvision's among them


def published(folder: Path, classes: int = 3) -> Path:
    """Write weights of a network into the folder where torch.hub keeps them, and return the file."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(5)
    network = torchvision.models.resnet18(num_classes=classes)
    checkpoints = folder / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), checkpoints / "new")
    digest = hashlib.sha256((checkpoints / "new").read_bytes()).hexdigest()
    return (checkpoints / "new").rename(checkpoints / f"resnet18-{digest[:8]}.pth")


def residual(**changes: Any) -> dict[str, Any]:
    """A recipe of a network of torchvision that is only measured."""
    return recipe(
        data={"use": "synthetic", "examples": 60, "classes": 3, "shape": [3, 32, 32]},
        model={"use": "torchvision", "name": "resnet18"},
        search={"use": "imp", "levels": 0},
        train={"length": "1it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
        **changes,
    )


def test_a_model_of_torchvision_starts_from_its_weights_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = published(tmp_path)
    done, _ = go(tmp_path, residual(start="torchvision:resnet18"))
    ticket = load_ticket(ticket_file(done, 0))
    for name, value in torch.load(file, weights_only=True).items():
        assert torch.equal(ticket.values[name], value)
    # the resolved recipe names the file itself, and runs again
    _, watch = go(tmp_path, residual(start=str(file)), "again")
    assert not watch.trained


def test_weights_that_are_not_there_are_refused_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (fault,) = faults(residual(start="torchvision:resnet18"))
    assert "no file of the weights of torchvision's 'resnet18'" in fault
    assert "nothing is downloaded" in fault
    assert not (tmp_path / "torch").exists()

    file = published(tmp_path)
    file.rename(file.with_name("resnet18-01234567.pth"))
    (fault,) = faults(residual(start="torchvision:resnet18"))
    assert "is damaged: its SHA-256 begins with" in fault

    published(tmp_path)
    (fault,) = faults(residual(start="torchvision:resnet18"))
    assert 'name one, "torchvision:resnet18-' in fault


def test_weights_of_another_number_of_classes_are_refused_by_their_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    published(tmp_path, classes=5)
    with pytest.raises(LotteryError, match=r"'fc.weight' is \[5, 512\] in the file and \[3, 512\]"):
        go(tmp_path, residual(start="torchvision:resnet18"))


def test_a_file_that_torch_did_not_save_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_text("no tensors")
    with pytest.raises(LotteryError, match=r"net\.pth is no file of weights"):
        go(tmp_path, recipe(start=str(tmp_path / "net.pth")))
    torch.save([1, 2], tmp_path / "net.pth")
    with pytest.raises(LotteryError, match="has no state dict"):
        go(tmp_path, recipe(start=str(tmp_path / "net.pth")), "list")


# The command line, and lab.load

STUDY = """
name = "{name}"
data = {{ use = "synthetic", examples = 330, classes = 3, shape = [1, 4, 4], noise = 0.5 }}
model = {{ use = "mlp", hidden = [8, 6] }}
search = {{ use = "imp", levels = 1 }}
{more}
[train]
length = "40it"
batch = 16
optimizer = {{ use = "sgd", lr = 0.1 }}
"""


@pytest.mark.large
def test_a_ticket_of_the_first_study_is_continued_in_a_third_by_the_command_line(
    tmp_path: Path,
) -> None:
    densities = []
    for number, name in enumerate(("first", "second", "third")):
        before = ("first", "second")[number - 1] if number else ""
        ticket = f"runs/{before}/tickets/{before}__seed=0/level-01.safetensors"
        more = f'start = "{ticket}"' if before else ""
        (tmp_path / f"{name}.toml").write_text(STUDY.format(name=name, more=more))
        done = cli(tmp_path, "recipe", f"{name}.toml", "--out", f"runs/{name}")
        assert done.returncode == 0, done.stderr
        run = Run(tmp_path / "runs" / name)
        densities += [row.density for row in run.levels if row.variant == "ticket"]
    # level 0 of a later study is level 1 of the one before
    assert densities[1] == densities[2]
    assert densities[3] == densities[4]
    assert densities[0] == 1 > densities[1] > densities[3] > densities[5]


PLUGIN = """
from lotteryfw import SearchAlgorithm, hookimpl

class Continue(SearchAlgorithm):
    "Prunes the network in a file, beside the dense one."
    use = "continue"
    file: str
    def search(self, lab):
        for level, start in enumerate((lab.dense(), lab.load(self.file))):
            trained = yield from lab.train(start)
            ticket = lab.prune(start, trained)
            pruned = yield from lab.train(ticket)
            lab.record(1 + level, ticket, pruned)

@hookimpl
def register_components():
    return [Continue]
"""


def continued(tmp_path: Path, file: Path) -> tuple[dict[str, Any], Path]:
    plugin = tmp_path / "continue.py"
    plugin.write_text(PLUGIN)
    search = {"use": "continue", "file": str(file)}
    return recipe(plugins=[str(plugin)], search=search), plugin


def test_lab_load_begins_a_chain_that_rewinds_to_the_file(tmp_path: Path) -> None:
    first, _ = go(tmp_path, recipe(search=ONE_LEVEL, seeds=[4]), "first")
    file = ticket_file(first, 1)
    table, plugin = continued(tmp_path, file)
    planned = StudyContext(table, store=tmp_path / "s", data=tmp_path, trust=[plugin]).plan()
    assert (planned.unique, planned.unknown, planned.broken) == (4, (), ())
    done, _ = go(tmp_path, table, trust=[plugin])
    begun, dense, found = (
        load_ticket(path) for path in (file, ticket_file(done, 1), ticket_file(done, 2))
    )
    assert found.density < begun.density < 1
    for name, mask in found.mask.items():
        assert not bool((mask & ~begun.mask[name]).any())
        assert torch.equal(found.values[name][mask], begun.values[name][mask])
        assert not torch.equal(dense.values[name], found.values[name])
    _, watch = go(tmp_path, table, "again", trust=[plugin])
    assert not watch.trained


def test_lab_load_refuses_a_file_that_does_not_fit_before_any_training(tmp_path: Path) -> None:
    save_file({"fc1.weight": torch.zeros(3, 3)}, tmp_path / "net.safetensors")
    table, plugin = continued(tmp_path, tmp_path / "net.safetensors")
    with pytest.raises(
        LotteryError, match=r"lab.load: .*does not fit the recipe's network"
    ) as caught:
        go(tmp_path, table, trust=[plugin])
    assert "search '" in str(caught.value).partition("lab.load")[0]
    table, plugin = continued(tmp_path, tmp_path / "nowhere")
    with pytest.raises(LotteryError, match=r"lab.load: cannot read .*nowhere: No such file"):
        go(tmp_path, table, "nowhere", trust=[plugin])
    assert not list((tmp_path / "store").rglob("metrics.json"))
