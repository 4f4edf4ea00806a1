"""Completion of arguments in a shell: recipes, profiles, kinds and components."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer


def recipes(incomplete: str) -> list[str]:
    """Return the shipped recipes, those of plugins included, and the TOML files that begin so."""
    # imported when a shell asks: loading plugins takes a second
    from lotteryfw.recipe.shipped import recipes_by_name
    from lotteryfw.registry import Registry

    names = list(recipes_by_name(Registry.load()))
    folder = Path(incomplete).parent
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        # a folder may have recipes in it
        if path.is_dir():
            names.append(f"{path}/")
        elif path.suffix == ".toml":
            names.append(str(path))
    return _beginning(names, incomplete)


def profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the profiles of the recipe that the command line names."""
    names: list[str] = []
    for table in _named_recipes(ctx):
        names += table.get("profiles", {})
    return _beginning(names, incomplete)


def studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the studies of the recipe that the command line names."""
    names: list[str] = []
    for table in _named_recipes(ctx):
        names += [str(study.get("name", "")) for study in table.get("study", [])]
    return _beginning(names, incomplete)


def _named_recipes(ctx: typer.Context) -> Iterator[dict[str, Any]]:
    """Yield the recipes that the command line names, as they are written."""
    from lotteryfw.recipe.shipped import recipe_file
    from lotteryfw.registry import Registry

    registry = Registry.load()
    given = ctx.params.get("file") or ctx.params.get("files") or ()
    for source in given if isinstance(given, list | tuple) else [given]:
        # a file that cannot be read has its message when the command runs
        try:
            yield tomllib.loads(recipe_file(Path(source), registry).read_text("utf-8"))
        except (OSError, ValueError):
            continue


def kinds(incomplete: str) -> list[str]:
    """Return the kinds of component that begin so."""
    from lotteryfw.api.kinds import kinds as all_kinds

    return _beginning([*all_kinds(), "recipes"], incomplete)


def components(incomplete: str) -> list[str]:
    """Return the installed components that begin so."""
    return _beginning(_names(None), incomplete)


def data_sources(incomplete: str) -> list[str]:
    """Return the data sources that begin so."""
    return _beginning(_names("data"), incomplete)


def _names(kind: str | None) -> list[str]:
    from lotteryfw.registry import Registry

    return [offer.name for offer in Registry.load().offers(kind)]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    # in order, and each once: kinds share names
    different = dict.fromkeys(names)
    return [name for name in different if name.startswith(incomplete)]
