"""What decides nothing is refused, or warned of, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import go, recipe

from lotteryfw.api.errors import RecipeError
from lotteryfw.runner import StudyContext

IEP = {"use": "iterative_edge_popup", "density": 0.5}


def context(folder: Path, **changes: Any) -> StudyContext:
    return StudyContext(recipe(**changes), data=folder, store=folder / "store")


def faults(folder: Path, **changes: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        context(folder, **changes).validate_parts()
    return [str(fault) for fault in caught.value.faults]


def test_a_component_that_no_search_uses_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, search="random_pruning", criterion="movement") == [
        "recipe: criterion: has no effect: the search 'random_pruning' asks for the same jobs with "
        "any criterion (leave criterion out)"
    ]
    learned = {"search": "edge_popup", "parametrization": "top_k", "mask0": "init"}
    assert faults(tmp_path, **learned) == [
        "recipe: mask0: has no effect: the search 'edge_popup' asks for the same jobs with any "
        "mask0 (leave mask0 out)"
    ]


def test_an_axis_that_no_search_uses_is_refused(tmp_path: Path) -> None:
    grid = {"criterion": ["large_final", "random"]}
    assert faults(tmp_path, search="random_pruning", grid=grid) == [
        "recipe: grid.criterion: has no effect: the search 'random_pruning' asks for the same jobs "
        "for each of its values (leave it out: its rows would be the same under several names)"
    ]
    # without an augmentation nothing is drawn from its stream
    assert faults(tmp_path, randomness={"augment": [0, 1]}) == [
        "recipe: randomness.augment: has no effect: the search 'imp' asks for the same jobs "
        "for each of its values (leave it out: its rows would be the same under several names)"
    ]


def test_an_axis_that_matters_to_one_search_alone_is_warned_of(tmp_path: Path) -> None:
    grid = {
        "search": [{"use": "imp", "levels": 2}, "random_pruning"],
        "criterion": ["movement", "random"],
    }
    checked = context(tmp_path, grid=grid)
    checked.validate_parts()
    assert checked.warnings == [
        "study small: some combinations of its grid have the same results under two names: "
        "search=random_pruning, criterion=random equals search=random_pruning, criterion=movement"
    ]


def test_parts_that_decide_something_are_accepted(tmp_path: Path) -> None:
    grid = {
        "search": [{"use": "imp", "levels": 2}, "one_shot"],
        "criterion": ["movement", "random"],
        "mask0": ["zero", "init"],
        "scope.rate": [0.2, 0.3],
        "evaluate.points": [2, 4],
    }
    checked = context(tmp_path, grid=grid)
    checked.validate_parts()
    assert checked.warnings == []
    # one part for two studies, of which one has a use for it
    studies = [{"name": "once"} | {"search": "edge_popup"}, {"name": "cycles", "search": IEP}]
    checked = context(
        tmp_path, study=studies, parametrization="top_k", rewind="learning_rate", search=None
    )
    checked.validate_parts()
    # a resolved recipe writes every default
    resolved = context(tmp_path, search="edge_popup", parametrization="top_k").recipe.resolved()
    StudyContext(resolved, data=tmp_path, store=tmp_path / "store").validate_parts()


def test_an_evaluation_beyond_the_end_is_warned_of(tmp_path: Path) -> None:
    checked = context(tmp_path, evaluate={"every": "100it"})
    checked.validate_parts()
    assert checked.warnings == [
        "study small: evaluate.every is 100 steps, and a training has 40: networks are evaluated "
        "at the end alone"
    ]


def test_dense_networks_alone_are_warned_of(tmp_path: Path) -> None:
    grid = {"criterion": ["large_final", "random"]}
    checked = context(tmp_path, search={"use": "imp", "levels": 0}, grid=grid)
    checked.validate_parts()
    assert checked.warnings == [
        "recipe: grid.criterion: changes nothing, since no search prunes: its rows are the same "
        "under each name"
    ]


def test_a_search_stops_where_nothing_is_left_to_prune(tmp_path: Path) -> None:
    small = {
        "model": {"use": "mlp", "hidden": [4]},
        "search": {"use": "imp", "levels": 20},
        "scope": {"use": "layerwise", "rate": 0.5},
        "analyses": ["mask_diagnostics"],
        "controls": ["reinit"],
    }
    # 64 and 12 weights: 32+6, 16+3, 8+1 (1.5 is rounded to 2), 4+1, 2+1, 1+1, and half of 1 is 0
    done, watch = go(tmp_path, recipe(**small))
    tickets = [row for row in done.levels if row.variant == "ticket"]
    assert [row.weights_kept for row in tickets] == [76, 38, 19, 9, 5, 3, 2]
    assert [row.level for row in done.levels if row.variant == "reinit"] == [1, 2, 3, 4, 5, 6]
    assert done.findings
    expected = (
        "study small: scope 'layerwise' {'rate': 0.5, 'output_rate': None, 'rates': {}} prunes "
        "nothing at level 7 and later, where 2 weights are left; a search that prunes level by "
        "level ends there"
    )
    assert watch.warnings == [expected]
    (finished,) = watch.of("CellFinished")
    assert finished.status == "done"
    assert "removes none of the 2 weights left at level 6" in finished.message
    # from the store, the same rows
    again, watch = go(tmp_path, recipe(**small))
    assert again.levels == done.levels
    assert watch.trained == []


def test_rounds_that_prune_nothing_on_purpose_go_on(tmp_path: Path) -> None:
    table = recipe(scope={"use": "layerwise", "rate": 0.0}, search={"use": "imp", "levels": 3})
    done, watch = go(tmp_path, table)
    assert [row.level for row in done.levels] == [0, 1, 2, 3]
    assert {row.density for row in done.levels} == {1.0}
    assert watch.warnings == []


def test_a_pattern_of_no_decay_that_names_nothing_is_refused(tmp_path: Path) -> None:
    optimizer = {"use": "sgd", "lr": 0.1, "weight_decay": 1e-4, "no_decay": ["fc1.*", "fc9.*"]}
    train = {"length": "40it", "batch": 20, "optimizer": optimizer}
    with pytest.raises(RecipeError) as caught:
        context(tmp_path, train=train).validate_models("cpu")
    [fault] = caught.value.faults
    assert fault.key == "train.optimizer"
    assert "no parameter is called 'fc9.*'; this network has fc1.weight" in str(fault)


def test_options_that_decide_nothing_beside_others_are_warned_of(tmp_path: Path) -> None:
    sgd = {"use": "sgd", "lr": 0.1, "no_decay": ["bias"], "dampening": 0.5}
    train = {"length": "40it", "batch": 20, "optimizer": sgd}
    checked = context(tmp_path, train=train)
    checked.validate_parts()
    assert checked.warnings == [
        "study small: no_decay of optimizer 'sgd' decides nothing, since weight_decay is 0",
        "study small: dampening of optimizer 'sgd' decides nothing, since momentum is 0",
    ]
    # a grid in which they matter somewhere, and the defaults of a resolved recipe
    grid = {"train.optimizer.weight_decay": [0.0, 1e-4], "train.optimizer.momentum": [0.0, 0.9]}
    checked = context(tmp_path, train=train, grid=grid)
    checked.validate_parts()
    assert checked.warnings == []
    checked = context(tmp_path, **context(tmp_path).recipe.resolved())
    checked.validate_parts()
    assert checked.warnings == []
