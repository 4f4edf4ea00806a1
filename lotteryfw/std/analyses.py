"""Analyses: figures of finished searches beyond their accuracies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import Analysis, AnalysisResult, Lab, LevelResult, Search, stream
from lotteryfw.std.draws import OwnStream
from lotteryfw.std.searches import TRAINED

if TYPE_CHECKING:
    from torch import Tensor

TICKET = "ticket"
Role = Literal["before", "after", "kept"]
_share = partial(AnalysisResult, unit="share")


class MaskDiagnostics(Analysis):
    """Reports how a level's weights moved in training, and if cuts removed those that shrank.

    Of the kept weights: the share whose sign is the same before and after training
    (sign_agreement), the shares whose magnitude shrank and grew (toward_zero, away_from_zero), and
    each layer's density. Of the weights that the cut removed, the share that the training before
    it had moved toward zero (cut_toward_zero), beside the same share of those that it kept
    (kept_toward_zero). Both are left out where no recorded training came before the cut, as in
    pruning at initialisation, and where the mask was found in training.

    Where weights were not trained, as under a learned mask, nothing moved and only densities are
    said; so where a level reports another training than that of its ticket: one that found its
    mask, or a part of one. Of searches that learn masks the weights of the variant "trained" moved.
    A share of no weights is left out, as in a layer that has none left.
    """

    use = "mask_diagnostics"
    formula = "shares of sign(w_f) = sign(w_i), |w_f| < |w_i|, |w_f| > |w_i|"
    source = "Zhou et al. 2019, Deconstructing Lottery Tickets, sections 3 and 4"
    figures = (
        "density",
        "sign_agreement",
        "toward_zero",
        "away_from_zero",
        "cut_toward_zero",
        "kept_toward_zero",
    )

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        tickets = {level.level: level for level in levels if level.variant == TICKET}
        results: list[AnalysisResult] = []
        for level in tickets.values():
            results += _shares(lab, level)
            parent = level.ticket.parent
            if parent in tickets:
                results += _cut_shares(level, tickets[parent])
        for level in levels:
            if level.variant == TRAINED:
                results += _shares(lab, level)
        return results


def _shares(lab: Lab, level: LevelResult) -> Iterator[AnalysisResult]:
    """Yield each layer's density, and how its kept weights moved in training."""
    trained = level.trained
    mask = trained.ticket.mask
    for name, kept in mask.items():
        yield _share(level, "density", _mean(kept), name)
    # where no step was made, or scores were trained, no weight moved
    if level.outcome.metrics.steps == 0 or trained.scores():
        return
    # a training that found the mask did not begin with the values of the ticket
    if not lab.is_training_of(level.ticket, trained):
        return

    init, final = trained.ticket.values, trained.weights()
    moves: dict[str, dict[str, Tensor]] = {
        "sign_agreement": {},
        "toward_zero": {},
        "away_from_zero": {},
    }
    for name, kept in mask.items():
        # kept ones only: masked weights are frozen, and would all count as unmoved
        before, after = init[name][kept], final[name][kept]
        moves["sign_agreement"][name] = before.sign() == after.sign()
        moves["toward_zero"][name] = after.abs() < before.abs()
        moves["away_from_zero"][name] = after.abs() > before.abs()
    for figure, layers in moves.items():
        for name, moved in layers.items():
            yield from _share_of(level, figure, [moved], name)
        # over all weights, so that a large layer counts for more than a small one
        yield from _share_of(level, figure, layers.values())


def _cut_shares(level: LevelResult, parent: LevelResult) -> Iterator[AnalysisResult]:
    """Yield the shares that had moved toward zero, of the weights cut and of those kept."""
    trained = parent.trained
    before, init, final = trained.ticket.mask, trained.ticket.values, trained.weights()
    shrank_of_cut: list[Tensor] = []
    shrank_of_kept: list[Tensor] = []
    for name, kept in level.ticket.mask.items():
        shrank = final[name].abs() < init[name].abs()
        # alive before this cut and masked after it: earlier cuts are not its work
        shrank_of_cut.append(shrank[before[name] & ~kept])
        shrank_of_kept.append(shrank[kept])
    yield from _share_of(level, "cut_toward_zero", shrank_of_cut)
    yield from _share_of(level, "kept_toward_zero", shrank_of_kept)


def _share_of(
    level: LevelResult, figure: str, parts: Iterable[Tensor], layer: str = ""
) -> Iterator[AnalysisResult]:
    """Yield the share of True in all `parts` together; nothing where these have no elements."""
    import torch

    every = torch.cat([part.flatten() for part in parts])
    if every.numel():
        yield _share(level, figure, _mean(every), layer)


class MaskOverlap(Analysis):
    """Compares the masks of cells at one level, beside the overlap that chance would give.

    overlap: the share of the kept weights that the other cell keeps too. chance: its expectation
    where both masks were random with the layer densities that they have. Cells are compared that
    differ in one axis, or in the seed alone.
    """

    use = "mask_overlap"
    formula = "|A ∩ B| / |A|; by chance Σ_l a_l b_l / n_l / |A|"
    source = "lotteryfw"
    figures = ("overlap", "chance")

    def across(self, levels: Sequence[LevelResult]) -> Iterable[AnalysisResult]:
        by_level: dict[int, list[LevelResult]] = {}
        for level in levels:
            # masks that keep everything overlap whatever they are
            if level.variant == TICKET and level.cut.density < 1:
                by_level.setdefault(level.level, []).append(level)
        for alike in by_level.values():
            masks = [level.ticket.mask for level in alike]
            for (first, mask), (second, other) in combinations(zip(alike, masks, strict=True), 2):
                # an axis of models compares networks whose layers are not the same
                if _differences(first, second) == 1 and mask.keys() == other.keys():
                    yield from _overlap(first, mask, second, other)


