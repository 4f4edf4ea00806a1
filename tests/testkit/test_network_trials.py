"""The trial of criteria that score whole networks notices each way to break their contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lotteryfw import ContractError, MaskCriterion, NetworkCriterion, Probe
from lotteryfw.api.layers import Layer
from lotteryfw.testkit import trial


class Magnitude(NetworkCriterion):
    """Scores weights by their size."""

    use = "magnitude"

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        return {name: value.abs().double() for name, value in probe.weights.items()}


class Seeded(NetworkCriterion):
    """Draws scores, and looks at data."""

    use = "seeded"

    def scores(self, probe: Probe) -> dict[str, Tensor]:
        (batch,) = probe.batches("train", 1, 10)
        noise = torch.rand((), generator=probe.rng) + batch[0].mean()
        return {name: value * noise for name, value in probe.weights.items()}


def test_right_ones_pass() -> None:
    trial(Magnitude)
    trial(Seeded)


def broken(answer: Callable[[Probe], Any]) -> type[NetworkCriterion]:
    class Broken(NetworkCriterion):
        """Breaks a promise."""

        use = "broken"

        def scores(self, probe: Probe) -> Any:
            return answer(probe)

    return Broken


def one_layer(probe: Probe) -> dict[str, Tensor]:
    return {probe.layers[0].name: probe.weights[probe.layers[0].name]}


def global_draws(probe: Probe) -> dict[str, Tensor]:
    return {name: torch.rand(value.shape) for name, value in probe.weights.items()}


def in_place(probe: Probe) -> dict[str, Tensor]:
    for value in probe.weights.values():
        value.abs_()
    return dict(probe.weights)


CALLS = [0]


def other_each_time(probe: Probe) -> dict[str, Tensor]:
    CALLS[0] += 1
    return {name: value + CALLS[0] for name, value in probe.weights.items()}


def divided_by_the_mask(probe: Probe) -> dict[str, Tensor]:
    """Divides by what a collapsed layer has none of, also where others are alive."""
    least = min(float(mask.sum()) for mask in probe.masks.values())
    return {name: value / least for name, value in probe.weights.items()}


FAULTS: dict[str, tuple[Callable[[Probe], Any], str]] = {
    "a layer is missing": (one_layer, r"scores\(\) gave nothing for layer"),
    "no dict": (lambda probe: None, r"gave a NoneType, not a dict"),
    "global draws": (global_draws, r"scores\(\) on a whole network used a global random stream"),
    "in place": (in_place, r"scores\(\) on a whole network changed `"),
    "other each time": (other_each_time, r"gave two results for layer"),
    "a collapsed layer": (divided_by_the_mask, r"on a network with a collapsed layer.*NaN"),
    "integers": (
        lambda probe: {name: value.long() for name, value in probe.weights.items()},
        "returned dtype torch.int64",
    ),
    "raises": (lambda probe: probe.weights["nowhere"], r"scores\(\) .* raised KeyError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_one_is_noticed(fault: str) -> None:
    answer, message = FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(broken(answer))


def test_a_need_without_the_method_is_noticed() -> None:
    class Needy(MaskCriterion):
        """Needs a probe and has no method for it."""

        use = "needy"
        needs = NetworkCriterion.needs

        def score(self, layer: Layer) -> Tensor:
            return layer.probed

    with pytest.raises(ContractError, match=r"derive it from lotteryfw\.NetworkCriterion"):
        trial(Needy)


def test_what_a_score_makes_of_the_networks_scores_is_tried_too() -> None:
    class Flattened(Magnitude):
        """Returns another shape."""

        use = "flattened"

        def score(self, layer: Layer) -> Tensor:
            return layer.probed.flatten()

    with pytest.raises(ContractError, match=r"score\(\) on .* returned shape"):
        trial(Flattened)
