"""The recipes that lotteryfw and plugins ship, which commands find by their names."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from lotteryfw.api.errors import nearest
from lotteryfw.registry import Registry

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")
"""In a wheel the recipes lie in the package; in a checkout, beside it."""


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the shipped recipes by their names, in order."""
    for folder in _FOLDERS:
        # a folder called "recipes" beside an installed package may be anybody's
        if folder.parent == _PACKAGE or (_PACKAGE.parent / "pyproject.toml").is_file():
            files = sorted(folder.glob("*.toml"))
            if files:
                return {file.stem: file for file in files}
    return {}


def recipes_by_name(registry: Registry) -> dict[str, Path]:
    """Return the shipped recipes by bare name, and those of plugins by "distribution/name".

    A plugin's recipe has its bare name, too, where no other recipe is called that.
    """
    own, of_plugins = shipped_recipes(), registry.recipes()
    bare_names = [full_name.rpartition("/")[2] for full_name in of_plugins]
    recipes = {**own, **of_plugins}
    for full_name, name in zip(of_plugins, bare_names, strict=True):
        if name not in own and bare_names.count(name) == 1:
            recipes[name] = of_plugins[full_name]
    return recipes


def recipe_file(source: Path, registry: Registry | None = None) -> Path:
    """Return the file of a recipe: `source` itself, or the shipped recipe of this name.

    With a registry, recipes of plugins are found, too. A file of one's own, whatever it is called,
    comes first.
    """
    if source.suffix or not is_missing(source):
        return source
    recipes = shipped_recipes() if registry is None else recipes_by_name(registry)
    return recipes.get(source.as_posix(), source)


def is_missing(path: Path) -> bool:
    """Return True for a path that nothing is at; False also for one that no file can have."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def nearest_recipe(
    source: Path, registry: Registry | None = None, folder: Path | None = None
) -> str:
    """Return a remedy for the name of a recipe that is not there.

    `folder` is where it was looked for, by default its own. With a registry, recipes of plugins
    are among the names.
    """
    beside = [file.name for file in (folder or source.parent).glob("*.toml")]
    if source.name != str(source):
        return nearest(source.name, beside)
    # shipped recipes have no folder
    shipped = shipped_recipes() if registry is None else recipes_by_name(registry)
    names = [*beside, *shipped]
    if get_close_matches(source.name, names):
        return nearest(source.name, names)
    return "`lotteryfw list recipes` shows those that are shipped"
