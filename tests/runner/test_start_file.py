"""`start`: a search goes on from a ticket of another run, or from a plain state dict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.recipes import faults
from support.runs import go, recipe

from lotteryfw import load_ticket
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
