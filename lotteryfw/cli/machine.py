"""Commands about this machine: data list, data fetch, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lotteryfw.cli import completion
from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, StoreRoot

if TYPE_CHECKING:
    from lotteryfw.registry import RegisteredComponent, Registry

data_app = typer.Typer(no_args_is_help=True, help="Data sets: list them, fetch them.")
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(data: Data = None, as_json: Json = False) -> None:
    """List the data sources, and which are ready to use."""
    from lotteryfw.registry import Registry
    from lotteryfw.runner import default_data_folder

    folder = data or default_data_folder()
    # loading all data takes a while, and is the only sign that it is whole
    registry = Registry.load()
    statuses = {}
    for offer in registry.offers("data"):
        name = registry.short_name(offer)
        statuses[name] = _data_status(offer, name, folder)
    if as_json:
        sources = []
        for name, (state, text) in statuses.items():
            sources.append({"name": name, "state": state, "text": text})
        typer.echo(json.dumps({"folder": str(folder), "sources": sources}))
        return
    typer.echo(f"data folder: {folder}")
    width = max(map(len, statuses), default=0)
    for name, (_, text) in statuses.items():
        typer.echo(f"  {name:<{width}} {text}")


def _data_status(offer: RegisteredComponent, name: str, folder: Path) -> tuple[str, str]:
    """Return the state of a data source in a word, and in words."""
    from lotteryfw.api.errors import DataError

    if _required_options(offer):
        return "needs options", f"needs options: lotteryfw show {name}"
    try:
        source: Any = offer.cls()
        if not all(path.is_file() for path in source.files(folder)):
            return "not here", f"not here: lotteryfw data fetch {name}"
        # facts may be constants: only loading shows that the files are whole
        source.load(folder)
        facts = source.facts(folder)
    except DataError as error:
        return "not usable", f"not usable: {_line(error)}"
    except Exception as error:
        # a plugin's data source; the others are still worth a line
        return "broke", f"broke: {type(error).__name__}: {_line(error)}"
    shape = "×".join(map(str, facts.shape))
    sizes = f"{facts.train:,} train / {facts.validation:,} validation / {facts.test:,} test"
    return "ready", f"ready: {shape}, {facts.classes} classes, {sizes}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _required_options(offer: RegisteredComponent) -> list[str]:
    fields = offer.cls.model_fields
    return [option for option, field in fields.items() if field.is_required()]


@data_app.command("fetch")
def data_fetch(
    name: Annotated[
        str, typer.Argument(help="A data source.", autocompletion=completion.data_sources)
    ],
    data: Data = None,
) -> None:
    """Download a data set into the data folder."""
    from lotteryfw.api.errors import UsageError
    from lotteryfw.registry import Registry
    from lotteryfw.runner import default_data_folder

    folder: Path = data or default_data_folder()
    registry = Registry.load()
    required = _required_options(registry.find("data", name))
    if required:
        raise UsageError(
            f"data source '{name}': needs options ({', '.join(required)}), which only a recipe "
            f"gives, so nothing can be fetched by its name; see lotteryfw show {name}"
        )
    source: Any = registry.create("data", name)
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
        if _required_options(offer):
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
    as_json: Json = False,
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
    if as_json:
        facts: dict[str, list[str]] = {}
        heading = ""
        for label, value in rows:
            # a line without a label goes on with the one before
            heading = label or heading
            facts.setdefault(heading, []).append(value)
        typer.echo(json.dumps(facts))
        return
    for label, value in rows:
        typer.echo(f"{label:<10} {value}")
    for failure in registry.failures:
        typer.echo(f"failed     {failure}")


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    while not path.exists():
        path = path.parent
    return path
