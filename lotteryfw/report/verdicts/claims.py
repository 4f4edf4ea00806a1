"""The claims of a recipe, judged by the levels of its run.

Seeds are the sample. For each seed, a side of a claim is the mean of the metric over the side's
levels, and over its series. Two sides are compared by their differences, paired by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lotteryfw.api.errors import StoreError
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.units import FIGURE, metric_name
from lotteryfw.report.verdicts.claim_sides import (
    SideValues,
    at_shared_levels,
    density_text,
    side_text,
    side_values,
    too_short,
)
from lotteryfw.report.verdicts.claim_tests import ClaimTest, run_test, value_text
from lotteryfw.report.verdicts.estimate import FEWEST_SEEDS, MOST_SEEDS, Estimate, holm_levels
from lotteryfw.report.verdicts.evidence import Evidence, NotTested
from lotteryfw.store import RunFolder

if TYPE_CHECKING:
    from lotteryfw.recipe import Claim, Side

ClaimOutcome = Literal["supported", "contradicted", "undecided", "not tested"]


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict of a run on a claim.

    `numbers` are the figures in words, `ours` the one that is judged, `published` the paper's;
    `reason` says why the claim is not tested or undecided, and how it was corrected. `estimate` is
    in the metric's own unit. `levels` are those that the figures are of, in words, `diverged` the
    seeds that are left out because a training diverged. `steps` is the length of the longest
    training, `figure` the name of the figure that the objective reports.
    """

    claim: Claim
    outcome: ClaimOutcome
    numbers: str = ""
    reason: str = ""
    estimate: Estimate | None = None
    ours: str = ""
    published: str = ""
    levels: str = ""
    diverged: tuple[int, ...] = ()
    steps: int = 0
    figure: str = FIGURE

    @property
    def tested(self) -> str:
        """The comparison and where it is made: the claim in the words of its recipe."""
        return _tested(self.claim, self.figure)

    @property
    def measured(self) -> str:
        """The metric and the levels that it is of: "early test accuracy, 21.1 % of the weights"."""
        sides = self.claim.sides().values()
        metrics = dict.fromkeys(metric_name(side.metric, self.figure) for side in sides)
        return ", ".join(filter(None, (" and ".join(metrics), self.levels)))

    @property
    def explanation(self) -> str:
        """Reason and numbers in one line; empty if there is neither."""
        return "; ".join(filter(None, (self.reason, self.numbers)))

    @property
    def seeds(self) -> int:
        """The number of seeds that the verdict is made of."""
        return self.estimate.spread.n if self.estimate else 0


def check_claims(
    run: RunFolder | RunData, claims: Sequence[Claim] | None = None
) -> list[ClaimVerdict]:
    """Return a verdict for each claim, in order: those of the run's recipe, or `claims`.

    The verdicts are those of `lotteryfw.report.verdicts.estimate`, at an error rate of 2.5 % to
    either side; claims of one family share it by Holm's method. A claim is not tested if the run
    has no values for it, or if its trainings were shorter than `needs_length`; in the latter case
    it has its numbers all the same. Only cells that have ended count, and of a claim about several
    searches each has to have some, so that a half-finished run does not bias a comparison. A seed
    with a training that diverged is left out, and nothing is decided by the others: those that did
    not diverge are no fair sample.

    Raises StoreError if a file cannot be read.
    """
    data = RunData.of(run)
    if claims is None:
        claims = _read_claims(data)
    evidence = Evidence.of(data, _metrics(claims))
    verdicts = []
    for claim in claims:
        figure = _figure(claim, evidence)
        verdicts.append(replace(_measured(claim, evidence), figure=figure))
    return _judged(verdicts)


def _read_claims(data: RunData) -> list[Claim]:
    from lotteryfw.recipe import Claim  # here, because it imports the whole recipe language

    try:
        return [Claim.model_validate(table) for table in data.resolved.get("claim", [])]
    except ValueError as error:
        path = data.folder.path / "resolved.toml"
        raise StoreError(f"{path}: cannot be read: {error}") from error


