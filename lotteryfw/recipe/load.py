"""From a recipe as given to a recipe that can be run, or to everything that is wrong with it."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import Fault, RecipeError, printable
from lotteryfw.api.kinds import kinds
from lotteryfw.api.limits import check_variables
from lotteryfw.recipe.bounds import too_many_cells
from lotteryfw.recipe.claims import Claim, resolve_claim
from lotteryfw.recipe.expand import ExpandedStudy
from lotteryfw.recipe.layered_table import Keys, LayeredTable
from lotteryfw.recipe.read import plain, read, recipe_text
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import RecipeFile, StudyTable
from lotteryfw.recipe.toml_writer import to_toml
from lotteryfw.registry import Registry
from lotteryfw.search import jobs
from lotteryfw.search.cell import Cell


@dataclass(frozen=True)
class Recipe:
    """A recipe that nothing is wrong with: its cells in order, its claims, and the text it came from."""

    name: str
    title: str
    about: str
    path: Path | None
    profile: str | None
    profiles: tuple[str, ...]
    source_text: str = field(repr=False)
    claims: tuple[Claim, ...] = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)
    _resolved: Mapping[str, Any] = field(repr=False)

    def resolved(self) -> dict[str, Any]:
        """The recipe as one TOML-able table with every default filled in; it loads to the same cells."""
        return copy.deepcopy(dict(self._resolved))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what is resolved: equal for recipes that ask for the same."""
        return jobs.digest(self._resolved)


def load_recipe(
    source: Path | str | Mapping[str, Any],
    registry: Registry,
    *,
    data_folder: Path,
    profile: str | None = None,
    sets: Sequence[str] = (),
) -> Recipe:
    """Reads a recipe (a file's path, or a table) and checks all of it. `data_folder` is where data sets are looked for.

    Raises RecipeError with every fault found, and UsageError for an environment variable that is no limit.
    """
    check_variables()
    faults: list[Fault] = []
    path, source = (
        (None, plain(source)) if isinstance(source, Mapping) else (Path(source), Path(source))
    )
    defaults = {kind: offer.name for kind in kinds() if (offer := registry.default(kind))}
    tree = read(source, defaults, profile, sets, faults)
    unread = {(each.where, each.key): each for each in faults}
    resolver = ComponentResolver(registry, data_folder)
    file, found = resolver.table(RecipeFile, tree.table)
    faults += [tree.fault(each.keys, each.text, each.remedy) for each in found]
    faults += _untrusted(tree, registry)
    studies = _studies(tree, resolver)
    for study in studies:
        faults += study.faults
    claims = _claims(tree, studies, resolver, faults)
    if faults or file is None:
        # a value that reading refused (NaN, a date) is no option either; saying so again would be two faults for one
        raise RecipeError(
            [
                each
                for each in dict.fromkeys(faults)
                if unread.get((each.where, each.key), each) == each
            ]
        )
    said = {"name": file.name, "title": file.title, "about": file.about}
    resolved = {key: value for key, value in said.items() if value} | {
        "study": [each.resolved() for each in studies]
    }
    if claims:
        resolved["claim"] = [
            labelled.model_dump(mode="json", exclude_none=True) for _, labelled in claims
        ]
    return Recipe(
        **said,
        path=path,
        profile=profile,
        profiles=tuple(file.profiles),
        source_text=recipe_text(source) if isinstance(source, Path) else to_toml(source),
        claims=tuple(labelled for _, labelled in claims),
        cells=tuple(cell for study in studies for cell in study.cells),
        _resolved=resolved,
    )


def _untrusted(tree: LayeredTable, registry: Registry) -> list[Fault]:
    plugins = tree.table.get("plugins")
    faults = []
    for place, each in enumerate(plugins if isinstance(plugins, list) else []):
        if isinstance(each, str) and Path(each).resolve() not in registry.trusted:
            keys = ("plugins", place)
            if not _is_file(each):
                faults.append(tree.fault(keys, f"there is no plugin file {printable(each, 300)}"))
            else:
                text = f"{each} is code, and a recipe runs no code unless you say so"
                faults.append(
                    tree.fault(
                        keys, text, f"read it, then run again with --trust {shlex.quote(each)}"
                    )
                )
    return faults


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _studies(tree: LayeredTable, resolver: ComponentResolver) -> list[ExpandedStudy]:
    """Every study of the recipe. Raises RecipeError, before any cell is made, where there are too many cells."""
    trees = _study_trees(tree)
    if problem := too_many_cells((name, study.table) for name, study in trees):
        raise RecipeError([tree.fault(("grid",), *problem)])
    return [ExpandedStudy(name, study, resolver) for name, study in trees]


def _study_trees(tree: LayeredTable) -> list[tuple[str, LayeredTable]]:
    base = LayeredTable(
        tree.defaults,
        {key: each for key, each in tree.table.items() if key in StudyTable.model_fields},
        tree.origins,
    )
    studies = tree.table.get("studies")
    items = studies.items() if isinstance(studies, Mapping) else ()
    tables = {name: table for name, table in items if isinstance(table, Mapping)}
    if not tables:
        return [(str(tree.table.get("name")), base)]
    return [(name, _study_tree(tree, base, name, table)) for name, table in tables.items()]


def _study_tree(
    tree: LayeredTable, base: LayeredTable, name: str, table: Mapping[str, Any]
) -> LayeredTable:
    def origin(keys: Keys) -> tuple[str, Keys]:
        return tree.locate(("studies", name, *keys))

    if "grid" in table:  # a study's grid replaces the base's
        base = base.replaced("grid", {}, origin)
    return base.over({key: each for key, each in table.items() if key != "name"}, origin)


def _claims(
    tree: LayeredTable,
    studies: Sequence[ExpandedStudy],
    resolver: ComponentResolver,
    faults: list[Fault],
) -> list[tuple[Claim, Claim]]:
    """Each claim as written, and with labels for selectors as cells have them."""
    claims = []
    given = tree.table.get("claim", [])
    for place, table in enumerate(given if isinstance(given, list) else []):
        claim, found = resolver.table(Claim, table)
        if claim is not None:
            claim, labelled, found = resolve_claim(
                claim, {study.name: study for study in studies}, resolver
            )
            claims.append((claim, labelled))
        faults += [
            tree.fault(("claim", place, *each.keys), each.text, each.remedy) for each in found
        ]
    return claims
