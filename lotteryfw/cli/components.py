"""Commands about what is installed: list, show, plugins, new, data, doctor."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, StoreRoot, Trust

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from lotteryfw.registry import RegisteredComponent, Registry

SHOWN_FILES = 12
"""Files of a component's code that `show` names."""

data_app = typer.Typer(no_args_is_help=True, help="Data sets: list them, fetch them.")
app.add_typer(data_app, name="data")


@app.command("list")
def list_components(
    kind: Annotated[str | None, typer.Argument(help="One kind only, such as criterion.")] = None,
    trust: Trust = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """List every component there is, with its summary and who provides it."""
    from lotteryfw.api.errors import UsageError, nearest
    from lotteryfw.api.kinds import kinds
    from lotteryfw.registry import Registry

    if kind is not None and kind not in kinds():
        raise UsageError(f"there is no kind '{kind}' ({nearest(kind, kinds())})")
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
    name: Annotated[str, typer.Argument(help="A component's name, or distribution/name.")],
    trust: Trust = [],  # noqa: B006
) -> None:
    """Show a component: formula, options, source, provider, and an example for a recipe."""
    from lotteryfw.registry import Registry

    # kinds may share a name
    texts = [describe(offer) for offer in Registry.load(trust).find_any(name)]
    typer.echo("\n\n".join(texts))


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
    schema: dict[str, Any] = cls.model_json_schema()
    properties = schema.get("properties", {})
    rows = []
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else f"default {toml_value(_default(field))}"
        # a docstring has line breaks, a row has none
        text = " ".join((field.description or "").split())
        option = properties[name]
        # an option that is a component refers to the schema of its kind
        reference = option.get("$ref", "").rpartition("/")[2]
        option = schema.get("$defs", {}).get(reference, option)
        rows.append((name, _type(option), default, text))
    return rows


def _default(field: FieldInfo) -> Any:
    from lotteryfw.api.component import Component

    default = field.get_default(call_default_factory=True)
    if isinstance(default, Component):
        return {"use": default.use, **default.options()}
    return default


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
    """Return a value as it is written in a recipe; "null" for None, which TOML does not have."""
    from lotteryfw.api.steps import Step

    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Step):
        return f'"{value}"'
    if isinstance(value, dict):
        pairs = [f"{key} = {toml_value(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def example(offer: RegisteredComponent) -> str:
    """Return the component in a recipe, with every option that has a value."""
    from lotteryfw.recipe.schema import TRAIN_SLOTS

    # these kinds are in lists, mostly by their names alone
    if offer.kind == "augmentation":
        return f'[train]\naugment = ["{offer.name}"]'
    if offer.kind == "metric":
        return f'[evaluate]\nmetrics = ["{offer.name}"]'
    if offer.kind == "control":
        return f'controls = ["{offer.name}"]'
    if offer.kind == "analysis":
        return f'analyses = ["{offer.name}"]'
    table = f"train.{offer.kind}" if offer.kind in TRAIN_SLOTS else offer.kind
    lines = [f"[{table}]", f'use = "{offer.name}"']
    for name, field in offer.cls.model_fields.items():
        if field.is_required():
            lines.append(f"{name} = …  # required")
        elif _default(field) is not None:
            lines.append(f"{name} = {toml_value(_default(field))}")
    return "\n".join(lines)


@app.command()
def plugins() -> None:
    """List the plugins that were loaded, excluded, or failed, and why."""
    from lotteryfw.registry import WITHOUT, Registry

    registry = Registry.load()
    for plugin in registry.plugins:
        distribution = f"{plugin.distribution} {plugin.version}"
        typer.echo(f"loaded    {plugin.name} ({distribution}): {plugin.components} components")
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


@data_app.command("list")
def data_list(data: Data = None) -> None:
    """List the data sources, and which are ready to use."""
    from lotteryfw.api.errors import DataError
    from lotteryfw.registry import Registry
    from lotteryfw.runner import default_data_folder

    folder = data or default_data_folder()
    typer.echo(f"data folder: {folder}")
    for offer in Registry.load().offers("data"):
        if _has_required_options(offer):
            typer.echo(f"  {offer.name:<14} needs options: lotteryfw show {offer.name}")
            continue
        source: Any = offer.cls()
        try:
            # facts may be constants: only loading shows that the files are here
            source.load(folder)
            facts = source.facts(folder)
            status = (
                f"ready: {'×'.join(map(str, facts.shape))}, {facts.classes} classes, "
                f"{facts.train:,} train / {facts.validation:,} validation / {facts.test:,} test"
            )
        except DataError:
            status = f"not here: lotteryfw data fetch {offer.name}"
        typer.echo(f"  {offer.name:<14} {status}")


def _has_required_options(offer: RegisteredComponent) -> bool:
    return any(field.is_required() for field in offer.cls.model_fields.values())


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A data source.")], data: Data = None
) -> None:
    """Download a data set into the data folder."""
    from lotteryfw.registry import Registry
    from lotteryfw.runner import default_data_folder

    folder: Path = data or default_data_folder()
    source: Any = Registry.load().create("data", name)
    source.fetch(folder)
    # what was fetched may be damaged
    source.load(folder)
    typer.echo(f"{name}: ready in {folder}")


