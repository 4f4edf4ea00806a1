from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.layers import make_layer

from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.std import criteria

Array = np.ndarray


def share_below(values: Array, alive: Array) -> Array:
    """The percentile rank among the living, the slow way."""
    living = values[alive]
    return np.array([np.sum(living < value) for value in values.ravel()]).reshape(
        values.shape
    ) / len(living)


LOWEST = np.finfo(np.float32).min

FORMULAS: dict[type[MaskCriterion], Callable[[Array, Array, Array], Array]] = {
    criteria.LargeFinal: lambda i, f, alive: np.abs(f),
    criteria.SmallFinal: lambda i, f, alive: -np.abs(f),
    criteria.LargeInit: lambda i, f, alive: np.abs(i),
    criteria.SmallInit: lambda i, f, alive: -np.abs(i),
    criteria.LargeInitLargeFinal: lambda i, f, alive: np.minimum(
        share_below(np.abs(i), alive), share_below(np.abs(f), alive)
    ),
    criteria.SmallInitSmallFinal: lambda i, f, alive: np.minimum(
        share_below(-np.abs(i), alive), share_below(-np.abs(f), alive)
    ),
    criteria.MagnitudeIncrease: lambda i, f, alive: np.abs(f) - np.abs(i),
    criteria.Movement: lambda i, f, alive: np.abs(f - i),
    criteria.LargeFinalSameSign: lambda i, f, alive: np.where(i * f > 0, np.abs(f), 0),
    criteria.LargeFinalDiffSign: lambda i, f, alive: np.where(i * f < 0, np.abs(f), 0),
    criteria.MagnitudeIncreaseSameSign: lambda i, f, alive: np.where(
        i * f > 0, np.abs(f) - np.abs(i), LOWEST
    ),
    criteria.MagnitudeIncreaseDiffSign: lambda i, f, alive: np.where(
        i * f < 0, np.abs(f) - np.abs(i), LOWEST
    ),
}


@pytest.mark.parametrize("criterion", FORMULAS, ids=lambda cls: cls.use)
@pytest.mark.parametrize("seed", range(3))
def test_score_is_the_formula(criterion: type[MaskCriterion], seed: int) -> None:
    layer = make_layer(shape=(8, 3, 2, 2), seed=seed)
    expected = FORMULAS[criterion](layer.init.numpy(), layer.final.numpy(), layer.mask.numpy())
    score = criterion().score(layer)
    assert score.shape == layer.final.shape
    np.testing.assert_array_equal(score.numpy(), expected)


def test_no_formula_is_forgotten() -> None:
    named = {
        cls
        for cls in vars(criteria).values()
        if isinstance(cls, type) and issubclass(cls, MaskCriterion)
    }
    assert named - {MaskCriterion, criteria.Random} == set(FORMULAS)


def test_percentile_ranks_see_the_living_only_and_tie() -> None:
    magnitudes = torch.tensor([1.0, -1.0, 2.0, 100.0, 3.0])
    layer = make_layer(
        shape=(5,), init=magnitudes, final=magnitudes, mask=torch.tensor([1, 1, 1, 0, 1]).bool()
    )
    assert criteria.LargeInitLargeFinal().score(layer)[layer.mask].tolist() == [0, 0, 0.5, 0.75]


def test_ranks_of_a_dead_layer_are_finite() -> None:
    layer = make_layer(mask=torch.zeros(6, 5).bool())
    assert criteria.LargeInitLargeFinal().score(layer).isfinite().all()


@given(power=st.integers(-10, 10))
def test_common_percentile_does_not_care_for_scale(power: int) -> None:
    layer = make_layer()
    scaled = make_layer(final=layer.final * 2.0**power)
    assert (
        criteria.LargeInitLargeFinal()
        .score(layer)
        .equal(criteria.LargeInitLargeFinal().score(scaled))
    )


@pytest.mark.parametrize(
    ("criterion", "passing"),
    [
        (criteria.LargeFinalSameSign, [False, False, True, False]),
        (criteria.MagnitudeIncreaseSameSign, [False, False, True, False]),
        (criteria.LargeFinalDiffSign, [False, False, False, True]),
        (criteria.MagnitudeIncreaseDiffSign, [False, False, False, True]),
    ],
)
def test_zero_has_no_sign_and_tiny_weights_have_one(
    criterion: type[MaskCriterion], passing: list[bool]
) -> None:
    init, final = torch.tensor([0.0, 9.0, 1e-30, -1e-30]), torch.tensor([9.0, 0.0, 2e-30, 2e-30])
    score = criterion().score(make_layer(shape=(4,), init=init, final=final))
    assert (score > 0).tolist() == passing


@pytest.mark.parametrize(
    "criterion", [criteria.MagnitudeIncreaseSameSign, criteria.MagnitudeIncreaseDiffSign]
)
def test_failing_weights_rank_below_every_passing_one_and_are_finite(
    criterion: type[MaskCriterion],
) -> None:
    wanted = -1.0 if criterion is criteria.MagnitudeIncreaseDiffSign else 1.0
    layer = make_layer(
        shape=(2,), init=torch.tensor([1e6, 1.0]), final=torch.tensor([wanted, -wanted * 2])
    )
    passing, failing = criterion().score(layer)
    assert failing.isfinite()
    assert failing < passing < 0


def test_random_draws_from_the_leafs_own_stream() -> None:
    def score(**which: int) -> torch.Tensor:
        return criteria.Random().score(make_layer(shape=(50, 40), **which))

    assert score().equal(score())
    assert not score().equal(score(level=3))
    assert abs(float(score().mean()) - 0.5) < 0.03


def test_scores_leave_the_leaf_as_it_was() -> None:
    layer = make_layer()
    before = [layer.init.clone(), layer.final.clone(), layer.mask.clone()]
    for criterion in FORMULAS:
        criterion().score(layer)
    assert all(
        a.equal(b) for a, b in zip(before, [layer.init, layer.final, layer.mask], strict=True)
    )
