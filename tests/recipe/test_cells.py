"""What a recipe that is right becomes: how many cells, what is in each, and the same again from what is resolved."""

from __future__ import annotations

import tomllib
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recipes import BASE, NOWHERE, RICH, changed, faults, load

from lotteryfw.api.steps import Clock, Step
from lotteryfw.recipe import load_recipe, to_toml
from lotteryfw.registry import Registry


def test_everything_of_a_cell() -> None:
    cell = load(RICH).cells[0]
    assert (
        cell.id
        == "one/criterion=large_final/scope=layerwise(rate=0.1)/train.augment=none/train.length=2ep/seed=0"
    )
    assert cell.axes == {
        "criterion": "large_final", "scope": "layerwise(rate=0.1)", "train.augment": "none", "train.length": "2ep",
    }  # fmt: skip
    kinds = (
        "search",
        "criterion",
        "scope",
        "mask1",
        "mask0",
        "rewind",
        "model",
        "initialiser",
        "data",
    )
    assert [getattr(cell, kind).kind for kind in kinds] == list(kinds)
    assert (cell.optimizer.use, cell.schedule.use, cell.augment) == ("adam", "cosine", ())
    assert (cell.seed, cell.batch) == (0, 20)
    assert [control.use for control in cell.controls] == ["reinit"]
    assert cell.clock == Clock(total=60, steps_per_epoch=30)  # 600 examples in batches of 20
    assert cell.evaluate_every == 1  # 100 points in 60 steps
    last = [cell for cell in load(RICH).cells if cell.study == "one"][-1]
    assert (last.axes["scope"], last.clock.total) == ("global", 100)
    assert [each.use for each in last.augment] == ["flip", "crop"]
    labels = {cell.axes["scope"] for cell in load(RICH).cells if cell.study == "one"}
    assert labels == {"layerwise(rate=0.1)", "layerwise(rates={fc*=0.3})", "global"}


