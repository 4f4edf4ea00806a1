"""Merges files, a profile and `--set` into one table.

The later one counts: first the extended file, then the file, the profile, and `--set`.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from lotteryfw.api.errors import Fault, RecipeError, UsageError, nearest
from lotteryfw.api.limits import DEPTH, EXTENDS, RECIPE_BYTES, read_regular
from lotteryfw.api.steps import Step
from lotteryfw.recipe.bounds import out_of_bounds, too_deep
from lotteryfw.recipe.layered_table import Keys, LayeredTable, Origin, dotted
from lotteryfw.recipe.paths import value_at
from lotteryfw.recipe.schema import ALTERNATIVES, TEXTS
from lotteryfw.recipe.shipped import is_missing, nearest_recipe, recipe_file
from lotteryfw.registry import Registry
from lotteryfw.search.torchvision_weights import PREFIX

SET = "--set"
_NOT_A_VALUE = "must be a string, a number, a boolean, a list or a table, got a {}"
_ONLY_IN_FILES = ("extends", "plugins", "profiles", "study")
STANDARD_INPUT = Path("-")
IN_PYTHON = "recipe"
"""The place that faults name for a recipe that is no file."""


def read(
    source: Path | Mapping[str, Any],
    defaults: Mapping[str, str],
    profile: str | None,
    sets: Sequence[str],
    faults: list[Fault],
    registry: Registry | None = None,
) -> LayeredTable:
    """Return the merged recipe, with `[[study]]` as `studies` by name, and grids by dotted path.

    With a registry, `extends` may name a recipe that a plugin ships, too. Faults that leave the
    rest readable are added to `faults`. Raises RecipeError for a file that cannot be read at all.
    """
    empty = LayeredTable(defaults, alternatives=ALTERNATIVES, texts=TEXTS)
    if isinstance(source, Path):
        tree = _file(source, empty, (), faults, registry)
    else:
        _require_bounds(source, IN_PYTHON)
        tree = _laid(empty, copy.deepcopy(dict(source)), IN_PYTHON, Path(), faults)
    # what comes later counts: a profile is asked for, and --set is typed last
    if profile is not None:
        tree = _profiled(tree, profile, faults)
    for text in sets:
        tree = _set(tree, text, faults)
    return tree


def _file(
    path: Path,
    tree: LayeredTable,
    chain: tuple[Path, ...],
    faults: list[Fault],
    registry: Registry | None,
) -> LayeredTable:
    where = source_name(path)
    table = recipe_table(path)
    here = path.resolve()
    if here in chain:
        circle = (*chain[chain.index(here) :], path)
        names = " → ".join(file.name for file in circle)
        problem = f"recipes extend each other in a circle: {names}"
        raise RecipeError([Fault(where, "extends", problem)])
    if EXTENDS.exceeded_by(len(chain)):
        problem = f"is at the end of {EXTENDS.excess(len(chain), 'recipes that extend each other')}"
        raise RecipeError([Fault(where, "extends", problem, EXTENDS.remedy)])
    # the extended recipe first: this file is laid over it
    parent = table.pop("extends", None)
    if isinstance(parent, str):
        extended = path.parent / parent
        # a file beside this one, or a shipped recipe by its name, of a plugin too
        if is_missing(extended):
            extended = recipe_file(Path(parent), registry)
        if is_missing(extended):
            extended = path.parent / parent
            near = nearest_recipe(Path(parent), registry, extended.parent)
            raise RecipeError([Fault(where, "extends", f"there is no recipe {extended}", near)])
        if os.path.isdir(extended):  # what "" and "." name
            problem = f"must be the name of a recipe file, got {parent!r}"
            raise RecipeError([Fault(where, "extends", problem, f"{extended} is a folder")])
        tree = _file(extended, tree, (*chain, here), faults, registry)
    elif parent is not None:
        faults.append(Fault(where, "extends", f"must be the name of a recipe file, got {parent!r}"))
    return _laid(tree, table, where, path.parent, faults)


def source_name(path: Path) -> str:
    """Return how messages call a recipe's file."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def recipe_text(path: Path) -> str:
    """Return the text of a recipe file, without a byte order mark. `-` is the standard input.

    Raises RecipeError for a file that is missing, too large, or no text.
    """
    where = source_name(path)
    try:
        content = _input() if path == STANDARD_INPUT else read_regular(path, RECIPE_BYTES)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        problem = ("there is no such recipe", nearest_recipe(path))
    except OSError as error:
        problem = (f"cannot be read: {error.strerror or error}", "")
    except UnicodeDecodeError as error:
        problem = (f"is not UTF-8 text (byte {error.start})", "")
    except ValueError as error:  # a path with a NUL in it
        problem = (f"cannot be read: {error}", "")
    except UsageError as error:
        problem = (str(error), "")
    raise RecipeError([Fault(where, "", *problem)])


