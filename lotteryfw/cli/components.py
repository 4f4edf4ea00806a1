"""Commands about what is installed: list, show, plugins."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lotteryfw.cli import completion
from lotteryfw.cli.app import app
from lotteryfw.cli.options import Json, Trust

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from lotteryfw.registry import RegisteredComponent

SHOWN_FILES = 12
"""Files of a component's code that `show` names."""


@app.command("list")
def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="One kind only, such as criterion; or recipes, for the shipped ones.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    trust: Trust = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """List every component there is, with its summary and who provides it; or the shipped recipes."""
    if kind == "recipes":
        _list_recipes(as_json)
        return
    from lotteryfw.api.errors import UsageError, nearest
    from lotteryfw.api.kinds import kinds
    from lotteryfw.registry import Registry

    if kind is not None and kind not in kinds():
        raise UsageError(f"there is no kind '{kind}' ({nearest(kind, [*kinds(), 'recipes'])})")
    registry = Registry.load(trust)
    offers = registry.offers(kind)
    if as_json:
        typer.echo(json.dumps([_row(offer) for offer in offers]))
        return
    width = max((len(offer.name) for offer in offers), default=0)
    header = None
    for offer in offers:
        if offer.kind != header:
            header = offer.kind
            typer.echo(f"\n{header}: {kinds()[header].summary()}")
        line = f"  {offer.name:<{width}}  {offer.cls.summary()}"
        if offer.distribution != "lotteryfw":
            line += f"  [{offer.distribution} {offer.version}]"
        typer.echo(line)
    # on stderr, so that the list can be piped
    for failure in registry.failures:
        typer.echo(f"\nnot loaded: {failure}", err=True)


def _list_recipes(as_json: bool) -> None:
    """Print the names and titles of the shipped recipes, those of plugins included."""
    from lotteryfw.api.errors import RecipeError
    from lotteryfw.recipe.read import recipe_table
    from lotteryfw.recipe.shipped import shipped_recipes
    from lotteryfw.registry import Registry

    registry = Registry.load()
    rows = []
    faulty = []
    for name, path in {**shipped_recipes(), **registry.recipes()}.items():
        try:
            table = recipe_table(path)
        except RecipeError as error:
            faulty.append(f"{name}: {error}")
            continue
        # a recipe that extends another may leave its title to that
        profiles = list(table.get("profiles", {}))
        rows.append({"name": name, "title": table.get("title", ""), "profiles": profiles})
    # on stderr, so that the list can be piped
    for problem in (*faulty, *registry.failures):
        typer.echo(f"not listed: {problem}", err=True)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        names = ", ".join(row["profiles"])
        line = f"  {row['name']:<{width}}  {row['title']}"
        typer.echo(f"{line}  (profiles: {names})" if names else line)


def _row(offer: RegisteredComponent) -> dict[str, str]:
    return {
        "kind": offer.kind,
        "name": offer.name,
        "full_name": offer.full_name,
        "summary": offer.cls.summary(),
        "provider": offer.provider,
    }


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A component's name, or distribution/name.",
            autocompletion=completion.components,
        ),
    ],
    trust: Trust = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Show a component: formula, options, source, provider, and an example for a recipe."""
    from lotteryfw.registry import Registry

    # kinds may share a name
    offers = Registry.load(trust).find_any(name)
    if as_json:
        typer.echo(json.dumps([_details(offer) for offer in offers]))
        return
    texts = [describe(offer) for offer in offers]
    typer.echo("\n\n".join(texts))


def _details(offer: RegisteredComponent) -> dict[str, Any]:
    """Return all that `show` prints of a component as JSON-able data."""
    options = []
    for name, type_name, default, text in option_rows(offer.cls):
        options.append({"name": name, "type": type_name, "default": default, "help": text})
    facts = {"formula": offer.cls.formula, "source": offer.cls.source, "code": code(offer)}
    return {**_row(offer), **facts, "options": options, "example": example(offer)}


def describe(offer: RegisteredComponent) -> str:
    """Return a component as text: its formula, options, source, provider and an example."""
    cls = offer.cls
    lines = [f"{offer.name} ({offer.kind}): {cls.summary()}", ""]
    facts = {
        "formula": cls.formula,
        "source": cls.source,
        "provider": offer.provider,
        "code": code(offer),
    }
    for label, value in facts.items():
        if value:
            lines.append(f"{label:<9} {value}")
    options = option_rows(cls)
    lines.append("options   " if options else "options   none")
    for name, kind, default, text in options:
        lines.append(f"  {name} ({kind}, {default})" + (f": {text}" if text else ""))
    lines.append("example")
    lines.append(textwrap.indent(example(offer), "  "))
    return "\n".join(lines)


