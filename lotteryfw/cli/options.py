"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lotteryfw.cli import completion

_RECIPE = "a file (TOML), the name of a shipped one such as quickstart, or - for standard input"
Recipe = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help=f"A recipe: {_RECIPE}.", autocompletion=completion.recipes
    ),
]
Recipes = Annotated[
    list[Path],
    typer.Argument(
        metavar="RECIPE…",
        help=f"Recipes, run one after the other: {_RECIPE}.",
        autocompletion=completion.recipes,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        help="A profile of the recipe, such as quick.", autocompletion=completion.profiles
    ),
]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, e.g. train.length=500it. Repeatable."
    ),
]
Studies = Annotated[
    list[str],
    typer.Option(
        "--study",
        metavar="NAME",
        help="Take this study of the recipe alone. Repeatable.",
        autocompletion=completion.studies,
    ),
]
Trust = Annotated[
    list[Path],
    typer.Option(
        metavar="FILE",
        help="A local plugin file to run code from, or a module such as package.module. Repeatable.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the data sets. [$LOTTERYFW_DATA, or the user's cache]"),
]
StoreRoot = Annotated[
    Path | None,
    typer.Option(
        "--store", help="The store's folder. [$LOTTERYFW_STORE, or the user's data folder]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line, for scripts.")]