@cache  # a pipe can be read once, and a recipe's text is asked for more often
def _input() -> bytes:
    content = sys.stdin.buffer.read(RECIPE_BYTES.value + 1)
    if RECIPE_BYTES.exceeded_by(len(content)):
        raise UsageError(
            f"has {RECIPE_BYTES.excess(len(content), 'bytes')} ({RECIPE_BYTES.remedy})"
        )
    return content


def recipe_table(path: Path) -> dict[str, Any]:
    """Return the table of one recipe file as it is written. Raises RecipeError."""
    where = source_name(path)
    text = recipe_text(path)
    # before parsing, which would end in a RecursionError
    if problem := too_deep(text):
        raise RecipeError([Fault(where, "", problem, DEPTH.remedy)])
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = f"is not TOML: {error}"
        raise RecipeError([Fault(where, "", problem, _repeated(text, str(error)))]) from None
    except ValueError as error:  # Python reads no decimal number of more than 4,300 digits
        raise RecipeError([Fault(where, "", f"has a value that cannot be read: {error}")]) from None
    _require_bounds(table, where)
    return table


def _repeated(text: str, error: str) -> str:
    """Return which key or table is written twice, where a TOML error is about that; else ""."""
    position = re.search(r"\(at line (\d+),", error)
    if position is None or not re.match("Cannot (overwrite|declare|mutate)", error):
        return ""
    # the parser stops after the value, which may have been the last thing of its line
    number = int(position[1])
    for line in reversed(text.splitlines()[max(0, number - 2) : number]):
        header = re.match(r"\s*\[+([^\]]+)\]+", line)
        key = re.match(r"\s*([\w.\"' -]+?)\s*=", line)
        if header or key:
            kind = "the table" if header else "the key"
            return (
                f"{kind} '{(header or key or position)[1].strip()}' is there twice: write it once"
            )
    return ""


def _require_bounds(table: Mapping[str, Any], where: str) -> None:
    """Raise RecipeError at once for what would take long, or break, whatever is done with it."""
    if faults := out_of_bounds(table, where):
        raise RecipeError(faults)


def _place_starts(table: Mapping[str, Any], folder: Path) -> None:
    """Make the paths of start files absolute: they are relative to the file that names them."""
    profiles = _tables(table.get("profiles")).values()
    for part in (table, *profiles):
        studies = part.get("study")
        listed = studies if isinstance(studies, list) else ()
        for study in (part, *listed, *_tables(part.get("studies")).values()):
            start = study.get("start") if isinstance(study, dict) else None
            if isinstance(start, str) and start and not start.startswith(PREFIX):
                study["start"] = str((folder / start).absolute())


def _laid(
    tree: LayeredTable, table: dict[str, Any], where: str, folder: Path, faults: list[Fault]
) -> LayeredTable:
    plugins = table.get("plugins")
    if isinstance(plugins, list):
        # a plugin's path is relative to the file that names it
        for index, plugin in enumerate(plugins):
            if isinstance(plugin, str):
                plugins[index] = str(folder / plugin)
    _place_starts(table, folder)
    for name, profile in _tables(table.get("profiles")).items():
        faults += _flatten_grids(profile, ("profiles", name), where)
    faults += _flatten_grids(table, (), where)
    if "study" in table:
        studies = _by_name(table.pop("study"), where, faults)
        faults += _unusable({"studies": studies}, (), where)
        tree = tree.replaced("studies", studies, lambda keys: (where, keys))
    faults += _unusable(table, (), where)
    # a fault at a key that nobody wrote is placed in the file that was read last
    tree = replace(tree, origins={**tree.origins, (): (where, ())})
    return _over(tree, table, lambda keys: (where, keys), faults)


def _over(
    tree: LayeredTable, table: Mapping[str, Any], origin: Origin, faults: list[Fault]
) -> LayeredTable:
    _check_studies(tree, table, origin, faults)
    return tree.over(table, origin)


def _check_studies(
    tree: LayeredTable, table: Mapping[str, Any], origin: Origin, faults: list[Fault]
) -> None:
    """Report studies that a table changes and that are not there."""
    studies = _tables(tree.table.get("studies"))
    # in a fixed order, which that of a set is not
    for name in sorted(_tables(table.get("studies")).keys() - studies.keys()):
        where, keys = origin(("studies", name))
        remedy = nearest(name, studies) or "this recipe has no studies"
        faults.append(Fault(where, dotted(keys), "there is no such study", remedy))


def _profiled(tree: LayeredTable, name: str, faults: list[Fault]) -> LayeredTable:
    profiles = _tables(tree.table.get("profiles"))
    if name not in profiles:
        remedy = nearest(name, profiles) or "this recipe has no profiles"
        where, _ = tree.locate(("profiles",))
        faults.append(Fault(where, f"profiles.{name}", "there is no such profile", remedy))
        return tree
    table = profiles[name]
    # a profile may change no files that were read, and no list of studies: `studies` has each by
    # name; the recipe's own name is that of all its profiles
    for key in (*_ONLY_IN_FILES, "name"):
        if key in table:
            faults.append(tree.fault(("profiles", name, key), "a profile cannot change this"))
    _check_studies(tree, table, lambda keys: tree.locate(("profiles", name, *keys)), faults)
    # an extended file's profile first, then that of the file
    return tree.over_layers(tree, ("profiles", name))


