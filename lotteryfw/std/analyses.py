"""Analyses: what finished searches tell beyond their accuracies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lotteryfw import Analysis, AnalysisResult, Lab, LevelResult, Search, stream
from lotteryfw.std.searches import TRAINED

if TYPE_CHECKING:
    from torch import Tensor

TICKET = "ticket"
_share = partial(AnalysisResult, unit="share")


class MaskDiagnostics(Analysis):
    """How a level's weights moved in training, and whether masks cut where training was going anyway.

    Of the kept weights: the share whose sign is the same before and after training (sign_agreement), the shares whose
    magnitude shrank and grew (toward_zero, away_from_zero), and each layer's density. Of the weights that the cut
    removed, the share that the training before it had moved toward zero (cut_toward_zero), beside the same share of
    those that it kept (kept_toward_zero).

    Where weights were not trained, as under a learned mask, nothing moved and only densities are said. Of searches that
    learn masks the weights of the variant "trained" moved.
    """

    use = "mask_diagnostics"
    formula = "shares of sign(w_f) = sign(w_i), |w_f| < |w_i|, |w_f| > |w_i|"
    source = "Zhou et al. 2019, Deconstructing Lottery Tickets, sections 3 and 4"

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        tickets = {level.level: level for level in levels if level.variant == TICKET}
        found: list[AnalysisResult] = []
        for level in tickets.values():
            found += _shares(level)
            ticket = level.ticket
            if ticket.parent in tickets:
                found += _cut_shares(level, tickets[ticket.parent])
        for level in levels:
            if level.variant == TRAINED:
                found += _shares(level)
        return found


def _shares(level: LevelResult) -> Iterator[AnalysisResult]:
    trained = level.trained
    mask, init, final = trained.ticket.mask, trained.ticket.values, trained.weights()
    for name, kept in mask.items():
        yield _share(level, "density", _mean(kept), name)
    if (
        level.outcome.metrics.steps == 0 or trained.scores()
    ):  # then it was measured as it is, or scores were trained
        return
    before, after = (
        {name: values[name][kept] for name, kept in mask.items()} for values in (init, final)
    )
    shares = {
        "sign_agreement": {name: before[name].sign() == after[name].sign() for name in mask},
        "toward_zero": {name: after[name].abs() < before[name].abs() for name in mask},
        "away_from_zero": {name: after[name].abs() > before[name].abs() for name in mask},
    }
    for figure, parts in shares.items():
        yield from (_share(level, figure, _mean(part), name) for name, part in parts.items())
        yield _share(level, figure, _mean_of_all(parts.values()))


def _cut_shares(level: LevelResult, parent: LevelResult) -> Iterator[AnalysisResult]:
    """Where the weights between which the cut chose had been going in the training before it."""
    trained = parent.trained
    before, init, final = trained.ticket.mask, trained.ticket.values, trained.weights()
    kept = level.ticket.mask
    shrank = {name: final[name].abs() < init[name].abs() for name in kept}
    cut = {name: shrank[name][before[name] & ~kept[name]] for name in kept}
    yield _share(level, "cut_toward_zero", _mean_of_all(cut.values()))
    yield _share(level, "kept_toward_zero", _mean_of_all(shrank[name][kept[name]] for name in kept))


class MaskOverlap(Analysis):
    """How much of one cell's mask another cell's shares at the same level, beside what chance would give.

    overlap: the share of the kept weights that the other cell keeps too. chance: its expectation where both masks were
    random with the layer densities that they have. Cells are compared that differ in one axis, or in the seed alone.
    """

    use = "mask_overlap"
    formula = "|A ∩ B| / |A|; by chance Σ_l a_l b_l / n_l / |A|"
    source = "lotteryfw"

    def across(self, levels: Sequence[LevelResult]) -> Iterable[AnalysisResult]:
        by_level: dict[int, list[LevelResult]] = {}
        for level in levels:
            if level.variant == TICKET and level.cut.density < 1:
                by_level.setdefault(level.level, []).append(level)
        for alike in by_level.values():
            masks = [level.ticket.mask for level in alike]
            for (first, mask), (second, other) in combinations(zip(alike, masks, strict=True), 2):
                if _differences(first, second) == 1 and mask.keys() == other.keys():
                    yield from _overlap(first, mask, second, other)


def _differences(first: LevelResult, second: LevelResult) -> int:
    axes = {*first.axes, *second.axes}
    return sum(first.axes.get(axis) != second.axes.get(axis) for axis in axes) + (
        first.seed != second.seed
    )


def _overlap(
    first: LevelResult, mask: Mapping[str, Tensor], second: LevelResult, other: Mapping[str, Tensor]
) -> Iterator[AnalysisResult]:
    kept = sum(int(part.sum()) for part in mask.values())
    both = sum(int((mask[name] & other[name]).sum()) for name in mask)
    by_chance = sum(
        float(mask[name].sum()) * float(other[name].sum()) / mask[name].numel() for name in mask
    )
    yield _share(first, "overlap", both / max(1, kept), against=second.cell)
    yield _share(first, "chance", by_chance / max(1, kept), against=second.cell)


class WeightScatter(Analysis):
    """A sample of a layer's weights before and after training, of those that the next cut kept and removed.

    For the papers' picture of w_f against w_i with its masked region: `w_i`, `w_f` and `kept` (1 or 0) are lists in one
    order, of the first ticket and the training before it. Searches that learn masks cut nothing, and it finds nothing
    in them.
    """

    use = "weight_scatter"
    formula = "(w_i, w_f, kept) of a random sample of each layer"
    source = "Zhou et al. 2019, Deconstructing Lottery Tickets, Fig. 2"

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
        found: list[AnalysisResult] = []
        for name, kept in child.ticket.mask.items():
            places = self._places(lab.seed, name, kept.numel())
            shown = {
                "w_i": parent.ticket.values[name],
                "w_f": parent.weights()[name],
                "kept": kept.float(),
            }
            found += [
                AnalysisResult(child, figure, tuple(values.flatten()[places].tolist()), name)
                for figure, values in shown.items()
            ]
        return found

    def _places(self, seed: int, name: str, size: int) -> Tensor:
        import torch

        return torch.randperm(size, generator=stream(seed, "weight scatter", name))[: self.sample]


class DyingEdges(Analysis):
    """Edges that learning a mask never selects.

    Of a cycle: the share of all edges that no step of any cycle so far has selected (dying_ratio); the same among the
    edges that are still allowed (dying_ratio_allowed), and with the edges removed earlier counted as dead, too
    (dying_ratio_with_removed): the three differ for hard pruning only. turnover is the mean, over the evaluations of
    the cycle, of the share of selected edges that are lost from one to the next. In searches that learn no masks it
    finds nothing.
    """

    use = "dying_edges"
    formula = "1 - |edges selected at any step| / |edges|"
    source = "Iwasawa, Strong lottery tickets (slides 7, 8, 12)"

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        ever: dict[str, Tensor] = {}
        found: list[AnalysisResult] = []
        for level in levels:
            if level.variant != TICKET or not (selected := level.trained.selected()):
                continue
            ever = {name: mask | ever.get(name, mask) for name, mask in selected.items()}
            allowed = level.outcome.mask()
            found += [
                _share(level, "dying_ratio", 1 - _mean(mask), name) for name, mask in ever.items()
            ]
            selected_share = {
                "dying_ratio": _mean_of_all(ever.values()),
                "dying_ratio_allowed": _mean_of_all(ever[name][allowed[name]] for name in ever),
                "dying_ratio_with_removed": _mean_of_all(
                    ever[name] & allowed[name] for name in ever
                ),
            }
            found += [_share(level, figure, 1 - share) for figure, share in selected_share.items()]
            turnover = level.outcome.metrics.curve.turnover[1:]
            if turnover:
                found.append(_share(level, "turnover", sum(turnover) / len(turnover)))
        return found


def _mean(part: Tensor) -> float:
    return float(part.float().mean()) if part.numel() else 0.0


def _mean_of_all(parts: Iterable[Tensor]) -> float:
    import torch

    return _mean(torch.cat([part.flatten() for part in parts]))
