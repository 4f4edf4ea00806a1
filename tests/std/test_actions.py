import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.layers import make_layer
from torch import Tensor

from lotteryfw.api.kinds import Mask0Action, Mask1Action
from lotteryfw.std import mask0, mask1

SIGNED = [mask1.Reinit, mask1.ReinitEmpirical, mask1.Reshuffle, mask1.Constant]
ALL_MASK1 = [mask1.Rewind, *SIGNED]
ALL_MASK0 = [
    mask0.Zero, mask0.Init, mask0.InitZero, mask0.InitZeroAll, mask0.InitZeroReshuffle, mask0.InitZeroReverse
]  # fmt: skip
ids = {"ids": lambda cls: cls.use}


def multiset(values: Tensor) -> list[float]:
    return sorted(values.tolist())


# mask-1


def test_rewind_returns_to_the_rewound_values() -> None:
    layer = make_layer()
    assert mask1.Rewind().kept_values(layer).equal(layer.rewound)


@pytest.mark.parametrize("action", SIGNED, **ids)
@given(seed=st.integers(0, 30))
def test_keep_sign_keeps_every_sign(action: type[Mask1Action], seed: int) -> None:
    layer = make_layer(seed=seed)
    assert action(keep_sign=True).kept_values(layer).sign().equal(layer.rewound.sign())


@pytest.mark.parametrize("action", SIGNED, **ids)
def test_without_it_signs_are_a_coins(action: type[Mask1Action]) -> None:
    layer = make_layer(
        shape=(60, 50), mask_before=torch.ones(60, 50).bool(), mask=torch.ones(60, 50).bool()
    )
    agree = (
        (action(keep_sign=False).kept_values(layer).sign() == layer.rewound.sign()).double().mean()
    )
    assert 0.45 < agree < 0.55


@pytest.mark.parametrize("action", SIGNED, **ids)
def test_sign_forms_differ_in_sign_only(action: type[Mask1Action]) -> None:
    kept, own = (action(keep_sign=keep).kept_values(make_layer()) for keep in (True, False))
    assert kept.abs().equal(own.abs())
    assert not kept.equal(own)


def test_reinit_is_the_initialisers_draw() -> None:
    layer = make_layer()
    assert mask1.Reinit(keep_sign=False).kept_values(layer).equal(layer.resample())


def test_reinit_empirical_draws_from_all_original_values_with_replacement() -> None:
    layer = make_layer(shape=(40, 40))
    drawn = mask1.ReinitEmpirical(keep_sign=False).kept_values(layer)
    pool = set(layer.original.flatten().tolist())
    found = set(drawn.flatten().tolist())
    assert found < pool
    assert (
        abs(len(found) / len(pool) - (1 - 1 / np.e)) < 0.05
    )  # the share that n draws with replacement hit
    assert found & set(
        layer.original[~layer.mask_before].tolist()
    )  # pruned places' values count, too


@given(seed=st.integers(0, 30))
def test_reshuffle_permutes_the_kept_values(seed: int) -> None:
    layer = make_layer(seed=seed)
    kept = layer.rewound[layer.mask]
    with_sign = mask1.Reshuffle(keep_sign=True).kept_values(layer)[layer.mask]
    own_sign = mask1.Reshuffle(keep_sign=False).kept_values(make_layer(seed=seed))[layer.mask]
    assert multiset(with_sign.abs()) == multiset(kept.abs())
    assert multiset(own_sign) == multiset(kept)


def test_reshuffle_moves_something() -> None:
    layer = make_layer(shape=(30, 30))
    still = (
        mask1.Reshuffle(keep_sign=False).kept_values(layer)[layer.mask] == layer.rewound[layer.mask]
    )
    assert still.double().mean() < 0.1


def test_constant_is_the_population_deviation_of_the_initial_values() -> None:
    layer = make_layer()
    magnitudes = mask1.Constant().kept_values(layer).abs()
    np.testing.assert_allclose(magnitudes.numpy(), np.std(layer.original.numpy()), rtol=1e-6)


@pytest.mark.parametrize("action", ALL_MASK1, **ids)
def test_rescale_multiplies_by_size_over_kept(action: type[Mask1Action]) -> None:
    layer = make_layer()
    plain, rescaled = (
        action(rescale=rescale).kept_values(make_layer()) for rescale in (False, True)
    )
    assert plain.dtype == rescaled.dtype == torch.float32
    np.testing.assert_allclose(
        rescaled.numpy(), plain.numpy() * (30 / int(layer.mask.sum())), rtol=1e-6
    )


