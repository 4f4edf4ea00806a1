import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from leaves import make_leaf
from torch import Tensor

from lotteryfw.kinds import Mask0Action, Mask1Action
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
    leaf = make_leaf()
    assert mask1.Rewind().alive(leaf).equal(leaf.rewound)


@pytest.mark.parametrize("action", SIGNED, **ids)
@given(seed=st.integers(0, 30))
def test_keep_sign_keeps_every_sign(action: type[Mask1Action], seed: int) -> None:
    leaf = make_leaf(seed=seed)
    assert action(keep_sign=True).alive(leaf).sign().equal(leaf.rewound.sign())


@pytest.mark.parametrize("action", SIGNED, **ids)
def test_without_it_signs_are_a_coins(action: type[Mask1Action]) -> None:
    leaf = make_leaf(shape=(60, 50), mask_before=torch.ones(60, 50).bool(), mask=torch.ones(60, 50).bool())
    agree = (action(keep_sign=False).alive(leaf).sign() == leaf.rewound.sign()).double().mean()
    assert 0.45 < agree < 0.55


@pytest.mark.parametrize("action", SIGNED, **ids)
def test_sign_forms_differ_in_sign_only(action: type[Mask1Action]) -> None:
    kept, own = (action(keep_sign=keep).alive(make_leaf()) for keep in (True, False))
    assert kept.abs().equal(own.abs())
    assert not kept.equal(own)


def test_reinit_is_the_initialisers_draw() -> None:
    leaf = make_leaf()
    assert mask1.Reinit(keep_sign=False).alive(leaf).equal(leaf.resample())


def test_reinit_empirical_draws_from_all_original_values_with_replacement() -> None:
    leaf = make_leaf(shape=(40, 40))
    drawn = mask1.ReinitEmpirical(keep_sign=False).alive(leaf)
    pool = set(leaf.original.flatten().tolist())
    found = set(drawn.flatten().tolist())
    assert found < pool
    assert abs(len(found) / len(pool) - (1 - 1 / np.e)) < 0.05  # the share that n draws with replacement hit
    assert found & set(leaf.original[~leaf.mask_before].tolist())  # pruned places' values count, too


@given(seed=st.integers(0, 30))
def test_reshuffle_permutes_the_kept_values(seed: int) -> None:
    leaf = make_leaf(seed=seed)
    kept = leaf.rewound[leaf.mask]
    with_sign = mask1.Reshuffle(keep_sign=True).alive(leaf)[leaf.mask]
    own_sign = mask1.Reshuffle(keep_sign=False).alive(make_leaf(seed=seed))[leaf.mask]
    assert multiset(with_sign.abs()) == multiset(kept.abs())
    assert multiset(own_sign) == multiset(kept)


def test_reshuffle_moves_something() -> None:
    leaf = make_leaf(shape=(30, 30))
    still = mask1.Reshuffle(keep_sign=False).alive(leaf)[leaf.mask] == leaf.rewound[leaf.mask]
    assert still.double().mean() < 0.1


def test_constant_is_the_population_deviation_of_the_initial_values() -> None:
    leaf = make_leaf()
    magnitudes = mask1.Constant().alive(leaf).abs()
    np.testing.assert_allclose(magnitudes.numpy(), np.std(leaf.original.numpy()), rtol=1e-6)


@pytest.mark.parametrize("action", ALL_MASK1, **ids)
def test_rescale_multiplies_by_size_over_kept(action: type[Mask1Action]) -> None:
    leaf = make_leaf()
    plain, rescaled = (action(rescale=rescale).alive(make_leaf()) for rescale in (False, True))
    assert plain.dtype == rescaled.dtype == torch.float32
    np.testing.assert_allclose(rescaled.numpy(), plain.numpy() * (30 / int(leaf.mask.sum())), rtol=1e-6)


@pytest.mark.parametrize("action", ALL_MASK1, **ids)
def test_a_layer_with_nothing_kept_is_no_accident(action: type[Mask1Action]) -> None:
    nothing = make_leaf(mask=torch.zeros(6, 5).bool())
    assert action(rescale=True).alive(nothing).isfinite().all()