def available_data(registry: Registry, folder: Path) -> list[str]:
    """Return a line for each data set whose files are in the data folder, with its fingerprint.

    Data sources that need options are not among them.
    """
    from lotteryfw.api.errors import LotteryError
    from lotteryfw.api.fingerprints import fingerprint_of

    lines = []
    for offer in registry.offers("data"):
        if _has_required_options(offer):
            continue
        source: Any = offer.cls()
        try:
            files = source.files(folder)
            if files and all(path.is_file() for path in files):
                name = registry.short_name(offer)
                fingerprint = fingerprint_of(source, folder)[:16]
                lines.append(f"{name}: {len(files)} files, fingerprint {fingerprint}")
        except LotteryError as error:
            lines.append(f"{offer.name}: {error}")
        except Exception as error:
            # a plugin's data source; the others are still worth a line
            lines.append(f"{offer.name} broke in files(): {type(error).__name__}: {error}")
    return lines


@app.command()
def doctor(
    data: Data = None,
    store: StoreRoot = None,
) -> None:
    """Show what this machine has: versions, device, folders, data sets, plugins."""
    import platform
    import shutil
    from importlib.metadata import version

    import torch

    from lotteryfw import engine
    from lotteryfw.registry import Registry
    from lotteryfw.runner import cores, default_data_folder
    from lotteryfw.store import Store, default_root

    registry = Registry.load()
    root = store or default_root()
    folder = data or default_data_folder()
    packages = ("lotteryfw", "torch", "torchvision", "numpy", "pydantic", "pluggy", "safetensors")
    # of several GPUs, a run takes the current one
    device = engine.pick_device("auto")
    name = f"cuda ({torch.cuda.get_device_name()})" if device == "cuda" else "cpu"
    info = Store(root).info()
    rows = [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("versions", ", ".join(f"{package} {version(package)}" for package in packages)),
        ("device", f"{name}, {cores()} cores"),
        ("bf16", engine.describe_bf16(device)),
        ("data", str(folder)),
        *(("", line) for line in available_data(registry, folder)),
        ("store", f"{root}: {info.objects} objects, {info.bytes / 1e6:,.0f} MB"),
        ("free disk", f"{shutil.disk_usage(_existing(root)).free / 1e9:,.1f} GB"),
        ("plugins", f"{len(registry.plugins)} loaded, {len(registry.failures)} failed"),
    ]
    for label, value in rows:
        typer.echo(f"{label:<10} {value}")
    for failure in registry.failures:
        typer.echo(f"failed     {failure}")


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    while not path.exists():
        path = path.parent
    return path