def code(offer: RegisteredComponent) -> str:
    """Return a sentence about the code that the results of a component are keyed by."""
    if not offer.digest:
        return f"results are keyed by the release {offer.distribution} {offer.version}"
    files = ", ".join(offer.files[:SHOWN_FILES])
    text = f"results are keyed by {offer.digest}, the hash of {files}"
    more = len(offer.files) - SHOWN_FILES
    return f"{text} and {more} more files" if more > 0 else text


def option_rows(cls: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return (name, type and bounds, "required" or default, help) of every option of a class."""
    from lotteryfw.recipe.json_schema import schema_of

    try:
        schema = schema_of(cls)
    except Exception:
        # a plugin may have an option whose type has no schema
        schema = {}
    properties = schema.get("properties", {})
    rows = []
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else f"default {toml_value(_default(field))}"
        # a docstring has line breaks, a row has none
        text = " ".join((field.description or "").split())
        option = properties.get(name, {})
        # an option that is a component refers to the schema of its kind
        reference = option.get("$ref", "").rpartition("/")[2]
        option = schema.get("$defs", {}).get(reference, option)
        rows.append((name, _type(option), default, text))
    return rows


def _default(field: FieldInfo) -> Any:
    """Return the default of an option as plain JSON data."""
    from lotteryfw.api.component import plain_option

    return plain_option(field.get_default(call_default_factory=True))


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON Schema's type in TOML's words, with its bounds."""
    from lotteryfw.api.component import KIND_OF_OPTION

    if KIND_OF_OPTION in schema:
        return f"component: {schema[KIND_OF_OPTION]}"
    if "anyOf" in schema:
        types = [_type(part) for part in schema["anyOf"]]
        # a length is a number or a string of a long pattern
        return "length" if "string like ^" in types[0] else " or ".join(dict.fromkeys(types))
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "pattern" in schema:
        return f"string like {schema['pattern']}"
    name = schema.get("type", "any")
    name = _TOML_TYPES.get(name, name)
    bounds = []
    for key, sign in _SIGNS.items():
        if key in schema:
            bounds.append(f"{sign} {schema[key]:g}")
    return f"{name} {' and '.join(bounds)}" if bounds else name


_TOML_TYPES = {"boolean": "true | false", "array": "list", "object": "table"}
"""TOML's words for types, where JSON Schema has others."""
_SIGNS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def toml_value(value: Any) -> str:
    """Return plain JSON data as it is written in a recipe; "null" for None, which TOML lacks."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        pairs = [f"{key} = {toml_value(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def example(offer: RegisteredComponent) -> str:
    """Return the component in a recipe, with every option that has a value."""
    from lotteryfw.recipe.layered_table import dotted
    from lotteryfw.recipe.schema import SLOTS

    # these kinds are in lists, mostly by their names alone
    if offer.kind == "augmentation":
        return f'[train]\naugment = ["{offer.name}"]'
    if offer.kind == "metric":
        return f'[evaluate]\nmetrics = ["{offer.name}"]'
    if offer.kind == "control":
        return f'controls = ["{offer.name}"]'
    if offer.kind == "analysis":
        return f'analyses = ["{offer.name}"]'
    # the first key of a kind: the others are `scores` and `train.mask_optimizer`
    keys = next(keys for keys, kind in SLOTS.items() if kind == offer.kind)
    lines = [f"[{dotted(keys)}]", f'use = "{offer.name}"']
    for name, field in offer.cls.model_fields.items():
        if field.is_required():
            lines.append(f"{name} = …  # required")
        elif _default(field) is not None:
            lines.append(f"{name} = {toml_value(_default(field))}")
    return "\n".join(lines)


@app.command()
def plugins(as_json: Json = False) -> None:
    """List the plugins that were loaded, excluded, or failed, and why."""
    from lotteryfw.api.words import counted
    from lotteryfw.registry import WITHOUT, Registry

    registry = Registry.load()
    if as_json:
        listed = {
            "loaded": [vars(plugin) for plugin in registry.plugins],
            "excluded": registry.excluded,
            "failed": [vars(failure) for failure in registry.failures],
            "warnings": registry.warnings,
        }
        typer.echo(json.dumps(listed))
        return
    for plugin in registry.plugins:
        distribution = f"{plugin.distribution} {plugin.version}"
        components = counted(plugin.components, "component")
        typer.echo(f"loaded    {plugin.name} ({distribution}): {components}")
    for name in registry.excluded:
        typer.echo(f"excluded  {name} (by ${WITHOUT})")
    for failure in registry.failures:
        typer.echo(f"failed    {failure}")
    for warning in registry.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if registry.failures:
        typer.echo(
            f"To exclude a plugin that is in the way: {WITHOUT}={registry.failures[0].plugin}"
        )
