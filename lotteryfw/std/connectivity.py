"""Analyses of stability: what another data order, or pruning, changes in a trained network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import (
    Analysis,
    AnalysisResult,
    Evaluation,
    Lab,
    LevelResult,
    Search,
    Trained,
    UsageError,
)

if TYPE_CHECKING:
    from torch import Tensor


Points = Annotated[
    int,
    Field(
        ge=3, le=1001, description="The number of networks that are measured, both ends included."
    ),
]
MeasuredPart = Annotated[
    Literal["train", "validation", "test"],
    Field(description="The part of the data that they are measured on."),
]


class LinearModeConnectivity(Analysis):
    """Trains every ticket once more under another data order, and measures the line between both.

    error and loss are lists over `alpha`, from the level's own network to the copy;
    error_barrier and loss_barrier are the largest value on the line above the mean of its ends.
    Statistics of batch normalisation are computed anew at every point. Left out are networks that
    no step trained, and levels that report another training than that of their ticket: one that
    found its mask, or a part of one.
    """

    use = "linear_mode_connectivity"
    formula = "max over α of E(α w + (1 - α) w') - (E(w) + E(w')) / 2"
    source = "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis"
    figures = ("error_barrier", "loss_barrier", "alpha", "error", "loss")

    points: Points = 11
    part: MeasuredPart = "test"

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        trained = [level for level in levels if _can_be_repeated(lab, level)]
        copies = yield from lab.train_all(
            [lab.again(level.ticket, 1) for level in trained], probe=False
        )
        ends: list[tuple[LevelResult, Trained]] = []
        for level, copy in zip(trained, copies, strict=True):
            if copy.diverged_at is None:
                ends.append((level, copy))
        return (yield from _lines(lab, ends, self.points, self.part))


class ErrorBarrier(Analysis):
    """Measures the line between two networks that a search recorded.

    One end is a level's network, the other the one that `against` names. error and loss are lists
    over `alpha`, from the level's network to the other; error_barrier and loss_barrier are the
    largest value on the line above the mean of its ends. Weights that either network keeps are kept
    on the line. Statistics of batch normalisation are computed anew at every point. Networks that
    no step trained, or whose mask was learned, are left out.
    """

    use = "error_barrier"
    formula = "max over α of E(α w + (1 - α) w') - (E(w) + E(w')) / 2"
    source = (
        "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis, section 2"
    )
    figures = ("error_barrier", "loss_barrier", "alpha", "error", "loss")

    against: str = "dense"
    """The other network: "dense", "previous" (the level before), or a control of the same level,
    such as "random_mask"; "ticket" for the line from each control to its ticket.

    Raises UsageError for a control that the study does not have."""
    points: Points = 11
    part: MeasuredPart = "test"

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        names = {"dense", "previous", *(level.variant for level in levels)}
        if self.against not in names:
            raise UsageError(
                f"error_barrier.against: the study has no '{self.against}'; "
                f"it has {', '.join(sorted(names))}"
            )
        by_place: dict[tuple[str, int], LevelResult] = {}
        for level in levels:
            if _has_trained_weights(lab, level):
                by_place[level.variant, level.level] = level
        ends: list[tuple[LevelResult, Trained]] = []
        for level in by_place.values():
            other = self._other(level, by_place)
            if other is not None:
                ends.append((level, other.trained))
        return (yield from _lines(lab, ends, self.points, self.part))

    def _other(
        self, level: LevelResult, by_place: Mapping[tuple[str, int], LevelResult]
    ) -> LevelResult | None:
        """Return the network at the other end of a level's line, if there is one."""
        # controls have no level 0: their dense network is the tickets'
        if self.against == "dense":
            return None if level.ticket.is_dense else by_place.get(("ticket", 0))
        if self.against == "previous":
            return by_place.get((level.variant, level.level - 1))
        if self.against == level.variant:
            return None
        # lines to a control start from tickets, and not from the other controls
        if self.against != "ticket" and level.variant != "ticket":
            return None
        return by_place.get((self.against, level.level))


class StabilityToDataOrder(Analysis):
    """Trains copies of every ticket that differ in data order, augmentation and dropout alone.

    Over the kept weights of all layers: l2 is the distance of two copies, l2_normalised the
    distance over the norm of the first, cosine their cosine, and angle the angle in degrees; each
    is the mean over all pairs of copies, the level's own training included. Left out are networks
    that no step trained, levels that report another training than that of their ticket (one that
    found its mask, or a part of one), and copies that diverged.
    """

    use = "stability_to_data_order"
    formula = "|w - w'| over the kept weights of two copies"
    source = "Frankle et al. 2019, Stabilizing the Lottery Ticket Hypothesis, section 3"
    figures = ("l2", "l2_normalised", "cosine", "angle")

    copies: Annotated[int, Field(ge=2, le=100)] = 2
    """Networks that are compared, the level's own included."""

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        trained = [level for level in levels if _can_be_repeated(lab, level)]
        # numbers from 1: copy 0 is the level's own training
        numbers = range(1, self.copies)
        tickets = [lab.again(level.ticket, number) for level in trained for number in numbers]
        # all at once, so that they run side by side
        copies = yield from lab.train_all(tickets, probe=False)
        results: list[AnalysisResult] = []
        for index, level in enumerate(trained):
            first = index * len(numbers)
            own_copies = copies[first : first + len(numbers)]
            results += self._of_level(level, own_copies)
        return results

    def _of_level(self, level: LevelResult, copies: Sequence[Trained]) -> Iterator[AnalysisResult]:
        networks = [level.trained.weights()]
        networks += [copy.weights() for copy in copies if copy.diverged_at is None]
        pairs: list[dict[str, float]] = []
        for first, second in combinations(networks, 2):
            # empty where a network is all zeros, which has no direction
            if distances := _distances(level.ticket.mask, second, first):
                pairs.append(distances)
        for figure in self.figures if pairs else ():
            mean = sum(distances[figure] for distances in pairs) / len(pairs)
            yield AnalysisResult(level, figure, mean)


