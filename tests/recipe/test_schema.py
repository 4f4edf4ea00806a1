"""The JSON Schema that editors read: it knows every component, and says yes to what is right."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.recipes import BASE, RICH, changed, registry

from lotteryfw.api.steps import Step
from lotteryfw.recipe import json_schema
from lotteryfw.registry import Registry


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema(registry())


def branch(schema: dict[str, Any], kind: str, use: str) -> dict[str, Any]:
    """Return the part of a kind's schema that is about one component."""
    for part in schema["$defs"][kind]["oneOf"]:
        names = part.get("properties", {}).get("use")
        if names and use in names["enum"]:
            return dict(part)
    raise KeyError(use)


def test_it_is_json_and_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    text = json.dumps(schema, allow_nan=False)
    for name in re.findall(r'"\$ref": "#/\$defs/([^"]+)"', text):
        assert name in schema["$defs"]


def test_every_component_has_its_branch_with_its_options(schema: dict[str, Any]) -> None:
    for offer in registry().offers():
        found = branch(schema, offer.kind, offer.name)
        assert set(found["properties"]) == {"use", *offer.cls.model_fields}
        assert not found["additionalProperties"]
        assert {offer.name, offer.full_name} <= set(schema["$defs"][offer.kind]["oneOf"][0]["enum"])
        # options without `use` are for the component that another layer of the recipe names
        assert found["required"] == ["use"]


def test_options_carry_help_bounds_and_defaults_as_recipes_write_them(
    schema: dict[str, Any],
) -> None:
    crop = branch(schema, "augmentation", "crop")["properties"]["padding"]
    assert crop["minimum"] == 1
    for offer in registry().offers():
        for name, about in offer.cls.model_fields.items():
            found = branch(schema, offer.kind, offer.name)["properties"][name]
            assert found.get("description"), f"{offer.full_name}.{name} has no help"
            if isinstance(about.default, Step):
                assert found["default"] == str(about.default)


def test_a_length_by_default_is_text_and_odd_options_spoil_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from lotteryfw import MaskCriterion, Step, hookimpl\nclass Mine(MaskCriterion):\n    use = 'mine'\n"
        "    after: Step = Step.parse('2ep')\n    at: tuple[Step, ...] = (Step.parse('1.5%'),)\n"
        "    def score(self, layer):\n        return layer.final\n"
        "class Odd(Mine):\n    use = 'odd'\n    what: complex = 1j\n"
        "@hookimpl\ndef register_components():\n    return [Mine, Odd]"
    )
    schema = json_schema(Registry.load([file]))
    mine = branch(schema, "criterion", "mine")["properties"]
    assert (mine["after"]["default"], mine["at"]["default"]) == ("2ep", ["1.5%"])
    assert branch(schema, "criterion", "odd")


def test_the_fixed_parts_are_there(schema: dict[str, Any]) -> None:
    top = schema["properties"]
    assert schema["required"] == ["name"]
    assert {
        "extends",
        "plugins",
        "study",
        "studies",
        "profiles",
        "claim",
        "grid",
        "seeds",
        "controls",
    } <= set(top)
    assert top["controls"]["items"] == {"$ref": "#/$defs/control"}
    assert top["train"]["properties"]["optimizer"] == {"$ref": "#/$defs/optimizer"}
    assert top["study"]["items"]["required"] == ["name"]
    assert "name" not in top["profiles"]["additionalProperties"]["properties"]


def test_a_validator_agrees(schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    for right in (BASE, RICH):
        assert [
            error.message for error in validator.iter_errors(json.loads(json.dumps(right)))
        ] == []
    for wrong in (
        changed(sedes=[1]),
        changed(data="sinthetic"),
        changed(search={"use": "imp", "level": 1}),
    ):
        assert not validator.is_valid(wrong)


def validator_of(schema: dict[str, Any]) -> Any:
    return pytest.importorskip("jsonschema").Draft202012Validator(schema)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_shipped_recipe_is_accepted_and_no_mutated_one(
    schema: dict[str, Any], path: Path
) -> None:
    validator = validator_of(schema)
    recipe = tomllib.loads(path.read_text())
    assert [error.message for error in validator.iter_errors(recipe)] == []
    accepted = []
    mutants = list(mutated(recipe))
    for description, mutant in mutants:
        if validator.is_valid(mutant):
            accepted.append(description)
    assert mutants
    assert accepted == []


def test_the_mutants_include_names_inside_grids_and_profiles() -> None:
    recipe = tomllib.loads((ROOT / "recipes" / "deconstruct.toml").read_text())
    descriptions = [description for description, _ in mutated(recipe)]
    assert "study.0.grid.criterion.0: 'large_final' misspelt" in descriptions
    assert "study.2.grid.mask1.1.use: 'reinit' misspelt" in descriptions
    assert "profiles.quick.studies.supermask_untrained.search.levels: key misspelt" in descriptions


FREE = {"about", "title", "name", "text", "source", "claim", "extends", "study", "profiles"}
"""Keys below which, or at which, a text or a name of one's own stands."""


def mutated(recipe: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield copies of a recipe with one component's name, or one key, misspelt."""
    for keys, value in leaves(recipe, ()):
        slot = [key for key in keys if isinstance(key, str) and key != "use"]
        path = ".".join(map(str, keys))
        if slot[0] == "claim":
            continue
        if isinstance(value, str) and (slot[-1] in KINDS or slot[-1] == "train.augment"):
            yield f"{path}: {value!r} misspelt", replaced(recipe, keys, value + "x")
        last = keys[-1]
        # the keys of `rates` are patterns of layers, and those of `studies` are names
        is_free = last in FREE or slot[-2:-1] in (["studies"], ["rates"])
        if isinstance(last, str) and not is_free:
            yield f"{path}: key misspelt", renamed(recipe, keys)


KINDS = {
    "data", "model", "initialiser", "search", "criterion", "scope", "mask1", "mask0", "rewind",
    "parametrization", "scores", "objective", "optimizer", "schedule", "augment", "controls",
    "analyses", "metrics", "mask_optimizer",
}  # fmt: skip
"""The keys of recipes at which a component's name stands."""


def leaves(value: Any, keys: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*keys, key))
    else:
        yield keys, value


def replaced(recipe: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(recipe)
    container: Any = changed
    for key in keys[:-1]:
        container = container[key]
    container[keys[-1]] = value
    return changed


def renamed(recipe: dict[str, Any], keys: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(recipe)
    container: Any = changed
    for key in keys[:-1]:
        container = container[key]
    container[f"{keys[-1]}x"] = container.pop(keys[-1])
    return changed
