"""From files, profile and `--set` to one merged tree. The later said wins: extended file, file, profile, `--set`."""

from __future__ import annotations

import copy
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from lotteryfw.api.errors import Fault, RecipeError, UsageError, nearest
from lotteryfw.api.limits import DEPTH, EXTENDS, RECIPE_BYTES, read_regular
from lotteryfw.api.steps import Step
from lotteryfw.recipe.bounds import out_of_bounds, too_deep
from lotteryfw.recipe.layered_table import Keys, LayeredTable, Origin, dotted
from lotteryfw.recipe.schema import WHOLE_TABLES

SET = "--set"
_NOT_A_VALUE = "must be a string, a number, a boolean, a list or a table, got a {}"
IN_PYTHON = "recipe"
"""Where a recipe that is no file is said to stand."""


def read(
    source: Path | Mapping[str, Any],
    defaults: Mapping[str, str],
    profile: str | None,
    sets: Sequence[str],
    faults: list[Fault],
) -> LayeredTable:
    """The merged recipe: `[[study]]` as `studies` by name, grids flat. What is wrong in passing goes to `faults`.

    Raises RecipeError where a file cannot be read at all.
    """
    if isinstance(source, Path):
        tree = _file(source, LayeredTable(defaults, whole=WHOLE_TABLES), (), faults)
    else:
        _require_bounds(source, IN_PYTHON)
        tree = _laid(
            LayeredTable(defaults, whole=WHOLE_TABLES),
            copy.deepcopy(dict(source)),
            IN_PYTHON,
            Path(),
            faults,
        )
    if profile is not None:
        tree = _profiled(tree, profile, faults)
    for text in sets:
        tree = _set(tree, text, faults)
    return tree


def _file(
    path: Path, tree: LayeredTable, chain: tuple[Path, ...], faults: list[Fault]
) -> LayeredTable:
    where = str(path)
    table = _parsed(path)
    here = path.resolve()
    if here in chain:
        names = " → ".join(each.name for each in (*chain[chain.index(here) :], path))
        raise RecipeError(
            [Fault(where, "extends", f"recipes extend each other in a circle: {names}")]
        )
    if EXTENDS.exceeded_by(len(chain)):
        problem = f"is at the end of {EXTENDS.excess(len(chain), 'recipes that extend each other')}"
        raise RecipeError([Fault(where, "extends", problem, EXTENDS.remedy)])
    parent = table.pop("extends", None)
    if isinstance(parent, str):
        tree = _file(path.parent / parent, tree, (*chain, here), faults)
    elif parent is not None:
        faults.append(Fault(where, "extends", f"must be the name of a recipe file, got {parent!r}"))
    return _laid(tree, table, where, path.parent, faults)


def recipe_text(path: Path) -> str:
    """The text of a recipe file, without a byte order mark. Raises RecipeError for what is no such file."""
    where = str(path)
    try:
        return read_regular(path, RECIPE_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        here = [each.name for each in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        problem = ("there is no such recipe", nearest(path.name, here))
    except OSError as error:
        problem = (f"cannot be read: {error.strerror or error}", "")
    except UnicodeDecodeError as error:
        problem = (f"is not UTF-8 text (byte {error.start})", "")
    except ValueError as error:  # a path with a NUL in it
        problem = (f"cannot be read: {error}", "")
    except UsageError as error:
        problem = (str(error), "")
    raise RecipeError([Fault(where, "", *problem)])


def _parsed(path: Path) -> dict[str, Any]:
    where = str(path)
    text = recipe_text(path)
    if problem := too_deep(text):
        raise RecipeError([Fault(where, "", problem, DEPTH.remedy)])
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([Fault(where, "", f"is not TOML: {error}")]) from None
    except ValueError as error:  # Python reads no decimal number of more than 4,300 digits
        raise RecipeError([Fault(where, "", f"has a value that cannot be read: {error}")]) from None
    _require_bounds(table, where)
    return table


def _require_bounds(table: Mapping[str, Any], where: str) -> None:
    """Raise RecipeError at once for what would take long, or break, whatever is done with it."""
    if faults := out_of_bounds(table, where):
        raise RecipeError(faults)


def _laid(
    tree: LayeredTable, table: dict[str, Any], where: str, folder: Path, faults: list[Fault]
) -> LayeredTable:
    if isinstance(plugins := table.get("plugins"), list):
        table["plugins"] = [
            str(folder / each) if isinstance(each, str) else each for each in plugins
        ]
    for each in _tables(table.get("profiles")).values():
        _flatten_grids(each)
    _flatten_grids(table)
    if "study" in table:
        studies = _by_name(table.pop("study"), where, faults)
        faults += _unusable({"studies": studies}, (), where)
        tree = tree.replaced("studies", studies, lambda keys: (where, keys))
    faults += _unusable(table, (), where)
    tree = replace(tree, origins={**tree.origins, (): (where, ())})
    return _over(tree, table, lambda keys: (where, keys), faults)


def _over(
    tree: LayeredTable, table: Mapping[str, Any], origin: Origin, faults: list[Fault]
) -> LayeredTable:
    known = _tables(tree.table.get("studies"))
    for name in _tables(table.get("studies")).keys() - known.keys():
        where, keys = origin(("studies", name))
        faults.append(
            Fault(
                where, dotted(keys), "there is no such study", nearest(name, known) or "it has none"
            )
        )
    return tree.over(table, origin)


def _profiled(tree: LayeredTable, name: str, faults: list[Fault]) -> LayeredTable:
    profiles = _tables(tree.table.get("profiles"))
    if name not in profiles:
        hint = nearest(name, profiles) or "this recipe has no profiles"
        faults.append(
            Fault(
                tree.locate(("profiles",))[0], f"profiles.{name}", "there is no such profile", hint
            )
        )
        return tree
    table = profiles[name]
    for key in ("extends", "plugins", "profiles", "study") & table.keys():
        faults.append(tree.fault(("profiles", name, key), "a profile cannot change this"))
    return _over(tree, table, lambda keys: tree.locate(("profiles", name, *keys)), faults)


def _set(tree: LayeredTable, text: str, faults: list[Fault]) -> LayeredTable:
    key, equals, value = (part.strip() for part in text.partition("="))
    if problem := too_deep(text):
        raise RecipeError([Fault(SET, text, problem, DEPTH.remedy)])
    try:
        table = tomllib.loads(f"{key} = 0")
        if not equals or "\n" in key:
            raise ValueError
        table = _value_set(key, value)
    except ValueError:
        faults.append(Fault(SET, text, "is not KEY=VALUE", "such as train.length=500it"))
        return tree
    _require_bounds(table, SET)
    for barred in ("extends", "plugins", "profiles", "study") & table.keys():
        faults.append(Fault(SET, barred, "can only be said in a file"))
        return tree
    _flatten_grids(table)
    faults += _unusable(table, (), SET)
    return _over(tree, table, lambda keys: (SET, keys), faults)


def _value_set(key: str, value: str) -> dict[str, Any]:
    """The table that `key = value` makes; a value that is no TOML is text. Raises ValueError for what is neither."""
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value, ensure_ascii=False)}")


