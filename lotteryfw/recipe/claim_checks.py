"""Checks a recipe's claims against its studies, and writes them out as cells are labelled.

A claim that names something that does not exist is a mistake in the recipe. What exists, but not in
this version of the recipe, because a profile or `--set` left it out, makes the claim untested.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Set
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
)
from lotteryfw.recipe.expand import ExpandedStudy
from lotteryfw.recipe.grid_values import label
from lotteryfw.recipe.layered_table import Keys
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import SLOTS

_SHARES = ("density", "rate")
"""Last parts of keys whose values a claim's text shows in per cent."""
_IN_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class RepeatedClaim:
    """A claim with one combination of its `for_each`.

    `indices` are those of the chosen values, in the order of `for_each`. `places` says by side and
    key where each of them stands.
    """

    claim: Claim
    indices: tuple[int, ...]
    places: Mapping[tuple[str, str], Keys]


def repeat_claim(claim: Claim) -> Iterator[RepeatedClaim]:
    """Yield the claim for each combination of its `for_each`; itself, if it has none."""
    taken = {side: _taken(claim, side) for side in claim.side_tables()}
    for indices in product(*(range(len(values)) for values in claim.for_each.values())):
        chosen = dict(zip(claim.for_each, indices, strict=True))
        text = claim.text
        for name, index in chosen.items():
            text = text.replace("{" + name + "}", _in_words(name, claim.for_each[name][index]))

        update: dict[str, Any] = {"text": text, "for_each": {}}
        places: dict[tuple[str, str], Keys] = {}
        for side, table in claim.side_tables().items():
            values = {}
            for path, name in taken[side].items():
                values[path] = claim.for_each[name][chosen[name]]
                places[side, path] = ("for_each", name, chosen[name])
            update[side] = values | dict(table)
        yield RepeatedClaim(claim.model_copy(update=update), indices, places)


def _taken(claim: Claim, side: str) -> dict[str, str]:
    """Return the keys that a side has from `for_each`, each with what it is called there."""
    written = set(claim.side_tables()[side])  # what a side says itself counts
    if side == "of" and claim.rises_along:
        written |= claim.rises_along.keys()
    taken = {}
    for name in claim.for_each:
        first, _, rest = name.partition(".")
        path = rest if first in SIDES else name
        is_of_another = first in SIDES and first != side
        is_given_alone = first not in SIDES and f"{side}.{path}" in claim.for_each
        if not (is_of_another or is_given_alone or path in written):
            taken[path] = name
    return taken


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
    inherited: bool,
) -> tuple[list[Claim], list[Problem]]:
    """Return the claims that one entry of a recipe makes, as cells are labelled, and its problems.

    `chosen` names the studies that run. `whole` says that no profile, no `--set` and no `--study`
    made the recipe smaller: then every side has to select cells. `inherited` says that it stands in
    an extended recipe, whose studies this one may replace.
    """
    claims = []
    problems: dict[Problem, None] = dict.fromkeys(_repetition_problems(claim))
    is_repeated_well = not problems
    # by the sides of each claim, the combination that made it
    made: dict[Hashable, tuple[int, ...]] = {}
    for repeated in repeat_claim(claim):
        check = _ClaimCheck(repeated, studies, chosen, resolver, inherited)
        resolved = check.resolve(whole)
        claims.append(resolved)
        problems |= dict.fromkeys(check.problems)
        if is_repeated_well and not check.problems:
            sides = tuple(map(_comparable, resolved.sides().values()))
            earlier = made.setdefault(sides, repeated.indices)
            if earlier != repeated.indices:
                problems[_repetition(claim, earlier, repeated.indices)] = None
    return claims, list(problems)


def _repetition_problems(claim: Claim) -> list[Problem]:
    """Return what is wrong with a claim's `for_each`, whatever its values are."""
    taken: set[str] = set()
    for side in claim.side_tables():
        taken |= set(_taken(claim, side).values())
    problems = []
    for name in claim.for_each:
        if name not in taken:
            # the same claim would be there several times, and count as several tests
            text = "has no effect: no side of the claim takes it"
            problems.append(Problem(("for_each", name), text, "what a side says itself counts"))
    if claim.for_each:
        for name in dict.fromkeys(_IN_BRACES.findall(claim.text)):
            if name not in claim.for_each:
                text = "{" + name + "} is no key of `for_each`"
                problems.append(Problem(("text",), text, nearest(name, claim.for_each)))
    return problems


def _repetition(claim: Claim, earlier: tuple[int, ...], later: tuple[int, ...]) -> Problem:
    """Return the problem of two combinations of `for_each` that make the same claim."""
    chosen = zip(claim.for_each, earlier, later, strict=True)
    name, first, second = next(one for one in chosen if one[1] != one[2])
    return Problem(("for_each", name, second), f"is the same as for_each.{name}[{first}]")


def _comparable(side: Side) -> Hashable:
    """Return what is equal for sides that mean the same cells, levels and figure."""
    axes = tuple(sorted(side.axes.items()))
    return side.study, side.metric, side.density, side.at, side.variant, axes


