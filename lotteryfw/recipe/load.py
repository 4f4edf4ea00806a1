"""Loads a recipe and checks all of it."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import Fault, RecipeError, nearest, printable
from lotteryfw.api.kinds import kinds
from lotteryfw.api.limits import check_variables
from lotteryfw.recipe.bounds import too_many_cells
from lotteryfw.recipe.claim_checks import check_claim
from lotteryfw.recipe.claims import Claim
from lotteryfw.recipe.expand import ExpandedStudy
from lotteryfw.recipe.layered_table import Keys, LayeredTable, dotted
from lotteryfw.recipe.overrides import without_effect
from lotteryfw.recipe.paths import without
from lotteryfw.recipe.read import IN_PYTHON, SET, plain, read, recipe_text, source_name
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import RecipeFile, StudyTable
from lotteryfw.recipe.shipped import recipe_file
from lotteryfw.recipe.toml_writer import to_toml
from lotteryfw.recipe.written_parts import Place, WrittenParts, written_parts
from lotteryfw.registry import Registry
from lotteryfw.search import jobs
from lotteryfw.search.cell import Cell


@dataclass(frozen=True)
class Recipe:
    """A valid recipe: its cells in order, its claims, and its source text."""

    name: str
    title: str
    about: str
    path: Path | None
    profile: str | None
    profiles: tuple[str, ...]
    source_text: str = field(repr=False)
    claims: tuple[Claim, ...] = field(repr=False)
    claim_origins: tuple[tuple[str, str] | None, ...] = field(repr=False)
    """The file and the key of each claim; None for one that may be about what this version of the recipe leaves out: a
    claim of an extended file, or any with a profile or `--set`."""
    cells: tuple[Cell, ...] = field(repr=False)
    written_parts: tuple[WrittenParts, ...] = field(repr=False)
    """Where the axes and components of each study are written."""
    _resolved: Mapping[str, Any] = field(repr=False)

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as one table with every default filled in. It loads to the same cells."""
        return copy.deepcopy(dict(self._resolved))

    def place(self, study: str, slot: str) -> Place:
        """Return the file and the key where a component of a study is written."""
        for parts in self.written_parts:
            if parts.study == study:
                return parts.slots[slot]
        raise KeyError(study)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) of the resolved recipe: equal for recipes with equal cells and claims."""
        return jobs.digest(self._resolved)


def load_recipe(
    source: Path | str | Mapping[str, Any],
    registry: Registry,
    *,
    data_folder: Path,
    profile: str | None = None,
    sets: Sequence[str] = (),
    studies: Sequence[str] = (),
) -> Recipe:
    """Read a recipe (a file's path, or a table) and check all of it.

    `data_folder` has the data sets. With `studies`, the recipe has only the studies of these names.
    Raises RecipeError with every fault, and UsageError for a limit in the environment that is no
    number.
    """
    check_variables()
    faults: list[Fault] = []
    path: Path | None = None
    content: Path | Mapping[str, Any]
    if isinstance(source, Mapping):
        content = plain(source)
    else:
        content = path = recipe_file(Path(source), registry)
    tree = read(content, _defaults(registry), profile, sets, faults, registry)
    faults_of_reading = list(faults)

    # Everything is checked, whatever is wrong before, so that all faults are reported at once.
    # A plugin file lies beside the recipe, or where the command runs.
    beside = [path.parent, Path()] if path else [Path()]
    resolver = ComponentResolver(registry, data_folder, beside)
    file, problems = resolver.table(RecipeFile, tree.table)
    for problem in problems:
        faults.append(tree.fault(problem.keys, problem.text, problem.remedy))
    faults += _untrusted(tree, registry)
    all_studies = _studies(tree, resolver)
    chosen = _chosen(all_studies, studies, faults)
    # What a profile or `--set` changes for these studies need not fit the others.
    for study in chosen or all_studies:
        faults += study.faults
    if sets:
        faults += without_effect(tree, _tables(chosen), lambda where, _: where == SET)
    is_whole = profile is None and not sets and not studies
    file_name = source_name(path) if path else IN_PYTHON
    if profile is not None and not sets:
        # a profile is for all studies; an extended recipe's need not fit those of this one
        def is_own(where: str, keys: Keys) -> bool:
            return where == file_name and keys[:2] == ("profiles", profile)

        faults += without_effect(tree, _tables(all_studies), is_own)
    claims, origins = _claims(tree, all_studies, chosen, resolver, file_name, is_whole, faults)
    if faults or file is None:
        raise RecipeError(_once_each(faults, faults_of_reading))

    # study by study: the order of levels.csv, of tables and of figures
    cells: list[Cell] = []
    for study in chosen:
        cells += study.cells
    texts = {"name": file.name, "title": file.title, "about": file.about}
    resolved: dict[str, Any] = {key: value for key, value in texts.items() if value}
    resolved["study"] = [study.resolved() for study in chosen]
    if claims:
        resolved["claim"] = [
            claim.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            for claim in claims
        ]
    return Recipe(
        **texts,
        path=path,
        profile=profile,
        profiles=tuple(file.profiles),
        source_text=recipe_text(content) if isinstance(content, Path) else to_toml(content),
        claims=tuple(claims),
        claim_origins=tuple(origins),
        cells=tuple(cells),
        written_parts=tuple(written_parts(study, resolver) for study in chosen),
        _resolved=resolved,
    )


def _once_each(faults: Sequence[Fault], faults_of_reading: Sequence[Fault]) -> list[Fault]:
    """Return the faults without those that say again what was wrong when the recipe was read.

    A value that was refused then, such as NaN or a date, is mostly no valid option either.
    """
    read_faults = {(fault.where, fault.key): fault for fault in faults_of_reading}
    reported = []
    # studies share what is at the top of a recipe, and its faults
    for fault in dict.fromkeys(faults):
        if read_faults.get((fault.where, fault.key), fault) == fault:
            reported.append(fault)
    return reported


def _defaults(registry: Registry) -> dict[str, str]:
    """Return the name of each kind's default component; some kinds have none."""
    defaults = {}
    for kind in kinds():
        offer = registry.default(kind)
        if offer is not None:
            defaults[kind] = offer.name
    return defaults


def _untrusted(tree: LayeredTable, registry: Registry) -> list[Fault]:
    """Report plugin files of the recipe that are missing, or that the user does not trust."""
    plugins = tree.table.get("plugins")
    faults = []
    for index, path in enumerate(plugins if isinstance(plugins, list) else []):
        if not isinstance(path, str) or Path(path).resolve() in registry.trusted:
            continue
        keys = ("plugins", index)
        # a file that is missing needs no trust
        if not _is_file(path):
            faults.append(tree.fault(keys, f"there is no plugin file {printable(path, 300)}"))
            continue
        text = f"{path} is code, and a recipe runs no code unless you say so"
        remedy = f"read it, then run again with --trust {shlex.quote(path)}"
        faults.append(tree.fault(keys, text, remedy))
    return faults


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _studies(tree: LayeredTable, resolver: ComponentResolver) -> list[ExpandedStudy]:
    """Return every study of the recipe.

    Raises RecipeError if there are too many cells, before any of them is made.
    """
    trees = _study_trees(tree)
    problem = too_many_cells((name, study.table) for name, study in trees)
    if problem:
        raise RecipeError([tree.fault(("grid",), *problem)])
    return [ExpandedStudy(name, study, resolver) for name, study in trees]


def _chosen(
    studies: Sequence[ExpandedStudy], names: Sequence[str], faults: list[Fault]
) -> list[ExpandedStudy]:
    """Return the studies of these names, in the recipe's order; all of them without names."""
    known = [study.name for study in studies]
    for name in names:
        if name not in known:
            remedy = nearest(name, known)
            faults.append(Fault("--study", name, "there is no such study", remedy))
    return [study for study in studies if not names or study.name in names]


def _tables(studies: Sequence[ExpandedStudy]) -> dict[str, LayeredTable]:
    """Return the tables of studies by their names."""
    tables = {}
    for study in studies:
        tables[study.name] = study.tree
    return tables


def _study_trees(tree: LayeredTable) -> list[tuple[str, LayeredTable]]:
    """Return the name and table of each study: its own keys over those at the recipe's top."""
    shared = {key: value for key, value in tree.table.items() if key in StudyTable.model_fields}
    base = replace(tree, table=shared)
    studies = tree.table.get("studies")
    trees = []
    for name, table in studies.items() if isinstance(studies, Mapping) else ():
        # what is no table was reported by the schema
        if isinstance(table, Mapping):
            trees.append((name, _study_tree(tree, base, name, table)))
    # without studies, the recipe is one that has the recipe's name
    return trees or [(str(tree.table.get("name")), base)]


def _study_tree(
    tree: LayeredTable, base: LayeredTable, name: str, table: Mapping[str, Any]
) -> LayeredTable:
    # faults in a study name the file and the [[study]] that its keys were written in
    def origin(keys: Keys) -> tuple[str, Keys]:
        return tree.locate(("studies", name, *keys))

    if "grid" in table:  # a study's grid replaces the base's
        base = base.replaced("grid", {}, origin)
    study = base.over_layers(tree, ("studies", name))
    return replace(study, table=without(study.table, [("name",)]))


def _claims(
    tree: LayeredTable,
    studies: Sequence[ExpandedStudy],
    chosen: Sequence[ExpandedStudy],
    resolver: ComponentResolver,
    own_file: str,
    is_whole: bool,
    faults: list[Fault],
) -> tuple[list[Claim], list[tuple[str, str] | None]]:
    """Return the claims, with labels in their sides as cells have them, and the file and key of each.

    Every claim of `own_file` has to find its cells, but where `is_whole` is false: then a profile,
    `--set` or `--study` changes the recipe.
    """
    claims: list[Claim] = []
    origins: list[tuple[str, str] | None] = []
    tables = tree.table.get("claim")
    studies_by_name = {study.name: study for study in studies}
    chosen_names = {study.name for study in chosen}
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        claim, problems = resolver.table(Claim, table)
        if claim is not None:
            where, keys = tree.locate(("claim", index))
            is_own = where == own_file
            checked, problems = check_claim(
                claim, studies_by_name, chosen_names, resolver, is_whole, inherited=not is_own
            )
            claims += checked
            origin = (where, dotted(keys)) if is_own and is_whole else None
            origins += [origin] * len(checked)
        for problem in problems:
            keys = ("claim", index, *problem.keys)
            faults.append(tree.fault(keys, problem.text, problem.remedy))
    return claims, origins
