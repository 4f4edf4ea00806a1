"""A recipe's claims held against the levels of its run.

Seeds are the sample. Per seed, a side of a claim is the mean of the metric over the levels in the claim's range of
density; a side of several series is the mean of theirs. An order is judged by the paired differences over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from lotteryfw.api.errors import StoreError
from lotteryfw.api.steps import Step
from lotteryfw.report.best import best_rows
from lotteryfw.report.data import RunData
from lotteryfw.report.findings import Findings
from lotteryfw.report.groups import TICKET, Series, Study
from lotteryfw.report.resolved import read_resolved
from lotteryfw.report.stats import Spread
from lotteryfw.report.sweeps import any_density
from lotteryfw.report.units import Unit, percent
from lotteryfw.store import LevelRow, RunFolder

if TYPE_CHECKING:
    from lotteryfw.recipe import Claim

Outcome = Literal["reproduced", "not reproduced", "not tested"]

_TOLERANCE = 1e-9
_STYLES: dict[Outcome, str] = {
    "reproduced": "green",
    "not reproduced": "bold red",
    "not tested": "yellow",
}


@dataclass(frozen=True)
class Verdict:
    """What a run says of a claim. `numbers` are the figures in words; `reason` says why it is not tested.

    `spread` is over seeds, in the metric's own unit: of the difference higher - lower, or of the value itself.
    """

    claim: Claim
    outcome: Outcome
    numbers: str = ""
    reason: str = ""
    spread: Spread | None = None

    @property
    def tested(self) -> str:
        """What was held against what, and where: the claim as its recipe says it."""
        return _tested(self.claim)

    @property
    def told(self) -> str:
        """Reason and numbers in one line; empty where there is neither."""
        return "; ".join(part for part in (self.reason, self.numbers) if part)


def check_claims(run: RunFolder | RunData) -> list[Verdict]:
    """A verdict for each claim of the run's recipe, in order. Raises StoreError where a file cannot be read.

    - An order (`higher`, `lower`) is reproduced where the mean difference is above 0 and, over two seeds or more, its
      95 % interval excludes 0. One seed does not test it.
    - A value (`of`, `expect`) is reproduced where the mean lies within `tolerance`, or keeps `at_least` or `at_most`.
    - A likeness (`of`, `like`) is reproduced where the mean difference lies within `tolerance`.
    - Only cells that ran to their end count, so a half-finished run or one that diverged does not tilt a comparison.
    """
    data = RunData.of(run)
    resolved, claims = _read(data.folder)
    studies = {study.name: study for study in data.studies}
    finished = {cell for cell, status in data.manifest.get("cells", {}).items() if status == "done"}
    lengths = {
        str(study["name"]): Step.parse(study["train"]["length"])
        for study in resolved.get("study", [])
        if "length" in study.get("train", {})
    }
    found = data.findings_of(claim.metric for claim in claims)
    return [
        _verdict(claim, studies.get(claim.study), finished, lengths.get(claim.study), found)
        for claim in claims
    ]


def claims_table(verdicts: Sequence[Verdict], width: int = 100) -> Table:
    """The verdicts for a terminal, in at most `width` columns."""
    table = Table(
        title="Claims", title_justify="left", title_style="bold", show_lines=True, width=width
    )
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=3)
    table.add_column("this run", ratio=2)
    for verdict in verdicts:
        said = Text(verdict.claim.text).append(f"\n{verdict.claim.source}", style="dim")
        table.add_row(
            Text(verdict.outcome, style=_STYLES[verdict.outcome]), said, Text(verdict.told)
        )
    return table


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown list."""
    return "\n".join(
        f"- **{verdict.outcome}**: {verdict.claim.text} ({verdict.claim.source}). {verdict.told}"
        for verdict in verdicts
    )