def _by_name(studies: Any, where: str, faults: list[Fault]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, study in enumerate(studies if isinstance(studies, list) else [studies]):
        name = study.get("name") if isinstance(study, Mapping) else None
        if not isinstance(name, str):
            faults.append(
                Fault(where, f"study[{place}].name", "is required: studies are told apart by name")
            )
        elif name in found:
            faults.append(
                Fault(where, f"study[{place}].name", f"there is a study '{name}' already")
            )
        else:
            found[name] = study
    return found


def _flatten_grids(table: Any) -> None:
    """Makes every grid below a recipe's top one table from dotted path to values, however it was written."""
    if not isinstance(table, dict):
        return
    if isinstance(grid := table.get("grid"), Mapping):
        table["grid"] = dict(_flat(grid, ""))
    studies = table.get("study", [])
    for study in [
        *(studies if isinstance(studies, list) else []),
        *_tables(table.get("studies")).values(),
    ]:
        _flatten_grids(study)


def _flat(grid: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in grid.items():
        flat += (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [(prefix + key, value)]
        )
    return flat


def _tables(value: Any) -> dict[str, dict[str, Any]]:
    """The tables in a table of tables, whatever else a recipe has put there."""
    return (
        {key: each for key, each in value.items() if isinstance(each, dict)}
        if isinstance(value, Mapping)
        else {}
    )


def plain(value: Any, depth: int = 0) -> Any:
    """A recipe given from Python as TOML would give it, in dicts and lists of its own; None says nothing.

    Raises RecipeError for one that nests deeper than the limit, such as one that holds itself.
    """
    if depth > DEPTH.value:
        problem = f"is nested deeper than the limit of {DEPTH.value}"
        raise RecipeError([Fault(IN_PYTHON, "", problem, DEPTH.remedy)])
    if isinstance(value, Mapping):
        return {
            str(key): plain(entry, depth + 1) for key, entry in value.items() if entry is not None
        }
    if isinstance(value, list | tuple):
        return [plain(entry, depth + 1) for entry in value]
    return str(value) if isinstance(value, Step | PurePath) else value


def _unusable(value: Any, keys: Keys, where: str) -> list[Fault]:
    """Values that no part of a recipe can use: keys and records are JSON, which has neither dates nor infinity."""
    if isinstance(value, Mapping):
        return [
            found for key, each in value.items() for found in _unusable(each, (*keys, key), where)
        ]
    if isinstance(value, list):
        return [
            found
            for place, each in enumerate(value)
            for found in _unusable(each, (*keys, place), where)
        ]
    if isinstance(value, float) and not math.isfinite(value):
        return [Fault(where, dotted(keys), f"must be a finite number, got {value}")]
    if not isinstance(value, str | int | float):
        return [Fault(where, dotted(keys), _NOT_A_VALUE.format(type(value).__name__))]
    return []