class _ClaimCheck:
    """The check of one claim; `problems` are its mistakes."""

    def __init__(
        self,
        repeated: RepeatedClaim,
        studies: Mapping[str, ExpandedStudy],
        chosen: Set[str],
        resolver: ComponentResolver,
        inherited: bool,
    ):
        self.problems: list[Problem] = []
        self._claim = repeated.claim
        self._places = repeated.places
        self._studies = studies
        self._chosen = chosen
        self._resolver = resolver
        self._inherited = inherited
        self._missing: list[Problem] = []

    def resolve(self, whole: bool) -> Claim:
        """Return the claim with its study filled in and with the labels of cells."""
        if not self._claim.study and len(self._studies) == 1:
            update = {"study": next(iter(self._studies))}
            self._claim = self._claim.model_copy(update=update)

        resolved: dict[str, Any] = {}
        for key, table in self._claim.side_tables().items():
            resolved[key] = {}
            for path, value in table.items():
                resolved[key][path] = self._resolve_value(self._place(key, path), path, value)
        if self._claim.rises_along is not None:
            [(path, values)] = self._claim.rises_along.items()
            labels = []
            for index, value in enumerate(values):
                labels.append(self._resolve_value(("rises_along", path, index), path, value))
            resolved["rises_along"] = {path: labels}
            if path in resolved["of"]:
                text = "has no effect: `rises_along` has the key, too"
                self.problems.append(Problem(self._place("of", path), text, "leave it out"))

        claim = self._claim.model_copy(update=resolved)
        if self.problems or claim.untested:
            return claim
        self._check_different(claim.sides())
        for key, side in claim.sides().items():
            self._check_selection(key, side)
        if self._missing and (self._inherited or not whole):
            # this version of the recipe leaves out what the claim is about, which is no mistake
            return claim.model_copy(update={"untested": self._missing[0].text})
        self.problems += self._missing
        return claim

    def _place(self, key: str, path: str) -> Keys:
        """Return where a side's value stands: in its table, or in a list of values.

        The sides of `rises_along` are called "1", "2", … and differ in its key alone.
        """
        if key.isdigit():
            if self._claim.rises_along and path in self._claim.rises_along:
                return "rises_along", path, int(key) - 1
            key = "of"
        return self._places.get((key, path), (key, path))

    def _resolve_value(self, keys: Keys, path: str, value: Any) -> Any:
        """Return the value of a side's key; that of an axis as cells are labelled."""
        if value is None:  # in a list of a recipe from Python
            self.problems.append(Problem(keys, "must be a value, got None"))
            return ""
        if path not in SideOptions.model_fields:
            return self._label(keys, path, value)
        _, problems = self._resolver.table(SideOptions, {path: value})
        for problem in problems:
            self._report(keys, *problem.keys[1:], problem=problem)
        return value

    def _check_different(self, sides: Mapping[str, Side]) -> None:
        """Report a side that is the same as another one: no run could decide such a claim."""
        seen: dict[Hashable, str] = {}
        for key, side in sides.items():
            other = seen.setdefault(_comparable(side), key)
            if other == key:
                continue
            if self._claim.rises_along:
                [path] = self._claim.rises_along
                text = f"is the same as rises_along.{path}[{int(other) - 1}]"
                self.problems.append(Problem(self._place(key, path), text))
                continue
            # a repetition may have made them equal
            keys: Keys = (key,)
            for (of_side, _), in_list in self._places.items():
                if of_side == key:
                    keys = in_list
            self.problems.append(Problem(keys, f"is the same side as `{other}`"))

    def _label(self, keys: Keys, path: str, value: Any) -> Any:
        """Return the value of an axis as cells are labelled."""
        grid_path: Keys = tuple(path.split("."))
        fault = check_grid_path(grid_path, also=SideOptions.model_fields)
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
        study = self._studies.get(side.study)
        if study is None:
            keys = self._written_at(key, "study")
            text = (
                f"there is no study '{side.study}'"
                if side.study
                else "is required where there are several studies"
            )
            # its recipe has the study, which this one replaces
            problems = self._missing if self._inherited else self.problems
            problems.append(Problem(keys, text, nearest(side.study, self._studies)))
            return

        self._check_metric(self._written_at(key, "metric"), side.metric, study)
        self._check_variant(self._place(key, VARIANT), side.variant, study)
        if study.name not in self._chosen:
            keys = self._written_at(key, "study")
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
            self._report_missing(self._place(key, path), path, str(value), study)
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
        """Return where an option stands: in a side, in a list of values, or in the claim itself."""
        table = getattr(self._claim, "of" if key.isdigit() else key)
        along = self._claim.rises_along or {}
        return self._place(key, option) if option in table or option in along else (option,)

    def _check_metric(self, keys: Keys, metric: str, study: ExpandedStudy) -> None:
        # a study without cells has faults, which are reported already
        if metric in METRICS or not study.cells:
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