def select(study: Study, selector: Mapping[str, Any]) -> list[Series]:
    """The combinations that a claim's selector means: those whose every named axis has that label; `variant` is the ticket.

    A component means the combinations of exactly its label. Where there are none, it means the sweep over densities of
    that label, and then, by its bare name, the component whatever its options are. Of a sweep, each search counts with
    the level that it ended at.
    """
    from lotteryfw.recipe.claims import ARM
    from lotteryfw.recipe.resolve import label_of

    chosen = [series for series in study.parts if series.variant == selector.get(ARM, TICKET)]
    for axis, value in selector.items():
        if axis == ARM:
            continue
        label = label_of(value)
        for reading in (str, any_density, _bare_name):
            meant = [
                series
                for series in chosen
                if axis in series.axes and reading(series.axes[axis]) == label
            ]
            if meant:
                break
        chosen = meant
    return chosen


def _bare_name(label: str) -> str:
    return label.partition("(")[0]


def _read(folder: RunFolder) -> tuple[dict[str, Any], list[Claim]]:
    from lotteryfw.recipe import Claim  # here, because it brings all of the recipe language along

    resolved = read_resolved(folder)
    try:
        return resolved, [Claim.model_validate(table) for table in resolved.get("claim", [])]
    except ValueError as error:
        raise StoreError(f"{folder.path / 'resolved.toml'}: cannot be read: {error}") from error


def _verdict(
    claim: Claim, study: Study | None, finished: set[str], length: Step | None, found: Findings
) -> Verdict:
    if study is None:
        return Verdict(claim, "not tested", reason=f"study '{claim.study}' has no results")
    sides: list[dict[int, float]] = []
    for selector in claim.selectors().values():
        chosen = select(study, selector)
        if not chosen:
            return Verdict(claim, "not tested", reason=f"this run has no {_words(selector)}")
        if claim.needs_length and (reason := _too_short(claim.needs_length, chosen, length)):
            return Verdict(claim, "not tested", reason=reason)
        side = _by_seed(chosen, claim, finished, found)
        if not side:
            reason = f"no finished cell of {_words(selector)} has a level at {_range(claim)}"
            if any(point.diverged for series in chosen for point in series.points):
                reason += ", as trainings diverged"
            return Verdict(claim, "not tested", reason=reason)
        sides.append(side)
    unit = found.unit(claim.metric)
    return _value(claim, unit, *sides) if len(sides) == 1 else _order(claim, unit, *sides)


def _by_seed(
    chosen: Sequence[Series], claim: Claim, finished: set[str], found: Findings
) -> dict[int, float]:
    """A side's value for each seed in which all of its series ran to their end, without a training that diverged."""
    lowest, highest = claim.density[0] - _TOLERANCE, claim.density[1] + _TOLERANCE
    sides: list[dict[int, list[float]]] = []
    for series in chosen:
        points = [point for point in series.points if lowest <= point.density <= highest]
        if not points and series.cells <= finished:
            continue  # it ended elsewhere, as searches of a sweep over densities do
        lost = {row.seed for point in points for row in point.diverged}
        rows = [
            row
            for point in points
            for row in point.rows
            if row.cell in finished and row.seed not in lost
        ]
        values: dict[int, list[float]] = {}
        for row in best_rows(rows) if claim.at == "best level" else rows:
            figure = _figure(row, claim.metric, found)
            if figure is not None:
                values.setdefault(row.seed, []).append(figure)
        sides.append(values)
    seeds = sorted(set.intersection(*map(set, sides))) if sides else []
    return {seed: fmean(fmean(values[seed]) for values in sides) for seed in seeds}


def _figure(row: LevelRow, metric: str, found: Findings) -> float | None:
    if "." in metric:
        return found.number(row, metric)
    value: float | None = getattr(row, metric)
    return value


def _order(
    claim: Claim, unit: Unit, higher: Mapping[int, float], lower: Mapping[int, float]
) -> Verdict:
    """Two selections compared: which is higher or, with a tolerance, whether they are alike."""
    seeds = sorted(higher.keys() & lower.keys())
    if not seeds:
        return Verdict(claim, "not tested", reason="no seed is finished on both sides")
    spread = Spread.of([higher[seed] - lower[seed] for seed in seeds])
    means = [unit.number(fmean(side[seed] for seed in seeds)) for side in (higher, lower)]
    numbers = (
        f"{means[0]} against {means[1]}{unit.suffix}: {_figures(unit, spread, '+', unit.apart)}"
    )
    if claim.tolerance is not None:
        close = abs(spread.mean) <= claim.tolerance + _TOLERANCE
        wanted = f"{numbers}; alike within {unit.number(claim.tolerance)}{unit.apart}"
        return Verdict(claim, "reproduced" if close else "not reproduced", wanted, spread=spread)
    interval = spread.interval()
    if interval is None:
        return Verdict(
            claim, "not tested", numbers, "one seed gives no confidence interval", spread
        )
    return Verdict(
        claim, "reproduced" if interval[0] > 0 else "not reproduced", numbers, spread=spread
    )


