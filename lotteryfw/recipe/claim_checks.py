"""Checks a recipe's claims against its studies, and writes them out as cells are labelled.

A claim that names something that does not exist is a mistake in the recipe. What exists, but not in
this version of the recipe, because a profile or `--set` left it out, makes the claim untested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import product
from typing import Any

from lotteryfw.api.errors import nearest
from lotteryfw.api.kinds import Analysis
from lotteryfw.api.labels import label_of
from lotteryfw.recipe.axes import check_grid_path
from lotteryfw.recipe.claim_selection import select_combinations
from lotteryfw.recipe.claims import (
    MEASURED,
    METRICS,
    SIDES,
    VARIANT,
    Claim,
    Side,
    SideOptions,
    SideTable,
)
from lotteryfw.recipe.expand import ExpandedStudy
from lotteryfw.recipe.grid_values import label
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import SLOTS

_SHARES = ("density", "rate")
"""Last parts of keys whose values a claim's text shows in per cent."""


@dataclass(frozen=True)
class RepeatedClaim:
    """A claim with one combination of its `for_each`; `places` says where each value stands."""

    claim: Claim
    places: Mapping[str, Keys]


def repeat_claim(claim: Claim) -> Iterator[RepeatedClaim]:
    """Yield the claim for each combination of its `for_each`; itself, if it has none."""
    paths = list(claim.for_each)
    for values in product(*claim.for_each.values()):
        chosen = dict(zip(paths, values, strict=True))
        places: dict[str, Keys] = {}
        text = claim.text
        for path, value in chosen.items():
            places[path] = ("for_each", path, claim.for_each[path].index(value))
            text = text.replace("{" + path + "}", _in_words(path, value))

        update: dict[str, Any] = {"text": text, "for_each": {}}
        for key, table in claim.side_tables().items():
            update[key] = _for_side(key, chosen) | dict(table)  # what a side says itself counts
        yield RepeatedClaim(claim.model_copy(update=update), places)


