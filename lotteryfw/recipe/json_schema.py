"""The recipe language as a JSON Schema, with which editors complete and check recipes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from lotteryfw.api.component import KIND_OF_OPTION, plain_option
from lotteryfw.api.kinds import kinds
from lotteryfw.recipe.claims import Claim
from lotteryfw.recipe.layered_table import dotted
from lotteryfw.recipe.schema import (
    SLOTS,
    STUDY_SLOTS,
    TABLE_SLOTS,
    TRAIN_SLOTS,
    Engine,
    Evaluate,
    RandomnessTable,
    RecipeFile,
    StudyTable,
    Train,
)
from lotteryfw.recipe.targets import TargetTable
from lotteryfw.registry import RegisteredComponent, Registry

Schema = dict[str, Any]


def json_schema(registry: Registry) -> Schema:
    """Return the JSON Schema (2020-12) of recipes that use the components of a registry."""
    definitions: Schema = {}
    # every kind, since a component of any kind may be an option of another
    slots = {}
    for kind in kinds():
        slots[kind] = _slot(kind, registry, definitions)
    train = schema_of(Train)["properties"]
    for kind in TRAIN_SLOTS:
        train[kind] = {"$ref": f"#/$defs/{kind}"}
    train["mask_optimizer"] = {"$ref": "#/$defs/optimizer"}
    train["mask_update"] = {"$ref": "#/$defs/mask_update"}
    train["augment"]["items"] = {"$ref": "#/$defs/augmentation"}
    evaluate = schema_of(Evaluate)
    evaluate["properties"]["metrics"]["items"] = {"$ref": "#/$defs/metric"}
    definitions |= slots
    # an axis may be nested tables as well as one dotted path
    nested = {"type": "object", "additionalProperties": {"$ref": "#/$defs/axis"}}
    definitions["axis"] = {"anyOf": [{"type": "array", "minItems": 1}, nested]}
    definitions["grid"] = _grid()
    body = schema_of(StudyTable)["properties"]
    for kind in (*TABLE_SLOTS, "parametrization"):
        body[kind] = {"$ref": f"#/$defs/{kind}"}
    body["scores"] = {"$ref": "#/$defs/initialiser"}
    body["controls"]["items"] = {"$ref": "#/$defs/control"}
    body["analyses"]["items"] = {"$ref": "#/$defs/analysis"}
    target = schema_of(TargetTable)
    target["properties"] |= {"data": {"$ref": "#/$defs/data"}, "train": _table(train)}
    body["target"]["items"] = target
    body |= {
        "train": _table(train),
        "evaluate": evaluate,
        "engine": schema_of(Engine),
        "randomness": _with_lists(schema_of(RandomnessTable)),
        "grid": {"$ref": "#/$defs/grid"},
    }
    # a profile changes a study's keys and the texts, but neither the name nor the files
    top_only = {}
    for key, schema in schema_of(RecipeFile)["properties"].items():
        if key not in body:
            top_only[key] = schema
    changes = {**body, "title": top_only["title"], "about": top_only["about"]}
    by_name = {"type": "object", "additionalProperties": _table(body)}
    claim = schema_of(Claim)
    top = {
        **top_only,
        **body,
        "study": {
            "type": "array",
            "items": _table({**body, "name": top_only["name"]}, required=["name"]),
        },
        "studies": by_name,
        "profiles": {
            "type": "object",
            "additionalProperties": _table(
                {**changes, "studies": by_name, "claim": {"type": "array", "items": claim}}
            ),
        },
        "claim": {"type": "array", "items": claim},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lotteryfw recipe",
        **_table(top, required=["name"]),
        "$defs": definitions,
    }


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """Encode lengths as recipes write them; pydantic would take the dataclass apart."""
        return plain_option(dft)


def schema_of(model: type[BaseModel], references: str = "#/$defs/{model}") -> Schema:
    """Return the JSON Schema of a component's options, or of a table of a recipe."""
    return model.model_json_schema(schema_generator=_Generator, ref_template=references)


def _table(properties: Schema, required: list[str] | None = None) -> Schema:
    table = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**table, "required": required} if required else table


def _with_lists(table: Schema) -> Schema:
    """Return the schema of a table whose every value may be a list: an axis of the grid."""
    properties = {}
    for name, schema in table["properties"].items():
        values = {"type": "array", "minItems": 1, "items": schema}
        properties[name] = {**schema, "anyOf": [*schema.get("anyOf", [schema]), values]}
    return {**table, "properties": properties}


