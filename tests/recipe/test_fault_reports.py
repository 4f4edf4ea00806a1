"""All faults of a recipe come at once, with the file that each was written in; none is a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import BaseModel, ValidationError
from support.recipes import (
    BASE,
    CLAIM,
    CYCLES,
    IEP,
    NOWHERE,
    TRAIN,
    changed,
    faults,
    learned,
    train,
)

from lotteryfw.api.errors import RecipeError
from lotteryfw.api.steps import Step
from lotteryfw.recipe import load_recipe
from lotteryfw.recipe.pydantic_errors import problems
from lotteryfw.registry import Registry
from lotteryfw.runner.idle_options import idle_options


def test_what_a_grid_gives_may_be_left_out_of_what_it_varies() -> None:
    milestones = {"train.schedule": ["multistep"], "train.schedule.milestones": [["100it"]]}
    assert faults(train(schedule="multistep") | {"grid": milestones}) == []
    assert faults(changed(data=None, grid={"data": [BASE["data"]]})) == []


def test_what_goes_with_cycles_and_densities() -> None:
    right: list[dict[str, Any]] = [
        {"search": IEP, "rewind": {"use": "to_step", "step": "39it"}},
        {"search": IEP | {"cycles": 200}} | CYCLES,
        {"search": IEP | {"densities": [0.5, 0.1]}} | CYCLES,
        {"search": "supermask", "parametrization": "bernoulli"},
        {
            "search": "edge_popup",
            "claim": [CLAIM | {"metric": "dying_edges.turnover"}],
            "analyses": ["dying_edges"],
        },
    ]
    assert [faults(learned(**each)) for each in right] == [[]] * len(right)


THIRD_PARTY = """
from lotteryfw import MaskSearch, Parametrization, hookimpl

class Own(Parametrization):
    use = "own"
    def initial(self, layer, rng): ...
    def masks(self, net): ...
    def weight(self, edges, mask): ...

class Finds(MaskSearch):
    use = "finds"
    def search(self, lab): ...

class Halves(Finds):
    use = "halves"
    def lengths(self, clock):
        return {"x": 1}["y"]

@hookimpl
def register_components():
    return [Own, Finds, Halves]