class StabilityToPruning(Analysis):
    """Compares the weights of each trained ticket with the same weights of the trained dense network.

    Over the kept weights of all layers: l2 is the distance, l2_normalised the distance over the
    norm of the dense network's weights, cosine their cosine, and angle the angle in degrees.
    Networks that no step trained, or whose mask was learned, are left out.
    """

    use = "stability_to_pruning"
    formula = "|w_ticket - w_dense| over the kept weights"
    source = "Frankle et al. 2019, Stabilizing the Lottery Ticket Hypothesis"
    figures = ("l2", "l2_normalised", "cosine", "angle")

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        trained = [level for level in levels if _has_trained_weights(lab, level)]
        # a search may also record a dense network in the middle of its training
        dense = [one for one in trained if one.ticket.is_dense and _can_be_repeated(lab, one)]
        results: list[AnalysisResult] = []
        if not dense:
            return results
        # read once: every level is compared with the same network
        weights = dense[0].trained.weights()
        for level in trained:
            if level.ticket.is_dense:
                continue
            distances = _distances(level.ticket.mask, level.trained.weights(), weights)
            for figure, value in distances.items():
                results.append(AnalysisResult(level, figure, value))
        return results


def barrier(values: Sequence[float]) -> float:
    """Return the largest value along a line above the mean of its ends.

    >>> barrier([1.0, 4.0, 2.0])
    2.5
    """
    return max(values) - (values[0] + values[-1]) / 2


def _can_be_repeated(lab: Lab, level: LevelResult) -> bool:
    """Return whether training a level's ticket again repeats the training that the level reports."""
    # known without any figure, so that a plan counts what the analyses ask for
    is_trained = level.ticket.point.steps != 0 and not level.ticket.learns_mask
    return is_trained and lab.is_training_of(level.ticket, level.trained)


def _has_trained_weights(lab: Lab, level: LevelResult) -> bool:
    """Return whether a level's network has trained weights, and no learned mask over them."""
    if level.ticket.point.steps == 0 or level.ticket.learns_mask:
        return False
    # the training that a level reports may have learned the mask of its ticket
    return lab.is_training_of(level.ticket, level.trained) or not level.trained.scores()


def _lines(
    lab: Lab, ends: Sequence[tuple[LevelResult, Trained]], points: int, part: MeasuredPart
) -> Search[list[AnalysisResult]]:
    """Return the figures of the lines from levels' networks to others."""
    alphas = tuple(index / (points - 1) for index in range(points))
    measured: list[Sequence[Evaluation]] = []
    # a line at a time, since its networks are in memory; no figure is looked at before the end, so
    # that a plan counts all of them
    for level, other in ends:
        line = [lab.interpolate(level.trained, other, alpha) for alpha in alphas]
        measured.append((yield from lab.evaluate_all(line, part)))
    results: list[AnalysisResult] = []
    for (level, _), evaluations in zip(ends, measured, strict=True):
        results += _of_line(level, alphas, evaluations)
    return results


def _of_line(
    level: LevelResult, alphas: tuple[float, ...], measured: Sequence[Evaluation]
) -> Iterator[AnalysisResult]:
    errors = tuple(1 - figures.accuracy for figures in measured)
    losses = tuple(figures.loss for figures in measured)
    yield AnalysisResult(level, "error_barrier", barrier(errors), unit="share")
    yield AnalysisResult(level, "loss_barrier", barrier(losses))
    yield AnalysisResult(level, "alpha", alphas, role="along")
    yield AnalysisResult(level, "error", errors, unit="share")
    yield AnalysisResult(level, "loss", losses)


def _distances(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return distance and angle of two networks over the weights that are kept.

    Empty where one of them has no weights there, or zeros alone: there is no direction to compare.
    """
    import torch

    first, second = [], []
    for name, mask in masks.items():
        first.append(weights[name][mask].double())
        second.append(reference[name][mask].double())
    ours, theirs = torch.cat(first), torch.cat(second)
    # in float64: a sum of a million squares in float32 loses digits
    norms = float(ours.norm()), float(theirs.norm())
    if not all(norms):
        return {}
    distance = float((ours - theirs).norm())
    # Rounding may take the cosine of a vector with itself beyond 1.
    cosine = max(-1.0, min(1.0, float(ours @ theirs) / (norms[0] * norms[1])))
    return {
        "l2": distance,
        "l2_normalised": distance / norms[1],
        "cosine": cosine,
        "angle": math.degrees(math.acos(cosine)),
    }
