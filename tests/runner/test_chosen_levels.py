"""Controls and analyses of chosen levels: `control_levels` and `analysis_levels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import go, recipe

from lotteryfw.api.errors import LotteryError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry

CHOSEN = {
    "controls": ["reinit", "random_mask"],
    "control_levels": [2],
    "analyses": ["stability_to_pruning"],
    "analysis_levels": "2..3",
}


def study(**changes: Any) -> dict[str, Any]:
    return recipe(search={"use": "imp", "levels": 3}, **{**CHOSEN, **changes})


def test_controls_and_analyses_are_those_of_the_levels_named(tmp_path: Path) -> None:
    done, watch = go(tmp_path, study())
    rows = [(row.level, row.variant) for row in done.levels]
    tickets = [(level, "ticket") for level in range(4)]
    assert sorted(rows) == sorted([*tickets, (2, "reinit"), (2, "random_mask")])
    analysed = {(line.level, line.variant) for line in done.findings}
    assert analysed == {(3, "ticket"), (2, "ticket"), (2, "reinit"), (2, "random_mask")}
    # what is there is what it would be beside all levels
    whole, _ = go(tmp_path, study(control_levels=[1, 2, 3], analysis_levels=[1, 2, 3]), "whole")
    assert {row.key for row in done.levels} < {row.key for row in whole.levels}
    assert [line for line in whole.findings if line in done.findings] == list(done.findings)
    assert len(watch.trained) == 6


def test_the_resolved_recipe_names_them_and_gives_the_same_run(tmp_path: Path) -> None:
    done, _ = go(tmp_path, study())
    text = (done.path / "resolved.toml").read_text()
    assert "control_levels = [2]" in text
    assert "analysis_levels = [2, 3]" in text
    _, again = go(tmp_path, done.path / "resolved.toml", "again")
    assert again.trained == []
    plain, _ = go(tmp_path, recipe(search={"use": "imp", "levels": 1}), "plain")
    assert "_levels" not in (plain.path / "resolved.toml").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_levels": [1, 9]}, r"recipe: control_levels: .*has no level 9.*0, 1, 2, 3"),
        ({"analysis_levels": "3..5"}, r"recipe: analysis_levels: .*has no level 4, 5"),
        ({"controls": []}, r"recipe: control_levels: has no effect: the study has no controls"),
        ({"analyses": []}, r"recipe: analysis_levels: has no effect: the study has no analyses"),
        ({"control_levels": "2..1"}, r"recipe: control_levels: '2\.\.1' is empty"),
        ({"control_levels": [-1]}, r"recipe: control_levels\[0\]: must be >= 0, got -1"),
        ({"control_levels": [1, 1]}, r"recipe: control_levels: 1 is listed twice"),
    ],
)
def test_levels_that_cannot_be_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LotteryError, match=message):
        go(tmp_path, study(**changes))
    assert not list((tmp_path / "store").rglob("metrics.json"))


@pytest.mark.parametrize(
    "side", [{"variant": "reinit"}, {"metric": "stability_to_pruning.l2"}], ids=str
)
def test_a_claim_about_a_level_that_is_left_out_is_refused(
    tmp_path: Path, side: dict[str, Any]
) -> None:
    claim = {
        "text": "t", "source": "s", "of": side, "density": 0.8, "expect": 0.5,
        "tolerance": 0.5, "tolerance_reason": "r",
    }  # fmt: skip
    with pytest.raises(LotteryError, match=r"claim\[0\]\.of: .*no level of density 0\.8"):
        go(tmp_path, study(claim=[claim], scope={"use": "layerwise", "rate": 0.2}))


def test_each_study_has_its_own_levels(tmp_path: Path) -> None:
    table = study(study=[{"name": "few"}, {"name": "more", "control_levels": "1..2"}])
    loaded = load_recipe(table, Registry.load(), data_folder=tmp_path)
    chosen = {cell.study: cell.control_levels for cell in loaded.cells}
    levels = {name: set(one.levels) if one else None for name, one in chosen.items()}
    assert levels == {"few": {2}, "more": {1, 2}}