def _metrics(claims: Iterable[Claim]) -> list[str]:
    metrics: dict[str, None] = {}
    for claim in claims:
        metrics |= dict.fromkeys(side.metric for side in claim.sides().values())
    return list(metrics)


def _measured(claim: Claim, evidence: Evidence) -> ClaimVerdict:
    """Return the claim with its estimate; whether it is supported is judged with its family."""
    # the paper's figure is shown of every claim, tested or not
    published = _published(claim, evidence)
    if claim.untested:
        return ClaimVerdict(claim, "not tested", reason=claim.untested, published=published)
    values: dict[str, SideValues] = {}
    try:
        for key, side in claim.sides().items():
            values[key] = side_values(side, evidence)
        values = at_shared_levels(values)
        test = run_test(claim, values, evidence.findings)
    except NotTested as error:
        return ClaimVerdict(claim, "not tested", reason=str(error), published=published)

    diverged: set[int] = set()
    levels: dict[str, None] = {}
    for side_value in values.values():
        diverged |= side_value.diverged
        levels[side_value.levels_text] = None
    verdict = ClaimVerdict(
        claim,
        "undecided",
        numbers=_with_level(claim, test, values),
        estimate=test.estimate.withheld() if diverged else test.estimate,
        ours=test.ours,
        published=published,
        levels=" and ".join(levels),
        diverged=tuple(sorted(diverged)),
        # the longest training of all sides, to tell a quick run from one of the paper's length
        steps=max(side.steps for side in values.values()),
    )
    if claim.needs_length is not None:
        for side_value in values.values():
            reason = too_short(claim.needs_length, side_value, evidence)
            # A short training may contradict a paper that trained for longer, and that would be
            # no contradiction. The numbers are kept for people.
            if reason:
                return replace(verdict, outcome="not tested", reason=reason)
    return verdict


def _figure(claim: Claim, evidence: Evidence) -> str:
    """Return what the objectives of the claim's studies call their figure."""
    figures: dict[str, None] = {}
    for side in claim.sides().values():
        study = evidence.studies.get(side.study)
        figures[study.series.figure if study else FIGURE] = None
    return " or ".join(figures)


def _published(claim: Claim, evidence: Evidence) -> str:
    if claim.published:
        return claim.published
    # only a claim about a value has a text here, and it has one side
    side = next(iter(claim.sides().values()))
    return value_text(claim, evidence.findings.unit(side.metric))


def _with_level(claim: Claim, test: ClaimTest, values: dict[str, SideValues]) -> str:
    """Return a test's numbers, with the level that the validation set chose for each side."""
    from lotteryfw.report.data.units import density_range

    chosen = []
    for side in values.values():
        if side.side.at == "best level":
            chosen.append(f"{density_range(side.densities)} %")
    if not chosen:
        return test.numbers
    return f"{test.numbers}; at {' and '.join(chosen)} of the weights, chosen by validation"


def _judged(verdicts: Sequence[ClaimVerdict]) -> list[ClaimVerdict]:
    """Return the verdicts with outcomes, those of each family corrected for their number."""
    families: dict[str, list[int]] = {}
    for index, verdict in enumerate(verdicts):
        if verdict.claim.family and verdict.outcome != "not tested" and verdict.estimate:
            families.setdefault(verdict.claim.family, []).append(index)

    judged = [_outcome(verdict, "") for verdict in verdicts]
    # the members of families are judged again, all members of one together
    for family, indices in families.items():
        p_values = []
        for index in indices:
            estimate = verdicts[index].estimate
            p_values.append(estimate.p if estimate else None)
        # claims with too few seeds for a p-value are no tests, and cost the others nothing
        count = len(p_values) - p_values.count(None)
        for index, level in zip(indices, holm_levels(p_values), strict=True):
            estimate = verdicts[index].estimate
            assert estimate is not None, "members of a family have estimates"
            note = f"one of {count} of the family '{family}', corrected by Holm"
            corrected = replace(verdicts[index], estimate=estimate.at_level(level))
            judged[index] = _outcome(corrected, note if count > 1 else "")
    return judged