@pytest.mark.parametrize("action", ALL_MASK1, **ids)
def test_a_layer_with_nothing_kept_is_no_accident(action: type[Mask1Action]) -> None:
    nothing = make_layer(mask=torch.zeros(6, 5).bool())
    assert action(rescale=True).kept_values(nothing).isfinite().all()


@pytest.mark.parametrize("action", SIGNED[1:], **ids)
def test_draws_come_from_the_leafs_stream(action: type[Mask1Action]) -> None:
    first, again, other = (
        action(keep_sign=False).kept_values(make_layer(level=level)) for level in (2, 2, 3)
    )
    assert first.equal(again)
    assert not first.equal(other)


# mask-0


def test_dead_values_restated() -> None:
    layer = make_layer(shape=(20, 20))
    w_k, w_f, frozen = layer.rewound.numpy(), layer.final.numpy(), layer.init.numpy()
    cut = layer.mask_before.numpy() & ~layer.mask.numpy()
    shrank, grew = np.abs(w_f) < np.abs(w_k), np.abs(w_f) > np.abs(w_k)
    expected = {
        mask0.Zero: np.zeros_like(w_k),
        mask0.Init: w_k,
        mask0.InitZero: np.where(shrank, 0, w_k),
        mask0.InitZeroAll: np.where(shrank, 0, w_k),
        mask0.InitZeroReverse: np.where(grew, 0, w_k),
    }
    for action, decided in expected.items():
        np.testing.assert_array_equal(
            action().masked_values(layer).numpy(),
            np.where(cut, decided, frozen),
            err_msg=action.use,
        )


@pytest.mark.parametrize("action", ALL_MASK0, **ids)
@given(seed=st.integers(0, 20))
def test_the_long_dead_stay_at_their_value(action: type[Mask0Action], seed: int) -> None:
    layer = make_layer(seed=seed)
    dead = action().masked_values(layer)
    assert dead.dtype == torch.float32
    assert dead[~layer.mask_before].equal(layer.init[~layer.mask_before])


@given(seed=st.integers(0, 30))
def test_reshuffle_zeroes_as_many_at_other_places(seed: int) -> None:
    layer = make_layer(shape=(12, 12), seed=seed)
    ruled, random = (
        mask0.InitZero().masked_values(layer),
        mask0.InitZeroReshuffle().masked_values(layer),
    )
    assert (ruled[layer.cut] == 0).sum() == (random[layer.cut] == 0).sum()
    assert random[layer.cut & (random != 0)].equal(layer.rewound[layer.cut & (random != 0)])
    assert not ruled.equal(random)


def test_reverse_zeroes_what_init_zero_freezes() -> None:
    layer = make_layer()
    ruled, reverse = (
        mask0.InitZero().masked_values(layer)[layer.cut],
        mask0.InitZeroReverse().masked_values(layer)[layer.cut],
    )
    assert ((ruled == 0) ^ (reverse == 0)).all()


def test_unmoved_weights_are_frozen_either_way() -> None:
    still = torch.ones(6, 5)
    layer = make_layer(final=still, rewound=still)
    for action in (mask0.InitZero, mask0.InitZeroReverse):
        assert (action().masked_values(layer)[layer.cut] == 1).all()


def test_init_zero_all_zeroes_kept_weights_that_shrank() -> None:
    layer = make_layer()
    alive = torch.full((6, 5), 7.0)
    kept = mask0.InitZeroAll().kept(layer, alive)
    expected = np.where(np.abs(layer.final.numpy()) < np.abs(layer.rewound.numpy()), 0, 7)
    np.testing.assert_array_equal(kept.numpy(), expected)
    assert (alive == 7).all()


def test_only_init_zero_all_touches_kept_weights() -> None:
    layer = make_layer()
    alive = torch.full((6, 5), 7.0)
    changing = [
        action for action in ALL_MASK0 if not torch.equal(action().kept(layer, alive), alive)
    ]
    assert changing == [mask0.InitZeroAll]


@pytest.mark.parametrize("action", [*ALL_MASK1, *ALL_MASK0], **ids)
def test_actions_leave_the_leaf_as_it_was(action: type[Mask1Action] | type[Mask0Action]) -> None:
    layer, untouched = make_layer(), make_layer()
    act = action()
    act.kept_values(layer) if isinstance(act, Mask1Action) else act.masked_values(layer)
    for name in ("original", "init", "final", "rewound", "mask", "mask_before"):
        assert getattr(layer, name).equal(getattr(untouched, name)), name
