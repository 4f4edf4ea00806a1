"""Analyses of stability: what another data order, or pruning, changes in a trained network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lotteryfw import Analysis, AnalysisResult, Evaluation, Lab, LevelResult, Search

if TYPE_CHECKING:
    from torch import Tensor


class LinearModeConnectivity(Analysis):
    """Trains every ticket once more under another data order, and measures the line between both.

    error and loss are lists over `alpha`, from the level's own network to the copy;
    error_barrier and loss_barrier are the largest value on the line above the mean of its ends.
    Statistics of batch normalisation are computed anew at every point. Networks that no step
    trained, or whose mask was learned, are left out.
    """

    use = "linear_mode_connectivity"
    formula = "max over α of E(α w + (1 - α) w') - (E(w) + E(w')) / 2"
    source = "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis"
    figures = ("error_barrier", "loss_barrier", "alpha", "error", "loss")

    points: Annotated[int, Field(ge=3, le=1001)] = 11
    """The number of networks that are measured, both ends included."""
    part: Literal["train", "validation", "test"] = "test"
    """The part of the data that they are measured on."""

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        trained = [level for level in levels if _has_trained_weights(level)]
        copies = yield from lab.train_all(
            [lab.again(level.ticket, 1) for level in trained], probe=False
        )
        alphas = tuple(index / (self.points - 1) for index in range(self.points))
        results: list[AnalysisResult] = []
        for level, copy in zip(trained, copies, strict=True):
            if copy.diverged_at is not None:
                continue
            line = [lab.interpolate(level.trained, copy, alpha) for alpha in alphas]
            measured = yield from lab.evaluate_all(line, self.part)
            results += _of_line(level, alphas, measured)
        return results


class StabilityToPruning(Analysis):
    """Compares the weights of each trained ticket with the same weights of the trained dense network.

    Over the kept weights of all layers: l2 is the distance, l2_normalised the distance over the
    norm of the dense network's weights, cosine their cosine, and angle the angle in degrees.
    """

    use = "stability_to_pruning"
    formula = "|w_ticket - w_dense| over the kept weights"
    source = "Frankle et al. 2019, Stabilizing the Lottery Ticket Hypothesis"
    figures = ("l2", "l2_normalised", "cosine", "angle")

    def levels(self, lab: Lab, levels: Sequence[LevelResult]) -> Search[list[AnalysisResult]]:
        yield from ()
        trained = [level for level in levels if _has_trained_weights(level)]
        dense = [level for level in trained if level.ticket.is_dense]
        results: list[AnalysisResult] = []
        if not dense:
            return results
        weights = dense[0].trained.weights()
        for level in trained:
            if not level.ticket.is_dense:
                results += _distances(level, weights)
        return results


def barrier(values: Sequence[float]) -> float:
    """Return the largest value along a line above the mean of its ends.

    >>> barrier([1.0, 4.0, 2.0])
    2.5
    """
    return max(values) - (values[0] + values[-1]) / 2


def _has_trained_weights(level: LevelResult) -> bool:
    return level.outcome.metrics.steps > 0 and not level.trained.scores()


def _of_line(
    level: LevelResult, alphas: tuple[float, ...], measured: Sequence[Evaluation]
) -> Iterator[AnalysisResult]:
    errors = tuple(1 - figures.accuracy for figures in measured)
    losses = tuple(figures.loss for figures in measured)
    yield AnalysisResult(level, "error_barrier", barrier(errors), unit="share")
    yield AnalysisResult(level, "loss_barrier", barrier(losses))
    yield AnalysisResult(level, "alpha", alphas)
    yield AnalysisResult(level, "error", errors, unit="share")
    yield AnalysisResult(level, "loss", losses)


def _distances(level: LevelResult, dense: Mapping[str, Tensor]) -> Iterator[AnalysisResult]:
    import torch

    weights = level.trained.weights()
    of_ticket, of_dense = [], []
    for name, mask in level.ticket.mask.items():
        of_ticket.append(weights[name][mask].double())
        of_dense.append(dense[name][mask].double())
    ours, theirs = torch.cat(of_ticket), torch.cat(of_dense)
    distance = float((ours - theirs).norm())
    norms = float(ours.norm()), float(theirs.norm())
    # Without weights, or with zeros alone, there is no direction to compare.
    if not all(norms):
        return
    # Rounding may take the cosine of a vector with itself beyond 1.
    cosine = max(-1.0, min(1.0, float(ours @ theirs) / (norms[0] * norms[1])))
    yield AnalysisResult(level, "l2", distance)
    yield AnalysisResult(level, "l2_normalised", distance / norms[1])
    yield AnalysisResult(level, "cosine", cosine)
    yield AnalysisResult(level, "angle", math.degrees(math.acos(cosine)))