def _outcome(verdict: ClaimVerdict, note: str) -> ClaimVerdict:
    if verdict.outcome == "not tested" or verdict.estimate is None:
        return verdict
    decision = verdict.estimate.decision
    reason = ""
    if verdict.diverged:
        reason = f"left out, as trainings diverged: {_seeds_text(verdict.diverged)}"
    elif decision == "undecided":
        reason = undecided_reason(verdict.estimate)
    return replace(verdict, outcome=decision, reason="; ".join(filter(None, (reason, note))))


def _seeds_text(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def undecided_reason(estimate: Estimate) -> str:
    """Return why an estimate does not decide, with the number of seeds that would."""
    seeds = estimate.spread.n
    if seeds < FEWEST_SEEDS:
        plural = "s do" if seeds > 1 else " does"
        return f"{seeds} seed{plural} not decide: at least {FEWEST_SEEDS} do"
    if estimate.p_supported is None:
        return "the figure of a seed is not a finite number"
    needed = estimate.seeds_to_decide()
    if estimate.spread.sd == 0:
        return "no seed differs, so that more of them would not decide"
    if needed is None:
        return f"at this spread more than {MOST_SEEDS:,} seeds would decide"
    return f"at this spread {needed} seeds would decide"


def _tested(claim: Claim, figure: str) -> str:
    """Return the claim's own terms in a line."""
    sides = list(claim.sides().values())
    parts = [_comparison(claim, figure)]
    for text in (_shared(sides, _study_text), _shared(sides, density_text), _shared(sides, _at)):
        if text:
            parts.append(text)
    if claim.needs_length is not None:
        parts.append(f"trainings of {claim.needs_length} or more")
    if claim.tolerance_reason:
        parts.append(f"tolerance: {claim.tolerance_reason}")
    if claim.family:
        parts.append(f"family {claim.family}")
    return " · ".join(parts)


def _study_text(side: Side) -> str:
    return f"study {side.study}"


def _at(side: Side) -> str:
    return "" if side.at == "every level" else f"the {side.at}"


def _shared(sides: Sequence[Side], text: Any) -> str:
    """Return what a text says of all sides, or of one after the other where they differ."""
    texts = filter(None, map(text, sides))
    return " and ".join(dict.fromkeys(texts))


def _comparison(claim: Claim, figure: str) -> str:
    metrics, words = {}, {}
    for key, side in claim.sides().items():
        metrics[key] = metric_name(side.metric, figure)
        words[key] = side_text(side)
    for key, verb in (("rises_with", "rises"), ("falls_with", "falls")):
        if key in words:
            return f"{metrics[key]} {verb} with {metrics['of']}: {words['of']}"
    metric, *others = dict.fromkeys(metrics.values())
    if claim.rises_along is not None:
        [(key, values)] = claim.rises_along.items()
        text = f"rises along {key} {', '.join(map(str, values))}"
        return text if others else f"{metric}: {text}"
    if others:
        for key, name in metrics.items():
            words[key] = f"{name} of {words[key]}"
        return _compared(claim, words)
    return f"{metric}: {_compared(claim, words)}"


def _compared(claim: Claim, words: Mapping[str, str]) -> str:
    """Return how the sides of a claim, in these words, or the side and a value compare."""
    if "higher" in words and claim.tolerance is not None:
        return f"{words['higher']} no more than {claim.tolerance:g} below {words['lower']}"
    if "higher" in words:
        return f"{words['higher']} above {words['lower']}"
    if "like" in words:
        return f"{words['of']} like {words['like']}, up to {claim.tolerance:g}"
    if claim.at_least is not None:
        return f"{words['of']} at {claim.at_least:g} or more"
    if claim.at_most is not None:
        return f"{words['of']} at {claim.at_most:g} or less"
    return f"{words['of']} at {claim.expect:g}, up to {claim.tolerance:g} off"