"""


def test_a_recipe_loads_whatever_components_say_of_densities(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(THIRD_PARTY)
    registry = Registry.load([tmp_path / "own.py"])
    pairs = [
        ("supermask", "own"),
        ("edge_popup", "own"),
        ("finds", "top_k"),
        ("finds", "bernoulli"),
        ("finds", "own"),
    ]
    for search, parametrization in pairs:
        load_recipe(
            changed(search=search, parametrization=parametrization), registry, data_folder=NOWHERE
        )
    with pytest.raises(
        RecipeError,
        match=r"search: the search 'halves' of own\.py==.* broke in `lengths`: KeyError: 'y'",
    ):
        load_recipe(changed(search="halves", parametrization="own"), registry, data_folder=NOWHERE)


def test_all_faults_come_at_once_and_each_once() -> None:
    recipe = changed(
        sedes=[1], data="nothing", train=TRAIN | {"batch": 0}, scope={"rate": -1}, controls=["x"],
        grid={"search.levels": [1, 2, 3], "criterion": ["random", "randm"]},
    )  # fmt: skip
    found = faults(recipe)
    keys = [fault.split(": ")[1] for fault in found]
    assert sorted(keys) == [
        "controls[0]",
        "data",
        "grid.criterion[1]",
        "scope.rate",
        "sedes",
        "train.batch",
    ]


def test_values_of_the_wrong_type_are_told_beside_those_out_of_bounds() -> None:
    hidden = [-1, True, 2.5, "3", 8]
    found = faults(changed(model={"use": "mlp", "hidden": hidden}))
    assert sorted(found) == [
        "recipe: model.hidden[0]: must be >= 1, got -1",
        "recipe: model.hidden[1]: must be an integer, got true",
        "recipe: model.hidden[2]: must be an integer, got 2.5",
        "recipe: model.hidden[3]: must be an integer, got '3'",
    ]


def test_a_target_may_equal_some_cells_of_a_grid() -> None:
    target = [{"name": "slow", "train": {"batch": 20}}]
    assert faults(changed(target=target, grid={"train.batch": [10, 20]})) == []


def test_a_syntax_error_gives_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('name = "x"\nseeds = [1,,2]\n')
    (found,) = faults(file)
    assert found.startswith(f"{file}: is not TOML: ")
    assert "line 2, column 12" in found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "quickstart.toml").write_bytes(b'name = "\xff"')
    assert faults(tmp_path / "quikstart.toml") == [
        f"{tmp_path / 'quikstart.toml'}: there is no such recipe (did you mean 'quickstart.toml'?)"
    ]
    assert faults(tmp_path / "quickstart.toml") == [
        f"{tmp_path / 'quickstart.toml'}: is not UTF-8 text (byte 8)"
    ]
    assert faults(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]
    (tmp_path / "child.toml").write_text('extends = "parent.toml"')
    assert faults(tmp_path / "child.toml")[0].startswith(
        f"{tmp_path / 'child.toml'}: extends: there is no recipe {tmp_path / 'parent.toml'}"
    )
    for parent in ("", "."):
        (tmp_path / "child.toml").write_text(f'extends = "{parent}"\n' + tomli_w.dumps(BASE))
        assert faults(tmp_path / "child.toml") == [
            f"{tmp_path / 'child.toml'}: extends: must be the name of a recipe file, got '{parent}' "
            f"({tmp_path} is a folder)"
        ]
    (tmp_path / "child.toml").write_text("extends = 3\n" + tomli_w.dumps(BASE))
    assert faults(tmp_path / "child.toml") == [
        f"{tmp_path / 'child.toml'}: extends: must be the name of a recipe file, got 3"
    ]


def test_a_circle_of_recipes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "./a.toml"')
    assert faults(tmp_path / "a.toml")[0].endswith(
        "recipes extend each other in a circle: a.toml → b.toml → a.toml"
    )


def test_a_fault_names_the_file_that_its_key_came_from(tmp_path: Path) -> None:
    base, child = tmp_path / "base.toml", tmp_path / "child.toml"
    base.write_text(
        tomli_w.dumps(changed(scope={"use": "layerwise", "rate": -1}, search={"levels": -1}))
    )
    child.write_text(
        'extends = "base.toml"\n[search]\nlevels = -2\n[profiles.quick.train]\nbatch = 0\n'
    )
    assert faults(child, profile="quick", sets=["seeds=[-1]", "rewind.step=3"]) == [
        "--set: seeds[0]: must be >= 0, got -1",
        f"{child}: search.levels: must be >= 0, got -2",
        f"{base}: scope.rate: must be >= 0, got -1",
        "--set: rewind.step: the rewind 'to_init' has no option 'step'",
        f"{child}: profiles.quick.train.batch: must be >= 1, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.length", "--set: train.length: is not KEY=VALUE (such as train.length=500it)"),
        ("a b=1", "--set: a b=1: is not KEY=VALUE (such as train.length=500it)"),
        ("extends=x.toml", "--set: extends: can only be set in a file"),
        ("trian.length=3it", "--set: trian: unknown key (did you mean 'train'?)"),
        ("name.x=3", "--set: name: must be a string, got {'x': 3}"),
        ("start.x=3", "--set: start: must be a string, got {'x': 3}"),
        ("studies.x.seeds=[1]", "--set: studies.x: there is no such study"),
        ("train.optimizer.lr=nan", "--set: train.optimizer.lr: must be a finite number, got nan"),
        (
            "name=2020-01-01",
            "--set: name: must be a string, a number, a boolean, a list or a table, got a date",
        ),
    ],
)
def test_faults_of_set(text: str, expected: str) -> None:
    assert faults(BASE, sets=[text])[0].startswith(expected)


def test_faults_of_profiles() -> None:
    assert faults(BASE, profile="quick") == [
        "recipe: profiles.quick: there is no such profile (this recipe has no profiles)"
    ]
    recipe = changed(
        profiles={
            "quick": {"extends": "x", "name": "y", "studies": {"a": {"seeds": [1]}}, "sedes": [1]}
        }
    )
    assert faults(recipe) == []  # a profile that is not asked for changes nothing
    assert faults(recipe, profile="quik")[0].endswith(
        "there is no such profile (did you mean 'quick'?)"
    )
    assert [fault.partition(" (")[0] for fault in faults(recipe, profile="quick")] == [
        "recipe: profiles.quick.extends: a profile cannot change this",
        "recipe: profiles.quick.name: a profile cannot change this",
        "recipe: profiles.quick.studies.a: there is no such study",
        "recipe: profiles.quick.sedes: unknown key",
    ]


def test_an_axis_of_a_profile_in_two_spellings_is_a_fault() -> None:
    twice = {"scope.rate": [0.2], "scope": {"rate": [0.3]}}
    recipe = changed(
        profiles={"quick": {"grid": twice, "studies": {"a": {"grid": twice}}}},
        study=[{"name": "a"}],
    )
    assert faults(recipe) == [
        "recipe: profiles.quick.grid.scope.rate: is there twice (write the axis once)",
        "recipe: profiles.quick.studies.a.grid.scope.rate: is there twice (write the axis once)",
    ]
    sets = ['grid={"scope.rate"=[0.2],scope={rate=[0.3]}}']
    assert faults(BASE, sets=sets) == [
        "--set: grid.scope.rate: is there twice (write the axis once)"
    ]


def test_a_recipe_runs_no_code_unless_it_is_trusted(tmp_path: Path) -> None:
    plugin, recipe = tmp_path / "mine.py", tmp_path / "r.toml"
    recipe.write_text(tomli_w.dumps(changed(plugins=["mine.py"], criterion="mine")))
    assert f"{recipe}: plugins[0]: there is no plugin file {plugin}" in faults(recipe)
    plugin.write_text(
        "from lotteryfw import MaskCriterion, hookimpl\nclass Mine(MaskCriterion):\n    use = 'mine'\n"
        "    def score(self, layer): ...\n@hookimpl\ndef register_components():\n    return [Mine]"
    )
    remedy = f"read it, then run again with --trust {plugin}"
    assert any(
        fault.startswith(f"{recipe}: plugins[0]: ") and remedy in fault for fault in faults(recipe)
    )
    trusting = load_recipe(recipe, Registry.load([plugin]), data_folder=NOWHERE)
    assert type(trusting.cells[0].criterion).__name__ == "Mine"


BREAKING = """
from lotteryfw import DataSource, MaskCriterion, RewindPolicy, hookimpl
from pydantic import model_validator