def _set(tree: LayeredTable, text: str, faults: list[Fault]) -> LayeredTable:
    key, equals, value = map(str.strip, text.partition("="))
    if problem := too_deep(text):
        raise RecipeError([Fault(SET, text, problem, DEPTH.remedy)])
    try:
        # first the key alone, since a value that is no TOML is taken as a string
        tomllib.loads(f"{key} = 0")
        if not equals or "\n" in key:
            raise ValueError
        table = _value_set(key, value)
    except ValueError:
        faults.append(Fault(SET, text, "is not KEY=VALUE", "such as train.length=500it"))
        return tree
    _require_bounds(table, SET)
    if value_at(table, tuple(key.split("."))) == {}:
        text, remedy = "is an empty table, which changes nothing", "a list replaces a list"
        faults.append(Fault(SET, key, text, f"{remedy}: {key}.KEY=[…]"))
        return tree
    for barred in _ONLY_IN_FILES:
        if barred in table:
            faults.append(Fault(SET, barred, "can only be set in a file"))
            return tree
    faults += _flatten_grids(table, (), SET)
    faults += _unusable(table, (), SET)
    return _over(tree, table, lambda keys: (SET, keys), faults)


def _value_set(key: str, value: str) -> dict[str, Any]:
    """Return the table that `key = value` makes; a value that is no TOML is a string.

    Raises ValueError for a key that is no TOML.
    """
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value, ensure_ascii=False)}")


def _by_name(studies: Any, where: str, faults: list[Fault]) -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for index, study in enumerate(studies if isinstance(studies, list) else [studies]):
        key = f"study[{index}].name"
        name = study.get("name") if isinstance(study, Mapping) else None
        # claims and --set refer to a study by its name
        if not isinstance(name, str):
            faults.append(Fault(where, key, "is required: studies are told apart by name"))
        elif name in by_name:
            faults.append(Fault(where, key, f"there is a study '{name}' already"))
        else:
            by_name[name] = study
    return by_name


def _flatten_grids(table: Any, keys: Keys, where: str) -> list[Fault]:
    """Make every grid of a recipe one table from dotted path to values, however it was written.

    Return a fault for each axis that is there in two spellings. `keys` is the path of the table.
    """
    if not isinstance(table, dict):
        return []
    faults: list[Fault] = []
    grid = table.get("grid")
    if isinstance(grid, Mapping):
        flat: dict[str, Any] = {}
        for path, values in _axes(grid, ""):
            if path in flat:
                key = dotted((*keys, "grid", path))
                faults.append(Fault(where, key, "is there twice", "write the axis once"))
            flat[path] = values
        table["grid"] = flat
    studies: list[tuple[Any, Any]] = list(_tables(table.get("studies")).items())
    if isinstance(table.get("study"), list):
        for study in table["study"]:
            studies.append((study.get("name") if isinstance(study, dict) else None, study))
    for name, study in studies:
        faults += _flatten_grids(study, (*keys, "studies", str(name)), where)
    return faults


def _axes(grid: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the values of each axis, in the order that they are written in."""
    for key, value in grid.items():
        if isinstance(value, Mapping):
            yield from _axes(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    """Return the tables in a table of tables; anything else is reported by the schema."""
    if not isinstance(value, Mapping):
        return {}
    return {key: table for key, table in value.items() if isinstance(table, dict)}


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of a recipe from Python with the types of TOML; keys that are None are left out.

    Raises RecipeError for one that nests deeper than the limit, such as one that contains itself.
    """
    if depth > DEPTH.value:
        problem = f"is nested deeper than the limit of {DEPTH.value}"
        raise RecipeError([Fault(IN_PYTHON, "", problem, DEPTH.remedy)])
    if isinstance(value, Mapping):
        table = {}
        for key, entry in value.items():
            if entry is not None:
                table[str(key)] = plain(entry, depth + 1)
        return table
    if isinstance(value, list | tuple):
        return [plain(entry, depth + 1) for entry in value]
    return str(value) if isinstance(value, Step | PurePath) else value


def _unusable(value: Any, keys: Keys, where: str) -> list[Fault]:
    """Return a fault for every value that no part of a recipe can use.

    Keys and records are written as JSON, which has neither dates nor infinity.
    """
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    elif isinstance(value, float) and not math.isfinite(value):
        return [Fault(where, dotted(keys), f"must be a finite number, got {value}")]
    elif not isinstance(value, str | int | float):
        return [Fault(where, dotted(keys), _NOT_A_VALUE.format(type(value).__name__))]
    faults = []
    for key, entry in entries:
        faults += _unusable(entry, (*keys, key), where)
    return faults
