"""Commands about what is installed: list, show, plugins, new, data, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, StoreRoot, Trust

FILES_SHOWN = 12
"""How many files of a component's code `show` names."""

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
        told = [
            {
                "kind": o.kind,
                "name": o.name,
                "full_name": o.full_name,
                "summary": o.cls.summary(),
                "provider": o.provider,
            }
            for o in offers
        ]
        typer.echo(json.dumps(told))
        return
    width = max(len(offer.name) for offer in offers) if offers else 0
    shown = None
    for offer in offers:
        if offer.kind != shown:
            shown = offer.kind
            typer.echo(f"\n{shown}: {kinds()[shown].summary()}")
        by = (
            "" if offer.distribution == "lotteryfw" else f"  [{offer.distribution} {offer.version}]"
        )
        typer.echo(f"  {offer.name:<{width}}  {offer.cls.summary()}{by}")
    for failure in registry.failures:
        typer.echo(f"\nnot loaded: {failure}", err=True)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A component's name, or distribution/name.")],
    trust: Trust = [],  # noqa: B006
) -> None:
    """Show a component: formula, options, source, provider, and an example for a recipe."""
    from lotteryfw.registry import Registry

    for number, offer in enumerate(Registry.load(trust).find_any(name)):
        typer.echo(("\n" if number else "") + describe(offer))


def describe(offer: Any) -> str:
    """An offer as text: what it does, its formula, options, source, provider and an example."""
    cls = offer.cls
    lines = [f"{offer.name} ({offer.kind}): {cls.summary()}", ""]
    about = (
        ("formula", cls.formula),
        ("source", cls.source),
        ("provider", offer.provider),
        ("code", code(offer)),
    )
    for label, value in about:
        if value:
            lines.append(f"{label:<9} {value}")
    fields = option_rows(cls)
    lines.append("options   " + ("" if fields else "none"))
    for option, kind, default, text in fields:
        lines.append(f"  {option} ({kind}, {default})" + (f": {text}" if text else ""))
    lines += ["example", *(f"  {line}" for line in example(offer).splitlines())]
    return "\n".join(lines)


def code(offer: Any) -> str:
    """Which code the results of an offer's component are keyed by."""
    if not offer.digest:
        return f"results are keyed by the release {offer.distribution} {offer.version}"
    shown = ", ".join(offer.files[:FILES_SHOWN])
    more = len(offer.files) - FILES_SHOWN
    return f"results are keyed by {offer.digest}, the hash of {shown}" + (
        f" and {more} more files" if more > 0 else ""
    )


def option_rows(cls: Any) -> list[tuple[str, str, str, str]]:
    """(name, type and bounds, "required" or default, help) of every option of a component class."""
    properties = cls.model_json_schema().get("properties", {})
    rows = []
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else f"default {toml_value(_default(field))}"
        rows.append(
            (name, _type(properties[name]), default, " ".join((field.description or "").split()))
        )
    return rows


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_type(part) for part in schema["anyOf"]]
        return "length" if "string like ^" in kinds[0] else " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    names = {"number": "number", "integer": "integer", "boolean": "true | false", "string": "string",
             "array": "list", "object": "table", "null": "null"}  # fmt: skip
    kind = names.get(schema.get("type", ""), "any")
    if "pattern" in schema:
        return f"string like {schema['pattern']}"
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([kind, *[" and ".join(bounds)] * bool(bounds)])


def toml_value(value: Any) -> str:
    """A value as it stands in a recipe; "null" for what TOML cannot say."""
    from lotteryfw.api.steps import Step

    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Step):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def example(offer: Any) -> str:
    """The component in a recipe, with every option that has a value."""
    from lotteryfw.recipe.schema import TRAIN_SLOTS

    lines = []
    for name, field in offer.cls.model_fields.items():
        if field.is_required():
            lines.append(f"{name} = …  # required")
        elif _default(field) is not None:
            lines.append(f"{name} = {toml_value(_default(field))}")
    if offer.kind == "augmentation":
        return f'[train]\naugment = ["{offer.name}"]'
    if offer.kind == "control":
        return f'controls = ["{offer.name}"]'
    if offer.kind == "analysis":
        return f'analyses = ["{offer.name}"]'
    table = f"train.{offer.kind}" if offer.kind in TRAIN_SLOTS else offer.kind
    return "\n".join([f"[{table}]", f'use = "{offer.name}"', *lines])


