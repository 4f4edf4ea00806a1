"""`[randomness]`: what each seed decides, which keys it is in, and fresh or repeated data orders."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from support.labs import played
from support.recipes import changed, faults, load
from support.runs import go, recipe
from support.small import cell, lab

from lotteryfw import load_ticket
from lotteryfw.recipe.json_schema import json_schema
from lotteryfw.recipe.toml_writer import to_toml
from lotteryfw.registry import Registry
from lotteryfw.runner.context import StudyContext
from lotteryfw.search.jobs import Train
from lotteryfw.search.randomness import Randomness

AUGMENT = [{"use": "crop", "padding": 1}]


def dense_job(**seeds: Any) -> Train:
    """Return the training of the dense network of a small cell with these seeds."""
    desk = lab(cell(randomness=Randomness(**seeds)))
    job = desk.job(desk.dense())
    assert isinstance(job, Train)
    return job


def weights(path: Path, name: str) -> list[torch.Tensor]:
    """Return the values of one ticket in every cell of a run, in the order of its folders."""
    tickets = []
    for file in sorted((path / "tickets").rglob(name)):
        tickets.append(load_ticket(file).values["fc1.weight"])
    return tickets


def test_orders_as_an_axis_share_step_0_and_nothing_after_it(tmp_path: Path) -> None:
    seeds = {"init": 7, "order": [0, 1, 2]}
    result, watch = go(tmp_path, recipe(randomness=seeds, search={"use": "imp", "levels": 1}))
    assert [cell.axes for cell in load(recipe(randomness=seeds)).cells] == [
        {"randomness.order": str(order)} for order in range(3)
    ]
    # three dense networks and three tickets: nothing of one order is taken for another's
    assert len(set(watch.trained)) == 6

    first, second, third = weights(result.path, "level-00.safetensors")
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    rows = [json.loads(line) for line in (result.path / "curves.jsonl").read_text().splitlines()]
    curves = [row for row in rows if row["level"] == 0]
    losses = [tuple(row["validation_loss"]) for row in curves]
    assert len({loss[0] for loss in losses}) == 1
    for step in range(1, len(losses[0])):
        assert len({loss[step] for loss in losses}) == 3


def test_a_seed_is_in_the_keys_that_it_decides_and_in_no_others(tmp_path: Path) -> None:
    key = dense_job().key
    # without augmentations, learned masks and ties nothing of the dense run depends on these
    for stream in ("augment", "ties", "scores"):
        assert dense_job(**{stream: 5}).key == key
    assert dense_job(repeats_order=True).key == key
    assert dense_job(order=5).key != key
    assert dense_job(init=5).key != key
    # the seed of the cell, said once more, is the same seed
    assert dense_job(order=0, init=0).key == key

    def measured(**seeds: Any) -> str:
        desk = lab(cell(randomness=Randomness(**seeds)))
        return desk.job(desk.as_is(desk.dense())).key

    assert measured(order=5) == measured()

    # fresh and repeated orders share the dense run and the untrained networks of each level 1
    table = recipe(randomness={"order": ["fresh", "same"]}, controls=["untrained"])
    planned = StudyContext(table, store=tmp_path / "store", data=tmp_path).plan()
    _, watch = go(tmp_path, table)
    # 1 dense, 2 cells with levels 1 and 2, untrained at level 1 (shared) and at level 2
    assert len(set(watch.trained)) == 1 + 4 + 1 + 2
    assert planned.unique >= len(set(watch.trained))


def test_a_fresh_order_differs_at_each_level_and_the_same_does_not() -> None:
    def seeds(**given: Any) -> list[tuple[int, int]]:
        desk = lab(cell(randomness=Randomness(**given), search={"use": "imp", "levels": 2}))
        jobs = [desk.job(record.ticket) for record in played(desk)]
        return [(job.order_seed, job.augment_seed) for job in jobs if isinstance(job, Train)]

    fresh, same = seeds(), seeds(repeats_order=True)
    assert same == [(0, 0)] * 3
    assert fresh[0] == same[0]
    assert len({order for order, _ in fresh}) == 3
    assert {augment for _, augment in fresh} == {0}  # nothing is augmented
    assert [order for order, _ in seeds(order=0)] == [order for order, _ in fresh]


def test_the_same_order_continues_the_dense_run_bit_for_bit(tmp_path: Path) -> None:
    def figures(order: str) -> tuple[list[Any], list[Any]]:
        table = recipe(
            randomness={"order": order},
            rewind={"use": "to_step", "step": "10it", "optimizer": "saved"},
            # nothing is pruned, so the level goes on where the dense run passed the step
            scope={"use": "layerwise", "rate": 0.0},
            search={"use": "imp", "levels": 1},
        )
        result, _ = go(tmp_path, table, name=order)
        lines = (result.path / "curves.jsonl").read_text().splitlines()
        dense, ticket = (json.loads(line)["validation_loss"] for line in lines)
        return dense, ticket

    dense, ticket = figures("same")
    assert ticket == dense[-len(ticket) :]
    dense, ticket = figures("fresh")
    assert ticket[0] == dense[-len(ticket)]  # the state of step 10
    assert all(
        one != other for one, other in zip(ticket[1:], dense[-len(ticket) + 1 :], strict=True)
    )


def test_a_list_of_seeds_is_an_axis_and_what_is_resolved_loads_to_it() -> None:
    seeds = {"ties": [3, 4], "order": 5, "across_levels": "same"}
    first = load(changed(randomness=seeds))
    assert len(first.cells) == 4
    assert {cell.seeds.ties for cell in first.cells} == {3, 4}
    assert {(cell.seeds.order, cell.seeds.repeats_order) for cell in first.cells} == {(5, True)}
    second = load(tomllib.loads(to_toml(first.resolved())))
    assert (second.cells, second.digest) == (first.cells, first.digest)
    grid = load(changed(randomness={**seeds, "ties": 0}, grid={"randomness.ties": [3, 4]}))
    assert grid.cells == first.cells


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"order": "new"}, "randomness.order: must be an integer or 'fresh' or 'same', got 'new'"),
        ({"order": [0, "new"]}, "randomness.order[1]: must be an integer or 'fresh' or 'same'"),
        ({"init": -1}, "randomness.init: must be >= 0, got -1"),
        ({"init": [2, 2]}, "randomness.init: '2' is listed twice"),
        ({"init": []}, "randomness.init: must be at least 1 long, got []"),
        ({"oder": 1}, "randomness.oder: unknown key (did you mean 'order'?)"),
        ({"oder": [1]}, "randomness.oder: unknown key (did you mean 'order'?)"),
        ({"order": "same", "across_levels": "same"}, "say the same in two ways"),
        ([], "randomness: must be a table"),
    ],
)
def test_wrong_seeds_are_refused_with_their_key(table: Any, message: str) -> None:
    assert any(message in fault for fault in faults(changed(randomness=table)))


def test_seeds_are_not_given_as_a_list_and_in_the_grid() -> None:
    table = changed(randomness={"order": [0, 1]}, grid={"randomness.order": [0, 1]})
    (fault,) = faults(table)
    assert "randomness.order: is an axis of the grid, too" in fault


def test_too_many_seeds_are_counted_before_a_cell_is_made() -> None:
    table = changed(randomness={"order": list(range(20_000)), "init": list(range(20_000))})
    assert any("cells" in fault for fault in faults(table))


def test_the_json_schema_knows_seeds_and_lists_of_them() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema(Registry.load()))
    for value in (3, "fresh", [0, "same"]):
        assert validator.is_valid(changed(randomness={"order": value}))
    for value in ("new", ["new"], 1.5, []):
        assert not validator.is_valid(changed(randomness={"order": value}))


def test_one_init_under_several_seeds_is_one_network() -> None:
    cells = load(changed(randomness={"init": 3})).cells
    values = []
    for one in cells:
        values.append(lab(one).dense().values["fc1.weight"])
    assert torch.equal(*values)