def test_the_last_partial_batch_is_no_step_and_evaluation_reads_points_or_steps() -> None:
    (cell,) = [cell for cell in load(RICH).cells if cell.study == "two"]
    examples = cell.data.facts(NOWHERE).train
    assert examples % 20 != 0
    assert cell.clock == Clock(total=200, steps_per_epoch=examples // 20)
    assert cell.evaluate_every == examples // 20
    assert load(changed(evaluate={"points": 30})).cells[0].evaluate_every == 6  # floor(200 / 30)


def test_claims_come_with_the_labels_that_cells_have() -> None:
    first, second = load(RICH).claims
    assert first.higher == {"criterion": "large_final", "scope": "layerwise(rate=0.1)"}
    assert first.lower == {"criterion": "random", "variant": "reinit", "train.length": "2ep"}
    assert first.needs_length == Step.parse("100ep")
    assert (second.study, second.metric, second.density, second.of) == (
        "two",
        "test_accuracy",
        [0, 1],
        {},
    )
    alone = load(
        changed(
            claim=[
                {
                    "text": "t",
                    "source": "s",
                    "of": {"variant": "ticket"},
                    "expect": 1,
                    "tolerance": 0.1,
                    "tolerance_reason": "r",
                }
            ]
        )
    )
    assert alone.claims[0].study == "small"


def test_a_profile_may_drop_what_a_claim_is_about() -> None:
    claim = {
        "text": "t",
        "source": "s",
        "higher": {"criterion": "large_final"},
        "lower": {"criterion": "random"},
    }
    recipe = changed(
        claim=[claim],
        grid={"criterion": ["large_final", "random"]},
        profiles={"quick": {"grid": {"criterion": ["random"]}}},
    )
    assert load(recipe, "quick").claims[0].higher == {"criterion": "large_final"}


@pytest.mark.parametrize("profile", [None, "quick"])
def test_what_is_resolved_loads_to_the_same_cells(profile: str | None) -> None:
    first = load(
        RICH | {"profiles": {"quick": {"seeds": [9], "studies": {"one": {"train": {"batch": 7}}}}}},
        profile,
    )
    second = load(tomllib.loads(to_toml(first.resolved())))
    assert second.cells == first.cells
    assert second.claims == first.claims
    assert second.resolved() == first.resolved()
    assert second.digest == first.digest
    assert (second.name, second.title, second.about) == ("small", "A title", "Long.\nText.")


LONG = {"use": "layerwise", "rates": {f"layer_{place}": 0.25 for place in range(20)}}
VALUES: dict[str, list[Any]] = {
    "scope": [
        LONG,
        {"use": "global", "exclude": ["fc3*"]},
    ],  # a writer of TOML may well make tables of these
    "search.levels": [1, 2],
    "train.schedule": [{"use": "multistep", "milestones": ["1ep", "2ep"]}],
    "criterion": ["random"],
    "train.augment": [[], ["flip"]],
}


@given(st.permutations(sorted(VALUES)))
@settings(deadline=None, max_examples=20)
def test_what_is_resolved_keeps_the_order_of_axes_whatever_their_values_are(
    paths: list[str],
) -> None:
    recipe = changed(seeds=[0], title='a "q" \\ é\nb', grid={path: VALUES[path] for path in paths})
    first = load(recipe)
    second = load(tomllib.loads(to_toml(first.resolved())))
    assert [cell.id for cell in second.cells] == [cell.id for cell in first.cells]
    assert list(second.cells[0].axes) == paths
    assert (second.cells, second.digest, second.title) == (first.cells, first.digest, first.title)
    assert (
        tomllib.loads(to_toml(recipe)) == recipe
    )  # what a run folder keeps of a recipe given as a table


POPUP = {"seeds": [0], "parametrization": "top_k"}
IEP = {"use": "iterative_edge_popup", "cycles": 4}


def test_a_search_in_cycles_needs_a_rewind_policy_and_others_have_the_default() -> None:
    def rewinds(**changes: Any) -> list[str]:
        first = load(changed(**POPUP, **changes))
        second = load(tomllib.loads(to_toml(first.resolved())))
        assert (second.cells, second.digest) == (first.cells, first.digest)
        return [cell.rewind.use for cell in first.cells]

    both = {"search": ["imp", IEP]}
    assert rewinds(search="edge_popup") == ["to_init"]
    assert rewinds(grid=both, rewind="fine_tune") == ["fine_tune", "fine_tune"]
    policies = ["to_init", "fine_tune"]
    assert rewinds(search=IEP, grid={"rewind": policies}) == policies

    (fault,) = faults(changed(**POPUP, grid=both))
    assert fault.startswith("recipe: rewind: is required: the search 'iterative_edge_popup'")
    assert "such as rewind = " in fault
    assert '"learning_rate"' in fault


def test_what_is_resolved_leaves_nothing_to_defaults() -> None:
    one, two, three = load(RICH).resolved()["study"]
    assert one["search"] == {"use": "imp", **load(RICH).cells[0].search.options()}
    assert one["train"]["augment"] == []  # what its first combination has; the grid says the rest
    assert two["train"]["augment"][1] == {"use": "crop", "padding": 1}
    assert one["grid"]["scope"][0]["rates"] == {}
    assert two["evaluate"] == {"every": "1ep"}
    assert one["evaluate"] == {"points": 100}
    assert three["grid"]["rewind"] == [{"use": "to_step"}]
    load(RICH).resolved()["study"].clear()  # a copy: whoever changes it changes nothing
    assert len(load(RICH).resolved()["study"]) == 3


def test_the_digest_follows_what_is_asked_not_how_it_is_written() -> None:
    assert load(changed(model={"use": "lenet_300_100"})).digest == load(BASE).digest
    assert load(BASE, sets=["train.batch=21"]).digest != load(BASE).digest


AXES = {"search.levels": range(1, 6), "train.batch": range(10, 15), "evaluate.points": range(1, 6)}


@given(
    st.dictionaries(st.sampled_from(sorted(AXES)), st.integers(1, 5), max_size=3),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
@settings(deadline=None, max_examples=30)
def test_a_grid_multiplies_and_no_two_cells_are_one(
    sizes: dict[str, int], seeds: list[int]
) -> None:
    recipe = load(
        changed(seeds=seeds, grid={path: list(AXES[path][:size]) for path, size in sizes.items()})
    )
    assert len(recipe.cells) == prod(sizes.values()) * len(seeds)
    assert len({cell.id for cell in recipe.cells}) == len(recipe.cells)
    for cell in recipe.cells:
        got = {"search.levels": cell.search.options()["levels"], "train.batch": cell.batch}
        assert all(
            cell.axes[path] == str(value) for path, value in got.items() if path in cell.axes
        )


def test_an_option_is_set_inside_whatever_component_its_axis_chose() -> None:
    for scope in ({"use": "layerwise", "rates": {"fc*": 0.5}}, "layerwise", None):
        grid = {"scope.rate": [0.1, 0.3], **({"scope": [scope]} if scope else {})}
        cells = load(changed(seeds=[0], grid=grid)).cells
        assert [cell.scope.options()["rate"] for cell in cells] == [0.1, 0.3]
        assert {bool(cell.scope.options()["rates"]) for cell in cells} == {isinstance(scope, dict)}


def test_a_grid_may_name_the_bases_component_where_no_option_is_lost() -> None:
    recipes = [
        # the option's default, an option that another axis gives, and `use` written out
        changed(scope={"rate": 0.2}, grid={"scope": ["layerwise", "global"]}),
        changed(
            scope={"rate": 0.35}, grid={"scope": ["layerwise", "global"], "scope.rate": [0.1, 0.2]}
        ),
        changed(scope={"rate": 0.35}, grid={"scope": [{"use": "layerwise"}, "global"]}),
        changed(scope="layerwise", grid={"scope": [{"rate": 0.1}, "global"]}),
        changed(scope={"use": "global", "rate": 0.3}, grid={"scope": ["layerwise"]}),
        changed(
            rewind={"use": "to_step", "step": "1ep"},
            grid={"rewind": ["to_step"], "rewind.step": ["0it", "10%"]},
        ),
    ]
    for recipe in recipes:
        loaded = load(recipe)
        assert load(loaded.resolved()).cells == loaded.cells


def test_an_ambiguous_name_is_resolved_in_full(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from lotteryfw import MaskCriterion, hookimpl\nclass Mine(MaskCriterion):\n    use = 'random'\n"
        "    def score(self, layer): ...\n@hookimpl\ndef register_components():\n    return [Mine]"
    )
    registry = Registry.load([file])
    recipe = load_recipe(changed(criterion="mine.py/random"), registry, data_folder=NOWHERE)
    assert recipe.resolved()["study"][0]["criterion"]["use"] == "mine.py/random"
    assert load_recipe(recipe.resolved(), registry, data_folder=NOWHERE).cells == recipe.cells


def test_ten_thousand_cells() -> None:
    recipe = changed(
        seeds=[0],
        grid={"search.levels": list(range(1, 2501)), "criterion": ["random", "large_final"]},
    )
    recipe["grid"]["train.batch"] = [10, 20]
    assert len(load(recipe).cells) == 10_000