class Breaks(MaskCriterion):
    use = "breaks"

    @model_validator(mode="after")
    def check(self):
        raise TypeError("oh")

    def score(self, layer): ...

class NoFacts(DataSource):
    use = "no_facts"

    def facts(self, folder):
        return {}["x"]

    def load(self, folder): ...

class NoPoint(RewindPolicy):
    use = "no_point"

    def point(self, clock):
        raise RuntimeError("oh")

@hookimpl
def register_components():
    return [Breaks, NoFacts, NoPoint]
"""


def test_a_component_that_breaks_while_it_is_checked_is_a_fault_not_a_traceback(
    tmp_path: Path,
) -> None:
    file = tmp_path / "breaking.py"
    file.write_text(BREAKING)
    recipe = changed(criterion="breaks", data="no_facts")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, Registry.load([file]), data_folder=NOWHERE)
    named, also_named = [str(fault) for fault in caught.value.faults]
    owner = r"of breaking\.py==local\+[0-9a-f]{8} broke in"
    assert re.fullmatch(
        rf"recipe: criterion: the criterion 'breaks' {owner} checking its options: TypeError: oh",
        named,
    )
    assert re.fullmatch(
        rf"recipe: data: the data 'no_facts' {owner} `facts`: KeyError: 'x'", also_named
    )
    with pytest.raises(
        RecipeError,
        match=rf"^recipe: rewind: the rewind 'no_point' {owner} `point`: RuntimeError: oh$",
    ):
        load_recipe(changed(rewind="no_point"), Registry.load([file]), data_folder=NOWHERE)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ({"facts": "None"}, "`facts`: TypeError: returned None, not a DatasetInfo"),
        (
            {"facts": 'DatasetInfo((4,), 10, "a", 10, 10)'},
            "`facts`: TypeError: returned DatasetInfo(shape=(4,), classes=10, train='a', ",
        ),
        ({"point": "None"}, "`point`: TypeError: returned None, not a RewindPoint"),
        (
            {"point": "RewindPoint(0.5, 0)"},
            "`point`: TypeError: returned RewindPoint(weights=0.5, ",
        ),
        (
            {"lengths": "[1.5]"},
            "`lengths`: TypeError: returned [1.5], not a sequence of whole numb",
        ),
        ({"lengths": "[]"}, "`lengths`: TypeError: returned [], not a sequence of whole numbers"),
    ],
)
def test_what_a_component_returns_while_it_is_checked_is_of_its_type(
    tmp_path: Path, returned: dict[str, str], expected: str
) -> None:
    file = tmp_path / "returns.py"
    values = {"facts": "DatasetInfo((4,), 10, 600, 10, 10)", "point": "RewindPoint(0, 0)"}
    text = RETURNING
    for name, value in ({"lengths": "[clock.total]"} | values | returned).items():
        text = text.replace(f"<{name}>", value)
    file.write_text(text)
    recipe = changed(data="mine", model="mlp", search="mine_too", rewind="mine_as_well")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, Registry.load([file]), data_folder=NOWHERE)
    (fault,) = map(str, caught.value.faults)
    assert f"of returns.py==local+{fault.partition('local+')[2][:8]} broke in {expected}" in fault


RETURNING = """
from lotteryfw import DataSource, DatasetInfo, RewindPoint, RewindPolicy, SearchAlgorithm, hookimpl

