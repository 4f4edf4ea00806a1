"""Tables laid over tables: extended file, file, profile, `--set`; the later wins, and a component stays one thing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from support.recipes import BASE, changed, faults, load

from lotteryfw.recipe.layered_table import LayeredTable, dotted
from lotteryfw.recipe.schema import ALTERNATIVES

FROM = {"scope": {"use": "layerwise", "rate": 0.3}, "criterion": "random", "search": {"levels": 7}}


def laid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    tree = (
        LayeredTable({"search": "imp"}, alternatives=ALTERNATIVES)
        .over(base, lambda keys: ("a", keys))
        .over(over, lambda keys: ("b", keys))
    )
    return dict(tree.table)


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"use": "x", "a": 1}, {"b": 2}, {"use": "x", "a": 1, "b": 2}),
        ({"use": "x", "a": 1}, {"use": "x", "b": 2}, {"use": "x", "a": 1, "b": 2}),
        ({"use": "x", "a": 1}, {"use": "y", "b": 2}, {"use": "y", "b": 2}),
        ({"use": "x", "a": 1}, "y", "y"),
        ({"use": "x", "a": 1}, "x", {"use": "x", "a": 1}),
        ("x", {"a": 1}, {"use": "x", "a": 1}),
        ("x", {"use": "x", "a": 1}, {"use": "x", "a": 1}),
        ("x", {"use": "y", "a": 1}, {"use": "y", "a": 1}),
        (
            {"a": 1},
            {"use": "imp", "b": 2},
            {"a": 1, "use": "imp", "b": 2},
        ),  # imp is what a search is by default
        ({"a": 1}, "imp", {"a": 1}),
        ({"a": 1}, {"use": "y", "b": 2}, {"use": "y", "b": 2}),
        ([1, 2], [3], [3]),
    ],
)
def test_a_component_merges_with_its_like_and_gives_way_to_another(
    base: Any, over: Any, merged: Any
) -> None:
    assert laid({"search": base}, {"search": over}) == {"search": merged}


def test_of_two_ways_to_say_one_thing_the_later_wins() -> None:
    assert laid({"evaluate": {"points": 3}}, {"evaluate": {"every": "1ep"}}) == {
        "evaluate": {"every": "1ep"}
    }
    assert (
        load(changed(evaluate={"points": 2}), sets=["evaluate.every=7it"]).cells[0].evaluate_every
        == 7
    )


KEYS = st.sampled_from("abc")
TABLES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(KEYS, TABLES, max_size=3), st.dictionaries(KEYS, TABLES, max_size=3))
def test_every_value_knows_who_said_it_last(base: dict[str, Any], over: dict[str, Any]) -> None:
    tree = (
        LayeredTable({}).over(base, lambda keys: ("a", keys)).over(over, lambda keys: ("b", keys))
    )

    def layers(table: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if not isinstance(table, dict):
            return {path: table}
        return {
            keys: each
            for key, inner in table.items()
            for keys, each in layers(inner, (*path, key)).items()
        }

    said = {"a": layers(base), "b": layers(over)}
    for keys, value in layers(tree.table).items():
        where, shown = tree.locate(keys)
        assert shown == keys
        assert said[where][keys] == value
    assert layers(over).items() <= layers(tree.table).items()


def test_paths_are_written_as_people_write_them() -> None:
    assert dotted(("grid", "train.batch", 2, "x")) == "grid.train.batch[2].x"


def test_file_over_extended_file_profile_over_file_set_over_all(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.toml").write_text(tomli_w.dumps(BASE | FROM))
    child = tmp_path / "child.toml"
    child.write_text(
        'extends = "sub/base.toml"\nname = "child"\ncriterion = "large_final"\n'
        "[scope]\nrate = 0.4\n[train]\nbatch = 30\n"
        '[profiles.quick]\nseeds = [5]\n[profiles.quick.train]\nlength = "100it"\n[profiles.quick.search]\nlevels = 2\n'
    )
    cell = load(child).cells[0]
    assert (cell.study, cell.seed, cell.batch, cell.clock.total) == ("child", 0, 30, 200)
    assert cell.scope.options()["rate"] == 0.4
    assert cell.criterion.use == "large_final"
    assert cell.search.options() == {"levels": 7}
    recipe = load(
        child,
        "quick",
        ["train.length=50it", "search.levels = 1", "criterion=random", "train.optimizer.lr=1e-4"],
    )
    (cell,) = recipe.cells
    assert (cell.seed, cell.batch, cell.clock.total) == (5, 30, 50)
    assert (cell.search.options(), cell.criterion.use) == ({"levels": 1}, "random")
    assert cell.optimizer.options()["lr"] == 1e-4
    assert (recipe.path, recipe.profile, recipe.profiles) == (child, "quick", ("quick",))
    assert recipe.source_text == child.read_text()


def test_studies_change_the_base_and_profiles_and_sets_change_studies_by_name() -> None:
    recipe = changed(
        grid={"criterion": ["random", "large_final"]},
        study=[
            {"name": "a"},
            {
                "name": "b",
                "seeds": [7],
                "controls": ["reinit"],
                "train": {"batch": 10},
                "grid": {"search.levels": [1, 2, 3]},
            },
        ],
        profiles={
            "quick": {
                "train": {"length": "10it"},
                "studies": {"b": {"grid": {"search.levels": [1]}}},
            }
        },
    )
    cells = load(recipe).cells
    assert [cell.id for cell in cells] == [
        "a/criterion=random/seed=0", "a/criterion=random/seed=1",
        "a/criterion=large_final/seed=0", "a/criterion=large_final/seed=1",
        "b/search.levels=1/seed=7", "b/search.levels=2/seed=7", "b/search.levels=3/seed=7",
    ]  # fmt: skip
    assert [cell.batch for cell in cells[3:5]] == [20, 10]
    assert [cell.variants for cell in cells[3:5]] == [("ticket",), ("ticket", "reinit")]
    quick = load(recipe, "quick").cells
    assert [cell.id for cell in quick if cell.study == "b"] == ["b/search.levels=1/seed=7"]
    assert {cell.clock.total for cell in quick} == {10}
    few = load(recipe, sets=["studies.a.seeds=[3]", "studies.b.train.batch=5"]).cells
    assert [cell.seed for cell in few if cell.study == "a"] == [3, 3]
    assert {cell.batch for cell in few if cell.study == "b"} == {5}


ONE_SHOT = {"use": "one_shot", "levels": 3}


def with_study(study: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return changed(**changes, study=[{"name": "x", **study}])


@pytest.mark.parametrize(
    ("change", "search"),
    [
        ("studies.x.search=imp", ("imp", 24)),
        ('studies.x.search={use="imp"}', ("imp", 24)),
        ('studies.x.search={use="imp",levels=2}', ("imp", 2)),
        ("studies.x.search=one_shot", ("one_shot", 9)),
        ('studies.x.search={use="one_shot"}', ("one_shot", 9)),
        ("studies.x.search.levels=5", ("one_shot", 5)),
    ],
)
def test_a_change_of_a_studys_component_is_held_against_that_of_the_base(
    change: str, search: tuple[str, int]
) -> None:
    recipe = with_study({"search": {"levels": 9}}, search=ONE_SHOT)
    key, _, value = change.partition("=")
    table = tomllib.loads(f"{key} = {value if value[0] in '{0123456789' else repr(value)}")
    recipe["profiles"] = {"same": table}
    for cells in (load(recipe, sets=[change]).cells, load(recipe, "same").cells):
        assert (cells[0].search.use, cells[0].search.options()["levels"]) == search


def test_a_bare_name_of_the_bases_component_keeps_a_studys_options() -> None:
    recipe = with_study({"scope": {"rate": 0.5}}, scope={"use": "global", "rate": 0.3})
    cell = load(recipe, sets=["studies.x.scope=global"]).cells[0]
    assert (cell.scope.use, cell.scope.options()["rate"]) == ("global", 0.5)
    cell = load(recipe, sets=["studies.x.scope=layerwise"]).cells[0]
    assert (cell.scope.use, cell.scope.options()["rate"]) == ("layerwise", 0.2)


@pytest.mark.parametrize(
    ("base", "search"),
    [
        (ONE_SHOT, ("imp", 24)),
        ({"use": "imp", "levels": 3}, ("imp", 7)),
        (None, ("imp", 7)),
    ],
)
def test_a_profile_over_that_of_the_extended_recipe_decides_by_the_base(
    tmp_path: Path, base: dict[str, Any] | None, search: tuple[str, int]
) -> None:
    parent, child = tmp_path / "parent.toml", tmp_path / "child.toml"
    quick = {"q": {"search": {"levels": 7}, "train": {"batch": 10}}}
    parent.write_text(tomli_w.dumps(changed(search=base, profiles=quick)))
    child.write_text('extends = "parent.toml"\n[profiles.q]\nsearch = "imp"\ntrain.batch = 0\n')
    assert faults(child, "q") == [f"{child}: profiles.q.train.batch: must be >= 1, got 0"]
    child.write_text('extends = "parent.toml"\n[profiles.q]\nsearch = "imp"\n')
    cell = load(child, "q").cells[0]
    assert (cell.search.use, cell.search.options()["levels"], cell.batch) == (*search, 10)


def test_a_list_of_studies_takes_the_place_of_the_extended_recipes(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent.toml", tmp_path / "child.toml"
    parent.write_text(tomli_w.dumps(with_study({"seeds": [7], "search": {"levels": 9}})))
    child.write_text('extends = "parent.toml"\n[studies.x]\nseeds = [8]\n')
    (cell,) = load(child).cells
    assert (cell.seed, cell.search.options()["levels"]) == (8, 9)
    child.write_text('extends = "parent.toml"\n[[study]]\nname = "x"\nseeds = [8]\n')
    (cell,) = load(child).cells
    assert (cell.seed, cell.search.options()["levels"]) == (8, 24)


def test_a_grid_is_one_thing_however_it_is_written(tmp_path: Path) -> None:
    base, child = tmp_path / "base.toml", tmp_path / "child.toml"
    base.write_text(tomli_w.dumps(BASE) + '\n[grid]\n"train.optimizer.lr" = [1e-3, 1e-4]\n')
    child.write_text(
        'extends = "base.toml"\n[grid]\ntrain.optimizer.lr = [1e-2]\ntrain.batch = [5, 6]\n'
    )
    labels = [dict(cell.axes) for cell in load(child, sets=["seeds=[0]"]).cells]
    assert labels == [{"train.optimizer.lr": "0.01", "train.batch": batch} for batch in ("5", "6")]
    sets = ["seeds=[0]", 'grid."train.optimizer.lr"=[1, 2, 3]', "grid.train.batch=[7]"]
    assert len(load(child, sets=sets).cells) == 3


def test_a_start_file_that_is_set_is_resolved_for_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"as it is")
    monkeypatch.chdir(tmp_path)
    made = load(BASE, sets=["start=x.safetensors"])
    resolved = made.resolved()
    assert resolved["study"][0]["start"] == str(tmp_path / "x.safetensors")
    file = tmp_path / "elsewhere" / "resolved.toml"
    file.parent.mkdir()
    file.write_text(tomli_w.dumps(resolved))
    monkeypatch.chdir(file.parent)
    assert load(file).digest == made.digest


def test_a_set_that_is_no_toml_is_text() -> None:
    assert load(BASE, sets=['title=a "quoted" one \\ of mine']).title == 'a "quoted" one \\ of mine'
    assert load(BASE, sets=['title="as toml"']).title == "as toml"
    assert faults(BASE, sets=["name=true"]) == ["--set: name: must be a string, got true"]