def _value(claim: Claim, unit: Unit, side: Mapping[int, float]) -> Verdict:
    spread = Spread.of(list(side.values()))
    if claim.at_least is not None:
        holds = spread.mean >= claim.at_least - _TOLERANCE
        wanted = f"expected {unit.number(claim.at_least)}{unit.suffix} or more"
    elif claim.at_most is not None:
        holds = spread.mean <= claim.at_most + _TOLERANCE
        wanted = f"expected {unit.number(claim.at_most)}{unit.suffix} or less"
    else:
        assert claim.expect is not None, "the form of a value claim"
        assert claim.tolerance is not None, "the form of a value claim"
        holds = abs(spread.mean - claim.expect) <= claim.tolerance + _TOLERANCE
        wanted = (
            f"expected {unit.number(claim.expect)} ± {unit.number(claim.tolerance)}{unit.suffix}"
        )
    numbers = f"{_figures(unit, spread, '', unit.suffix)}; {wanted}"
    return Verdict(claim, "reproduced" if holds else "not reproduced", numbers, spread=spread)


def _figures(unit: Unit, spread: Spread, sign: str, suffix: str) -> str:
    text = f"{unit.spread(spread, sign)}{suffix}, {spread.n} seed{'s' if spread.n > 1 else ''}"
    if interval := spread.interval():
        text += (
            f", 95 % interval {unit.number(interval[0], sign)} to {unit.number(interval[1], sign)}"
        )
    return text


def _too_short(needed: Step, chosen: Sequence[Series], said: Step | None) -> str:
    """Why these trainings are too short, or nothing.

    A length in steps is compared with the longest training of each series (a rewound round is shorter than the whole),
    one in epochs with what the recipe says, because a run does not record how many steps an epoch has.
    """
    lengths = []
    for series in chosen:
        own = Step.parse(series.axes["train.length"]) if "train.length" in series.axes else said
        steps = Step(Fraction(max((row.steps for row in series.rows), default=0)), "it")
        lengths.append(own if own and own.unit == needed.unit != "it" else steps)
    shortest = min(lengths, key=lambda each: (each.unit == needed.unit, each.amount))
    if shortest.unit != needed.unit:
        return f"not at this length, as far as is known: needs {needed}, this run has {shortest}"
    if shortest.amount < needed.amount:
        return f"not at this length: needs {needed}, this run has {shortest}"
    return ""


def _words(selector: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in selector.items()) or TICKET


def _tested(claim: Claim) -> str:
    """The claim's own terms in a line."""
    metric = claim.metric.replace("_", " ")
    sides = {name: _words(selector) for name, selector in claim.selectors().items()}
    if "higher" in sides:
        said = f"{metric}: {sides['higher']} above {sides['lower']}"
    elif "like" in sides:
        said = f"{metric}: {sides['of']} like {sides['like']}, give or take {claim.tolerance:g}"
    elif claim.at_least is not None:
        said = f"{metric}: {sides['of']} at {claim.at_least:g} or more"
    elif claim.at_most is not None:
        said = f"{metric}: {sides['of']} at {claim.at_most:g} or less"
    else:
        said = f"{metric}: {sides['of']} at {claim.expect:g}, give or take {claim.tolerance:g}"
    where = [f"study {claim.study}", "all levels" if claim.density == [0, 1] else _range(claim)]
    if claim.at != "every level":
        where.append(f"the {claim.at} of each seed")
    if claim.needs_length is not None:
        where.append(f"trainings of {claim.needs_length} or more")
    return " · ".join([said, *where])


def _range(claim: Claim) -> str:
    """The densities that a claim is about."""
    low, high = map(percent, claim.density)
    return f"{low} % of the weights" if low == high else f"{low} to {high} % of the weights"