def _for_side(side: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `for_each` that one side has, by their keys without the side's name."""
    values = {}
    for path, value in chosen.items():
        first, _, rest = path.partition(".")
        if first == side:
            values[rest] = value
        elif first not in SIDES:
            values[path] = value
    return values


def _in_words(path: str, value: Any) -> str:
    if path.rpartition(".")[2] in _SHARES and isinstance(value, int | float):
        return f"{100 * value:.4g} %"
    return label_of(value)


def check_claim(
    claim: Claim,
    studies: Mapping[str, ExpandedStudy],
    chosen: Set[str],
    resolver: ComponentResolver,
    whole: bool,
) -> tuple[list[Claim], list[Problem]]:
    """Return the claims that one entry of a recipe makes, as cells are labelled, and its problems.

    `chosen` names the studies that run. `whole` says that no profile, no `--set` and no `--study`
    made the recipe smaller: then every side has to select cells.
    """
    claims = []
    problems: dict[Problem, None] = {}  # a set that keeps its order
    for repeated in repeat_claim(claim):
        check = _ClaimCheck(repeated, studies, chosen, resolver)
        claims.append(check.resolve(whole))
        problems |= dict.fromkeys(check.problems)
    return claims, list(problems)


class _ClaimCheck:
    """The check of one claim; `problems` are its mistakes."""

    def __init__(
        self,
        repeated: RepeatedClaim,
        studies: Mapping[str, ExpandedStudy],
        chosen: Set[str],
        resolver: ComponentResolver,
    ):
        self.problems: list[Problem] = []
        self._claim = repeated.claim
        self._places = repeated.places
        self._studies = studies
        self._chosen = chosen
        self._resolver = resolver
        self._missing: list[Problem] = []

    def resolve(self, whole: bool) -> Claim:
        """Return the claim with its study filled in and with the labels of cells."""
        if not self._claim.study and len(self._studies) == 1:
            update = {"study": next(iter(self._studies))}
            self._claim = self._claim.model_copy(update=update)

        resolved: dict[str, Any] = {}
        for key in SIDES:
            table = getattr(self._claim, key)
            if table is not None:
                resolved[key] = self._resolve_side(key, table)
        if self._claim.rises_along is not None:
            [(path, values)] = self._claim.rises_along.items()
            labels = []
            for index, value in enumerate(values):
                labels.append(self._label(("rises_along", path, index), path, value))
            resolved["rises_along"] = {path: labels}

        claim = self._claim.model_copy(update=resolved)
        if self.problems or claim.untested:
            return claim
        for key, side in claim.sides().items():
            self._check_selection(key, side)
        if whole:
            self.problems += self._missing
        elif self._missing:
            # this version of the recipe leaves out what the claim is about, which is no mistake
            return claim.model_copy(update={"untested": self._missing[0].text})
        return claim

    def _resolve_side(self, key: str, table: SideTable) -> dict[str, Any]:
        options = {}
        for path, value in table.items():
            if path in SideOptions.model_fields:
                options[path] = value
        _, problems = self._resolver.table(SideOptions, options)
        for problem in problems:
            self._report(self._place(key, str(problem.keys[0])), *problem.keys[1:], problem=problem)
        resolved = {}
        for path, value in table.items():
            resolved[path] = self._label(self._place(key, path), path, value)
        return resolved

    def _place(self, key: str, path: str) -> Keys:
        """Return where a side's value stands: in its table, or in a list of values."""
        if self._claim.rises_along and path in self._claim.rises_along:
            return "rises_along", path
        for written in (f"{key}.{path}", path):
            if written in self._places:
                return self._places[written]
        return key, path

    def _label(self, keys: Keys, path: str, value: Any) -> Any:
        """Return a value as cells are labelled; the value of a key that is no axis as it is."""
        if path in SideOptions.model_fields:
            return value
        grid_path: Keys = tuple(path.split("."))
        fault = check_grid_path(grid_path)
        if fault is not None:
            self.problems.append(Problem(keys, *fault))
            return ""
        is_label = isinstance(value, str) and "(" in value
        if grid_path in SLOTS and not is_label:
            component, problems = self._resolver.component(SLOTS[grid_path], value)
            for problem in problems:
                self._report(keys, *problem.keys, problem=problem)
            return self._resolver.label(component) if component else ""
        return label(grid_path, value, self._resolver)

    def _report(self, keys: Keys, *below: str | int, problem: Problem) -> None:
        self.problems.append(Problem((*keys, *below), problem.text, problem.remedy))

    def _check_selection(self, key: str, side: Side) -> None:
        """Report a side that selects nothing in its study."""
        table = "of" if key.isdigit() else key  # sides along an axis differ in that key alone
        study = self._studies.get(side.study)
        if study is None:
            keys = self._written_at(table, "study")
            text = (
                f"there is no study '{side.study}'"
                if side.study
                else "is required where there are several studies"
            )
            self.problems.append(Problem(keys, text, nearest(side.study, self._studies)))
            return

        self._check_metric(self._written_at(table, "metric"), side.metric, study)
        self._check_variant(self._place(table, VARIANT), side.variant, study)
        if study.name not in self._chosen:
            keys = self._written_at(table, "study")
            text = f"this run leaves out the study '{study.name}'"
            self._missing.append(Problem(keys, text))
            return
        if not study.cells:
            return  # the faults of the study are reported already
        candidates = [(cell.axes, cell) for cell in study.cells]
        # one axis after the other, so that the one which leaves nothing is reported
        selected: dict[str, str] = {}
        for path, value in side.axes.items():
            selected[path] = value
            if select_combinations(candidates, selected):
                continue
            self._report_missing(self._place(table, path), path, str(value), study)
            return

    def _report_missing(self, keys: Keys, path: str, value: str, study: ExpandedStudy) -> None:
        axes = [axis.path for axis in study.axes]
        if path not in axes:
            text = f"the study '{study.name}' has no axis '{path}'"
            self._missing.append(Problem(keys, text, nearest(path, axes)))
            return
        labels = list(dict.fromkeys(cell.axes[path] for cell in study.cells))
        text = f"the study '{study.name}' has no cell with {path} = {value}"
        self._missing.append(Problem(keys, text, nearest(value, labels)))

    def _written_at(self, key: str, option: str) -> Keys:
        """Return where an option stands: in a side, in `for_each`, or in the claim itself."""
        table = getattr(self._claim, key)
        if isinstance(table, Mapping) and option in table:
            return self._place(key, option)
        return (option,)

    def _check_metric(self, keys: Keys, metric: str, study: ExpandedStudy) -> None:
        if metric in METRICS:
            return
        name, _, figure = metric.partition(".")
        if name == MEASURED:
            if figure not in study.metrics:
                text = f"the study '{study.name}' measures no '{figure}'"
                remedy = nearest(figure, study.metrics) or "name its metrics in evaluate.metrics"
                self.problems.append(Problem(keys, text, remedy))
            return
        offered = self._resolver.offered("analysis")
        if name not in study.analyses:
            text = f"the study '{study.name}' asks for no analysis '{name}'"
            remedy = f"add '{name}' to its analyses" if name in offered else nearest(name, offered)
            self.problems.append(Problem(keys, text, remedy))
            return
        analysis = offered.get(name)
        # an author need not name the figures: then a wrong one shows up in the report only
        figures = analysis.figures if analysis and issubclass(analysis, Analysis) else ()
        if figures and figure not in figures:
            text = f"the analysis '{name}' has no figure '{figure}'"
            self.problems.append(Problem(keys, text, nearest(figure, figures)))

    def _check_variant(self, keys: Keys, variant: str, study: ExpandedStudy) -> None:
        recorded = ["ticket", *study.variants, *study.controls, *study.targets]
        if variant in recorded or not study.cells:
            return
        controls = [control.use for control in self._resolver.offered("control").values()]
        if variant not in controls:
            text = f"there is no variant '{variant}'"
            self.problems.append(Problem(keys, text, nearest(variant, [*recorded, *controls])))
            return
        text = f"the study '{study.name}' has no control '{variant}'"
        self._missing.append(Problem(keys, text, f"add '{variant}' to its controls"))