@app.command()
def plugins() -> None:
    """List the plugins that were loaded, left out, or failed, and why."""
    from lotteryfw.registry import WITHOUT, Registry

    registry = Registry.load()
    for plugin in registry.plugins:
        typer.echo(
            f"loaded    {plugin.name} ({plugin.distribution} {plugin.version}): {plugin.components} components"
        )
    for name in registry.excluded:
        typer.echo(f"left out  {name} (by ${WITHOUT})")
    for failure in registry.failures:
        typer.echo(f"failed    {failure}")
    if registry.failures:
        typer.echo(
            f"A plugin that is in the way can be left out: {WITHOUT}={registry.failures[0].plugin}"
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
        if any(field.is_required() for field in offer.cls.model_fields.values()):
            typer.echo(f"  {offer.name:<14} needs options: lotteryfw show {offer.name}")
            continue
        source: Any = offer.cls()
        try:
            source.load(folder)
            facts = source.facts(folder)
            told = (
                f"ready: {'×'.join(map(str, facts.shape))}, {facts.classes} classes, "
                f"{facts.train:,} train / {facts.validation:,} validation / {facts.test:,} test"
            )
        except DataError:
            told = f"not here: lotteryfw data fetch {offer.name}"
        typer.echo(f"  {offer.name:<14} {told}")


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
    source.load(folder)
    typer.echo(f"{name}: ready in {folder}")


def data_found(registry: Any, folder: Path) -> list[str]:
    """A line for each data set whose files are in the data folder, with its fingerprint; of those without options."""
    from lotteryfw.api.errors import LotteryError
    from lotteryfw.api.fingerprints import fingerprint_of

    lines = []
    for offer in registry.offers("data"):
        if any(field.is_required() for field in offer.cls.model_fields.values()):
            continue
        source = offer.cls()
        try:
            files = source.files(folder)
            if files and all(path.is_file() for path in files):
                name = registry.short_name(offer)
                lines.append(
                    f"{name}: {len(files)} files, fingerprint {fingerprint_of(source, folder)[:16]}"
                )
        except LotteryError as error:
            lines.append(f"{offer.name}: {error}")
        except Exception as error:
            lines.append(f"{offer.name} broke in files(): {type(error).__name__}: {error}")
    return lines


@app.command()
def doctor(
    data: Data = None,
    store: StoreRoot = None,
) -> None:
    """Tell what lotteryfw finds here: versions, device, folders, data sets, plugins."""
    import platform
    import shutil
    from importlib.metadata import version

    import torch

    from lotteryfw import engine
    from lotteryfw.registry import Registry
    from lotteryfw.runner import cores, default_data_folder
    from lotteryfw.store import Store, default_root

    registry = Registry.load()
    root, folder = store or default_root(), data or default_data_folder()
    place = next(path for path in [root, *root.parents] if path.exists())
    packages = ("lotteryfw", "torch", "torchvision", "numpy", "pydantic", "pluggy", "safetensors")
    device = engine.pick_device("auto")
    name = f"cuda ({torch.cuda.get_device_name()})" if device == "cuda" else "cpu"
    info = Store(root).info()
    rows = [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("versions", ", ".join(f"{package} {version(package)}" for package in packages)),
        ("device", f"{name}, {cores()} cores"),
        ("data", str(folder)),
        *(("", line) for line in data_found(registry, folder)),
        ("store", f"{root}: {info.objects} objects, {info.bytes / 1e6:,.0f} MB"),
        ("free disk", f"{shutil.disk_usage(place).free / 1e9:,.1f} GB"),
        ("plugins", f"{len(registry.plugins)} loaded, {len(registry.failures)} failed"),
    ]
    for label, value in rows:
        typer.echo(f"{label:<10} {value}")
    for failure in registry.failures:
        typer.echo(f"failed     {failure}")
