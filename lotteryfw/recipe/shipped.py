"""The recipes that lotteryfw ships, which commands and `extends` find by their bare names."""

from __future__ import annotations

from pathlib import Path

from lotteryfw.api.errors import nearest

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


def recipe_file(source: Path) -> Path:
    """Return the file of a recipe: `source` itself, or the shipped recipe of this bare name.

    A file of one's own, whatever it is called, comes first.
    """
    is_bare = source.name == str(source) and not source.suffix
    if not is_bare or not is_missing(source):
        return source
    return shipped_recipes().get(source.name, source)


def is_missing(path: Path) -> bool:
    """Return True for a path that nothing is at; False also for one that no file can have."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def nearest_recipe(source: Path) -> str:
    """Return a remedy for the name of a recipe that is not there."""
    # those beside the file first, then the shipped ones, which have no folder
    names = []
    if source.parent.is_dir():
        for file in source.parent.glob("*.toml"):
            names.append(file.name)
    if source.name == str(source):
        names += shipped_recipes()
    return nearest(source.name, names)
