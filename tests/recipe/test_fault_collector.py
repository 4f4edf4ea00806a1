"""The collector of a table's faults, and paths into tables."""

from __future__ import annotations

from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.paths import value_at, with_value, without
from lotteryfw.recipe.pydantic_errors import Problem


def test_problems_get_the_path_of_the_table_they_were_found_in() -> None:
    faults = FaultCollector()
    train = faults.at("train")
    train.at("augment", 1).add("is no augmentation", "did you mean 'flip'?")
    answer: tuple[int | None, list[Problem]] = (None, [Problem(("batch",), "must be >= 1")])
    assert train.value_of(answer) is None
    assert faults.value_of((3, [])) == 3
    assert faults.problems == [
        Problem(("train", "augment", 1), "is no augmentation", "did you mean 'flip'?"),
        Problem(("train", "batch"), "must be >= 1"),
    ]


def test_a_value_is_put_at_a_path_without_changing_the_table() -> None:
    table = {"rewind": "to_step", "train": {"batch": 4}}
    changed = with_value(with_value(table, ("rewind", "step"), 3), ("train", "batch"), 8)
    assert changed == {"rewind": {"use": "to_step", "step": 3}, "train": {"batch": 8}}
    assert table == {"rewind": "to_step", "train": {"batch": 4}}
    assert value_at(changed, ("rewind", "step")) == 3
    assert value_at(changed, ("rewind", "step", "more")) is None


def test_keys_and_axes_are_left_out() -> None:
    table = {"seeds": [0], "model": 1, "grid": {"model": [1], "scope": [2]}}
    assert without(table, [("model",), ("grid", "scope")]) == {
        "seeds": [0],
        "grid": {"model": [1]},
    }