def _differences(first: LevelResult, second: LevelResult) -> int:
    """Return in how many axes, the seed among them, the cells of two levels differ."""
    count = int(first.seed != second.seed)
    for axis in {*first.axes, *second.axes}:
        count += first.axes.get(axis) != second.axes.get(axis)
    return count


def _overlap(
    first: LevelResult, mask: Mapping[str, Tensor], second: LevelResult, other: Mapping[str, Tensor]
) -> Iterator[AnalysisResult]:
    kept = both = 0
    expected: list[float] = []
    for name, ours in mask.items():
        theirs = other[name]
        kept += int(ours.sum())
        both += int((ours & theirs).sum())
        # masks that keep a and b of n weights have a b / n in common, in the mean over chance
        expected.append(float(ours.sum()) * float(theirs.sum()) / ours.numel())
    # of no weights there is no share
    if kept:
        yield _share(first, "overlap", both / kept, against=second.cell)
        yield _share(first, "chance", sum(expected) / kept, against=second.cell)


class WeightScatter(Analysis):
    """Samples each layer's weights before and after training, with those that the next cut kept.

    For the papers' picture of w_f against w_i with its masked region: `w_i`, `w_f` and `kept` (1
    or 0) are lists in one order, of the first ticket and the training before it. It finds nothing
    where no recorded training came before a cut, as in pruning at initialisation, and in searches
    that find masks in training, which cut nothing.
    """

    use = "weight_scatter"
    formula = "(w_i, w_f, kept) of a random sample of each layer"
    source = "Zhou et al. 2019, Deconstructing Lottery Tickets, Fig. 2"
    figures = ("w_i", "w_f", "kept")

    sample: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Weights drawn from each layer."""

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        tickets = {level.level: level for level in levels if level.variant == TICKET}
        children = [level for level in tickets.values() if level.ticket.parent in tickets]
        if not children:
            return []
        child = children[0]
        parent = tickets[child.ticket.parent or 0].trained
        results: list[AnalysisResult] = []
        for name, kept in child.ticket.mask.items():
            # one sample for all three lists, whose entries belong together
            indices = self._sample_indices(lab.seed, name, kept.numel())
            before, after = parent.ticket.values[name], parent.weights()[name]
            lists: list[tuple[str, Role, Tensor]] = [
                ("w_i", "before", before),
                ("w_f", "after", after),
                ("kept", "kept", kept.float()),
            ]
            for figure, role, values in lists:
                sample = tuple(values.flatten()[indices].tolist())
                results.append(AnalysisResult(child, figure, sample, name, role=role))
        return results

    def _sample_indices(self, seed: int, name: str, size: int) -> Tensor:
        import torch

        rng = stream(seed, OwnStream.WEIGHT_SCATTER, name)
        return torch.randperm(size, generator=rng)[: self.sample]


class DyingEdges(Analysis):
    """Counts the edges that learning a mask never selects.

    Of a cycle: the share of all edges that no step of any cycle so far has selected (dying_ratio);
    the same among the edges that are still allowed (dying_ratio_allowed), and with the edges
    removed earlier counted as dead, too (dying_ratio_with_removed): the three differ for hard
    pruning only. dying_ratio_of_cycle is the share that no step of this cycle alone has selected.
    turnover is the mean, over the evaluations of the cycle, of the share of selected
    edges that are lost from one to the next. In searches that learn no masks it finds nothing.
    """

    use = "dying_edges"
    formula = "1 - |edges selected at any step| / |edges|"
    source = "Iwasawa, Strong lottery tickets (slides 7, 8, 12)"
    figures = (
        "dying_ratio",
        "dying_ratio_allowed",
        "dying_ratio_with_removed",
        "dying_ratio_of_cycle",
        "turnover",
    )

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        ever: dict[str, Tensor] = {}
        results: list[AnalysisResult] = []
        for level in levels:
            if level.variant != TICKET:
                continue
            selected = level.trained.selected()
            if not selected:
                continue
            # levels come in order, so this is over all cycles so far
            ever = {name: mask | ever.get(name, mask) for name, mask in selected.items()}
            results += _dying_ratios(level, ever)
            of_cycle = 1 - _mean_of_all(selected.values())
            results.append(_share(level, "dying_ratio_of_cycle", of_cycle))
            # the first evaluation has none before it to compare with
            turnover = level.outcome.metrics.curve.extra.get("turnover", ())[1:]
            if turnover:
                results.append(_share(level, "turnover", sum(turnover) / len(turnover)))
        return results


def _dying_ratios(level: LevelResult, ever: Mapping[str, Tensor]) -> Iterator[AnalysisResult]:
    """Yield the shares of edges that no step selected, given by layer those that some step did."""
    allowed = level.outcome.mask()
    ever_of_allowed: list[Tensor] = []
    ever_and_allowed: list[Tensor] = []
    for name, mask in ever.items():
        yield _share(level, "dying_ratio", 1 - _mean(mask), name)
        ever_of_allowed.append(mask[allowed[name]])
        ever_and_allowed.append(mask & allowed[name])
    yield _share(level, "dying_ratio", 1 - _mean_of_all(ever.values()))
    if any(part.numel() for part in ever_of_allowed):
        yield _share(level, "dying_ratio_allowed", 1 - _mean_of_all(ever_of_allowed))
    yield _share(level, "dying_ratio_with_removed", 1 - _mean_of_all(ever_and_allowed))


def _mean(part: Tensor) -> float:
    return float(part.float().mean())


def _mean_of_all(parts: Iterable[Tensor]) -> float:
    import torch

    return _mean(torch.cat([part.flatten() for part in parts]))