def _slot(kind: str, registry: Registry, definitions: Schema) -> Schema:
    """Return the schema of a component's entry: a name, a table with `use`, or options alone.

    Options alone are for the component that another layer of the recipe names: an extended file, the
    base of a study or a profile, another axis of the grid, or the kind's default.
    """
    # options of one name in several components may be of several types
    names: dict[str, None] = {}
    tables = []
    options: dict[str, list[Schema]] = {}
    for offer in registry.offers(kind):
        # an ambiguous name is its own short name: each stands in the list once
        names |= dict.fromkeys((registry.short_name(offer), offer.full_name))
        properties, is_open = _options(offer, definitions)
        tables.append(_component(offer, registry, properties, is_open))
        for name, schema in properties.items():
            options.setdefault(name, []).append(schema)

    alone = {name: {"anyOf": schemas} for name, schemas in options.items()}
    return {"oneOf": [{"enum": list(names)}, *tables, _table({**alone, "use": False})]}


def _options(offer: RegisteredComponent, definitions: Schema) -> tuple[Schema, bool]:
    """Return the schemas of a component's options, and True where it may have others."""
    prefix = f"{offer.kind}.{offer.distribution}.{offer.name}"
    try:
        schema = schema_of(offer.cls, f"#/$defs/{prefix}.{{model}}")
    except Exception:
        # a plugin may have an option whose type has no schema
        return {}, True
    for name, nested in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = _with_components(nested)
    properties: Schema = _with_components(schema.get("properties", {}))
    return properties, bool(schema.get("additionalProperties", False))


def _component(
    offer: RegisteredComponent, registry: Registry, properties: Schema, is_open: bool
) -> Schema:
    """Return the schema of a table that names this component.

    No option is required in it, since another layer of the recipe may give it.
    """
    names = list(dict.fromkeys((registry.short_name(offer), offer.full_name)))
    use = {"enum": names, "description": offer.cls.summary()}
    return {
        "type": "object",
        "title": offer.name,
        "description": offer.cls.formula or offer.cls.summary(),
        "properties": {"use": use, **properties},
        "required": ["use"],
        "additionalProperties": is_open,
    }


def _grid() -> Schema:
    """Return the schema of a grid: dotted paths, or nested tables, with lists of values.

    The values at the path of a component are its entries, so that a misspelt name shows.
    """
    properties: Schema = {}
    nested: dict[str, Schema] = {}
    for keys, kind in SLOTS.items():
        axis = {"type": "array", "minItems": 1, "items": {"$ref": f"#/$defs/{kind}"}}
        if len(keys) == 1:
            # [grid.search] has the axes of the search's options
            options = {"type": "object", "additionalProperties": {"$ref": "#/$defs/axis"}}
            properties[str(keys[0])] = {"anyOf": [axis, options]}
        else:
            properties[dotted(keys)] = axis
            nested.setdefault(str(keys[0]), {})[str(keys[1])] = {
                "anyOf": [axis, {"type": "object"}]
            }
    augment = {"type": "array", "items": {"$ref": "#/$defs/augmentation"}}
    properties["train.augment"] = {"type": "array", "minItems": 1, "items": augment}
    for table in ("evaluate", "engine", "randomness"):
        nested[table] = {}
    for table, axes in nested.items():
        properties[table] = {
            "type": "object",
            "properties": axes,
            "additionalProperties": {"$ref": "#/$defs/axis"},
        }
    tables = "|".join((*STUDY_SLOTS, "train", "evaluate", "engine", "randomness"))
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {rf"^({tables})\.": {"$ref": "#/$defs/axis"}},
        "additionalProperties": False,
    }


def _with_components(schema: Any) -> Any:
    """Return a schema in which options that are components refer to what is offered of their kind.

    They may be nested in lists and tables.
    """
    if isinstance(schema, list):
        return [_with_components(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if KIND_OF_OPTION in schema:
        # text beside a reference, such as the option's description, stays
        rest = dict(schema)
        return {"$ref": f"#/$defs/{rest.pop(KIND_OF_OPTION)}", **rest}
    return {key: _with_components(value) for key, value in schema.items()}
