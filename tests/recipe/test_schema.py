"""The JSON Schema that editors read: it knows every component, and says yes to what is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.recipes import BASE, RICH, changed, registry

from lotteryfw.api.steps import Step
from lotteryfw.recipe import json_schema
from lotteryfw.registry import Registry


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema(registry())


def branch(schema: dict[str, Any], kind: str, use: str) -> dict[str, Any]:
    (found,) = (
        each
        for each in schema["$defs"][kind]["oneOf"]
        if each.get("properties", {}).get("use", {}).get("const") == use
    )
    return dict(found)


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
        default = registry().default(offer.kind)
        assert ("use" in found["required"]) is (offer != default)


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