class Data(DataSource):
    use = "mine"
    def facts(self, folder):
        return <facts>
    def load(self, folder): ...

class Policy(RewindPolicy):
    use = "mine_as_well"
    def point(self, clock):
        return <point>

class Search(SearchAlgorithm):
    use = "mine_too"
    def lengths(self, clock):
        return <lengths>
    def search(self, lab): ...

@hookimpl
def register_components():
    return [Data, Policy, Search]
"""

ENUMS = """
from enum import Enum
from lotteryfw import MaskCriterion, hookimpl

class Side(Enum):
    LEFT = "left"
    RIGHT = "right"

class Mine(MaskCriterion):
    "Takes a side."
    use = "mine"
    side: Side = Side.LEFT
    sides: frozenset[Side] = frozenset()
    weights: dict[Side, float] = {}
    powers: dict[int, float] = {}
    def score(self, layer):
        return layer.final.abs()

@hookimpl
def register_components():
    return [Mine]
"""


def test_options_that_are_enums_or_have_numbers_as_keys_are_written_as_they_are_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(ENUMS)
    registry = Registry.load([file])
    options = {"sides": ["right", "left"], "weights": {"left": 0.5}, "powers": {"3": 1.0}}
    criteria = ["mine", {"use": "mine", "side": "right"}, {"use": "mine", **options}]
    recipe = changed(grid={"criterion": criteria}, seeds=[0])
    loaded = load_recipe(recipe, registry, data_folder=NOWHERE)
    again = load_recipe(loaded.resolved(), registry, data_folder=NOWHERE)
    assert again.cells == loaded.cells
    first, second, third = [dict(cell.axis_values["criterion"]) for cell in loaded.cells]
    assert (first, second) == ({"use": "mine"}, {"use": "mine", "side": "right"})
    assert third == {"use": "mine", **options, "sides": ["left", "right"]}
    wrong = changed(criterion={"use": "mine", "powers": {"3": "x", "y": 1}})
    with pytest.raises(RecipeError) as caught:
        load_recipe(wrong, registry, data_folder=NOWHERE)
    assert all("criterion.powers" in str(fault) for fault in caught.value.faults)
    wrong = changed(criterion={"use": "mine", "powers": {"3": True}})
    with pytest.raises(RecipeError, match=r"criterion\.powers\.3: must be a number, got true"):
        load_recipe(wrong, registry, data_folder=NOWHERE)


def test_a_component_that_breaks_in_idle_options_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = ENUMS.replace(
        "    def score", "    def idle_options(self):\n        return {}['x']\n    def score"
    )
    file.write_text(text)
    recipe = changed(criterion={"use": "mine"}, seeds=[0, 1])
    loaded = load_recipe(recipe, Registry.load([file]), data_folder=NOWHERE)
    assert idle_options(loaded.cells) == [
        "study small: criterion 'mine' broke in idle_options(): KeyError: 'x'"
    ]
    file.write_text(text.replace("{}['x']", "None"))
    loaded = load_recipe(recipe, Registry.load([file]), data_folder=NOWHERE)
    assert idle_options(loaded.cells) == [
        "study small: criterion 'mine' broke in idle_options(): TypeError: returned None, not a dict"
    ]


def test_facts_that_are_not_to_be_had_are_a_fault_of_the_data(tmp_path: Path) -> None:
    (found,) = faults(changed(data={"use": "image_folder", "path": str(tmp_path / "nothing")}))
    assert found.startswith("recipe: data: ")


class Options(BaseModel):
    many: list[Step] | float = 1.0


def test_the_members_of_a_union_are_one_message() -> None:
    given = {"many": {"a": 1}}
    with pytest.raises(ValidationError) as caught:
        Options.model_validate(given)
    (found,) = problems(caught.value, given, Options.model_fields)
    assert (found.keys, found.text) == (("many",), "must be a list or a number, got {'a': 1}")