@pytest.mark.parametrize("action", SIGNED[1:], **ids)
def test_draws_come_from_the_leafs_stream(action: type[Mask1Action]) -> None:
    first, again, other = (action(keep_sign=False).alive(make_leaf(level=level)) for level in (2, 2, 3))
    assert first.equal(again)
    assert not first.equal(other)


# mask-0


def test_dead_values_restated() -> None:
    leaf = make_leaf(shape=(20, 20))
    w_k, w_f, frozen = leaf.rewound.numpy(), leaf.final.numpy(), leaf.init.numpy()
    cut = leaf.mask_before.numpy() & ~leaf.mask.numpy()
    shrank, grew = np.abs(w_f) < np.abs(w_k), np.abs(w_f) > np.abs(w_k)
    expected = {
        mask0.Zero: np.zeros_like(w_k),
        mask0.Init: w_k,
        mask0.InitZero: np.where(shrank, 0, w_k),
        mask0.InitZeroAll: np.where(shrank, 0, w_k),
        mask0.InitZeroReverse: np.where(grew, 0, w_k),
    }
    for action, decided in expected.items():
        np.testing.assert_array_equal(action().dead(leaf).numpy(), np.where(cut, decided, frozen), err_msg=action.use)


@pytest.mark.parametrize("action", ALL_MASK0, **ids)
@given(seed=st.integers(0, 20))
def test_the_long_dead_stay_at_their_value(action: type[Mask0Action], seed: int) -> None:
    leaf = make_leaf(seed=seed)
    dead = action().dead(leaf)
    assert dead.dtype == torch.float32
    assert dead[~leaf.mask_before].equal(leaf.init[~leaf.mask_before])


@given(seed=st.integers(0, 30))
def test_reshuffle_zeroes_as_many_at_other_places(seed: int) -> None:
    leaf = make_leaf(shape=(12, 12), seed=seed)
    ruled, random = mask0.InitZero().dead(leaf), mask0.InitZeroReshuffle().dead(leaf)
    assert (ruled[leaf.cut] == 0).sum() == (random[leaf.cut] == 0).sum()
    assert random[leaf.cut & (random != 0)].equal(leaf.rewound[leaf.cut & (random != 0)])
    assert not ruled.equal(random)


def test_reverse_zeroes_what_init_zero_freezes() -> None:
    leaf = make_leaf()
    ruled, reverse = mask0.InitZero().dead(leaf)[leaf.cut], mask0.InitZeroReverse().dead(leaf)[leaf.cut]
    assert ((ruled == 0) ^ (reverse == 0)).all()


def test_unmoved_weights_are_frozen_either_way() -> None:
    still = torch.ones(6, 5)
    leaf = make_leaf(final=still, rewound=still)
    for action in (mask0.InitZero, mask0.InitZeroReverse):
        assert (action().dead(leaf)[leaf.cut] == 1).all()


def test_init_zero_all_zeroes_kept_weights_that_shrank() -> None:
    leaf = make_leaf()
    alive = torch.full((6, 5), 7.0)
    kept = mask0.InitZeroAll().kept(leaf, alive)
    expected = np.where(np.abs(leaf.final.numpy()) < np.abs(leaf.rewound.numpy()), 0, 7)
    np.testing.assert_array_equal(kept.numpy(), expected)
    assert (alive == 7).all()


def test_only_init_zero_all_touches_kept_weights() -> None:
    leaf = make_leaf()
    alive = torch.full((6, 5), 7.0)
    changing = [action for action in ALL_MASK0 if not torch.equal(action().kept(leaf, alive), alive)]
    assert changing == [mask0.InitZeroAll]


@pytest.mark.parametrize("action", [*ALL_MASK1, *ALL_MASK0], **ids)
def test_actions_leave_the_leaf_as_it_was(action: type[Mask1Action] | type[Mask0Action]) -> None:
    leaf, untouched = make_leaf(), make_leaf()
    act = action()
    act.alive(leaf) if isinstance(act, Mask1Action) else act.dead(leaf)
    for name in ("original", "init", "final", "rewound", "mask", "mask_before"):
        assert getattr(leaf, name).equal(getattr(untouched, name)), name
