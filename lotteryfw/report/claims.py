"""A recipe's claims held against the levels of its run.

Seeds are the sample. Per seed, a side of a claim is the mean of the metric over the levels in the claim's range of
density; a side of several series is the mean of theirs. An order is judged by the paired differences over seeds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from lotteryfw.errors import StoreError
from lotteryfw.report.groups import TICKET, Series, Study, studies_of
from lotteryfw.report.stats import Spread
from lotteryfw.report.units import percent, unit_of
from lotteryfw.steps import Step
from lotteryfw.store import RunFolder

if TYPE_CHECKING:
    from lotteryfw.recipe import Claim

Outcome = Literal["reproduced", "not reproduced", "not tested"]

_TOLERANCE = 1e-9
_STYLES: dict[Outcome, str] = {"reproduced": "green", "not reproduced": "bold red", "not tested": "yellow"}


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


def check_claims(folder: RunFolder) -> list[Verdict]:
    """A verdict for each claim of the run's recipe, in order. Raises StoreError where a file cannot be read.

    - An order (`higher`, `lower`) is reproduced where the mean difference is above 0 and, over two seeds or more, its
      95 % interval excludes 0. One seed does not test it.
    - A value (`of`, `expect`) is reproduced where the mean lies within `tolerance`.
    - Only cells that ran to their end count, so a half-finished run or one that diverged does not tilt a comparison.
    """
    resolved, claims = _read(folder)
    studies = {study.name: study for study in studies_of(folder.read_levels())}
    finished = {cell for cell, status in folder.read_manifest().get("cells", {}).items() if status == "done"}
    lengths = {
        str(study["name"]): Step.parse(study["train"]["length"])
        for study in resolved.get("study", [])
        if "length" in study.get("train", {})
    }
    return [_verdict(claim, studies.get(claim.study), finished, lengths.get(claim.study)) for claim in claims]


def claims_table(verdicts: Sequence[Verdict], width: int = 100) -> Table:
    """The verdicts for a terminal, in at most `width` columns."""
    table = Table(title="Claims", title_justify="left", title_style="bold", show_lines=True, width=width)
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", ratio=3)
    table.add_column("this run", ratio=2)
    for verdict in verdicts:
        said = Text(verdict.claim.text).append(f"\n{verdict.claim.source}", style="dim")
        table.add_row(Text(verdict.outcome, style=_STYLES[verdict.outcome]), said, _told(verdict))
    return table


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown list."""
    return "\n".join(
        f"- **{verdict.outcome}**: {verdict.claim.text} ({verdict.claim.source}). {_told(verdict)}"
        for verdict in verdicts
    )


def select(study: Study, selector: Mapping[str, Any]) -> list[Series]:
    """The series that a claim's selector means: those whose every named axis has that label; `arm` is the ticket.

    A bare component name means the series of exactly that label, which is the component with its default options. Only
    where no series has that label it means the component whatever its options are.
    """
    from lotteryfw.recipe.claims import ARM
    from lotteryfw.recipe.slots import label_of

    chosen = [series for series in study.series if series.arm == selector.get(ARM, TICKET)]
    for axis, value in selector.items():
        if axis == ARM:
            continue
        label = label_of(value)
        exact = [series for series in chosen if series.axes.get(axis) == label]
        chosen = exact or [series for series in chosen if series.axes.get(axis, "").partition("(")[0] == label]
    return chosen


def _told(verdict: Verdict) -> str:
    return "; ".join(part for part in (verdict.reason, verdict.numbers) if part)


def _read(folder: RunFolder) -> tuple[dict[str, Any], list[Claim]]:
    from lotteryfw.recipe import Claim  # here, because it brings all of the recipe language along

    path = folder.path / "resolved.toml"
    try:
        resolved = tomllib.loads(path.read_text("utf-8"))
        return resolved, [Claim.model_validate(table) for table in resolved.get("claim", [])]
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def _verdict(claim: Claim, study: Study | None, finished: set[str], length: Step | None) -> Verdict:
    if study is None:
        return Verdict(claim, "not tested", reason=f"study '{claim.study}' has no results")
    sides: list[dict[int, float]] = []
    for selector in claim.selectors().values():
        chosen = select(study, selector)
        if not chosen:
            return Verdict(claim, "not tested", reason=f"this run has no {_words(selector)}")
        if claim.needs_length and (reason := _too_short(claim.needs_length, chosen, length)):
            return Verdict(claim, "not tested", reason=reason)
        side = _by_seed(chosen, claim, finished)
        if not side:
            low, high = map(percent, claim.density)
            where = f"between {low} and {high} % of the weights"
            return Verdict(claim, "not tested", reason=f"no finished cell of {_words(selector)} has a level {where}")
        sides.append(side)
    return _value(claim, *sides) if claim.expect is not None else _order(claim, *sides)


def _by_seed(chosen: Sequence[Series], claim: Claim, finished: set[str]) -> dict[int, float]:
    """A side's value for each seed in which all of its series ran to their end, without a training that diverged."""
    lowest, highest = claim.density[0] - _TOLERANCE, claim.density[1] + _TOLERANCE
    found: list[dict[int, list[float]]] = []
    for series in chosen:
        points = [point for point in series.points if lowest <= point.density <= highest]
        lost = {row.seed for point in points for row in point.diverged}
        values: dict[int, list[float]] = {}
        for row in (row for point in points for row in point.rows):
            figure = getattr(row, claim.metric)
            if row.cell in finished and row.seed not in lost and figure is not None:
                values.setdefault(row.seed, []).append(figure)
        found.append(values)
    seeds = sorted(set.intersection(*map(set, found)))
    return {seed: fmean(fmean(values[seed]) for values in found) for seed in seeds}


def _order(claim: Claim, higher: Mapping[int, float], lower: Mapping[int, float]) -> Verdict:
    seeds = sorted(higher.keys() & lower.keys())
    if not seeds:
        return Verdict(claim, "not tested", reason="no seed is finished on both sides")
    unit = unit_of(claim.metric)
    spread = Spread.of([higher[seed] - lower[seed] for seed in seeds])
    means = [unit.number(fmean(side[seed] for seed in seeds)) for side in (higher, lower)]
    numbers = f"{means[0]} against {means[1]}{unit.suffix}: {_figures(claim, spread, '+', unit.apart)}"
    interval = spread.interval()
    if interval is None:
        return Verdict(claim, "not tested", numbers, "one seed gives no confidence interval", spread)
    return Verdict(claim, "reproduced" if interval[0] > 0 else "not reproduced", numbers, spread=spread)


def _value(claim: Claim, side: Mapping[int, float]) -> Verdict:
    assert claim.expect is not None, "the form of a value claim"
    assert claim.tolerance is not None, "the form of a value claim"
    unit, spread = unit_of(claim.metric), Spread.of(list(side.values()))
    close = abs(spread.mean - claim.expect) <= claim.tolerance + _TOLERANCE
    wanted = f"expected {unit.number(claim.expect)} ± {unit.number(claim.tolerance)}{unit.suffix}"
    numbers = f"{_figures(claim, spread, '', unit.suffix)}; {wanted}"
    return Verdict(claim, "reproduced" if close else "not reproduced", numbers, spread=spread)


def _figures(claim: Claim, spread: Spread, sign: str, suffix: str) -> str:
    unit = unit_of(claim.metric)
    text = f"{unit.spread(spread, sign)}{suffix}, {spread.n} seed{'s' if spread.n > 1 else ''}"
    if interval := spread.interval():
        text += f", 95 % interval {unit.number(interval[0], sign)} to {unit.number(interval[1], sign)}"
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
