"""The LAMP scores, against a plain loop over the formula and against what the paper says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lotteryfw_lamp import Lamp, register_components
from pydantic import ValidationError

from lotteryfw import Layer
from lotteryfw.testkit import make_layer, trial

CALM = settings(deadline=None)
"""The first call of torch in a process takes as long as a thousand others."""
POWERS = st.floats(0.25, 4)
LEAVES = st.builds(
    make_layer,
    shape=st.sampled_from([(6, 8), (3, 4, 3, 3), (1, 1)]),
    alive=st.one_of(st.none(), st.integers(0, 1)),
    seed=st.integers(0, 10**6),
)


def looped(layer: Layer, power: float) -> list[float]:
    """The scores of the living weights, one by one, in double precision."""
    living = [abs(value) for value in layer.final[layer.mask].tolist()]
    return [w**power / sum(v**power for v in living if v >= w) for w in living]


@pytest.mark.parametrize("options", [{}, {"power": 1}])
def test_it_keeps_what_criteria_promise(options: dict[str, float]) -> None:
    trial(Lamp, options)
    assert register_components() == [Lamp]


@CALM
@given(layer=LEAVES, power=POWERS)
def test_scores_are_the_formula(layer: Layer, power: float) -> None:
    assert Lamp(power=power).score(layer)[layer.mask].tolist() == pytest.approx(
        looped(layer, power), rel=1e-9
    )


@CALM
@given(layer=LEAVES, power=POWERS)
def test_within_a_layer_the_order_is_that_of_the_magnitudes(layer: Layer, power: float) -> None:
    scores, magnitudes = Lamp(power=power).score(layer)[layer.mask], layer.final[layer.mask].abs()
    assert torch.equal(scores.argsort(stable=True), magnitudes.argsort(stable=True))


@CALM
@given(layer=LEAVES, scale=st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**20]))
def test_a_layers_scale_does_not_matter(layer: Layer, scale: float) -> None:
    scaled = replace(layer, final=layer.final * scale)
    torch.testing.assert_close(Lamp().score(scaled), Lamp().score(layer))


def test_the_largest_weight_of_a_layer_scores_one() -> None:
    layer = make_layer((6, 8), alive=20)
    assert Lamp().score(layer).max() == 1.0


def test_equal_magnitudes_share_a_score_and_zeros_score_nothing() -> None:
    final = torch.tensor([[1.0, -1.0, 2.0, 0.0]])
    layer = replace(make_layer((1, 4)), final=final)
    assert Lamp().score(layer).tolist() == [[1 / 6, 1 / 6, 1.0, 0.0]]
    nothing = replace(layer, final=final * 0)
    assert Lamp().score(nothing).tolist() == [[0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("power", [0, -1, float("inf"), float("nan"), "two"])
def test_a_power_must_be_above_zero(power: object) -> None:
    with pytest.raises(ValidationError, match="power"):
        Lamp(power=power)
