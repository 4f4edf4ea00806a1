"""From scores to masks: exact budgets, the dead stay dead, ties from a stream; against NumPy and torch's pruning."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from lotteryfw.api.errors import ContractError
from lotteryfw.api.layers import Group, Layer, LayerInfo
from lotteryfw.api.rng import stream
from lotteryfw.search.jobs import Spec
from lotteryfw.search.pruning import Pruner
from lotteryfw.search.top_k import (
    IncrementalTopK,
    _last_of_topk,
    best,
    budget,
    check_tensor,
    cut,
    top,
)
from lotteryfw.std.criteria import LargeFinal
from lotteryfw.std.scopes import Global, Layerwise
from lotteryfw.testkit import make_layer

CALM = settings(deadline=None)
"""The machine may be busy with other things."""
Network = tuple[dict[str, Tensor], dict[str, Tensor]]
Parts = list[tuple[str, ...]]
SHAPES = {"a": (4, 5), "b": (3, 2, 3, 3), "c": (7,)}


def ties(layers: tuple[str, ...] = (), seed: int = 0) -> torch.Generator:
    return stream(seed, "ties", *layers)


def no_ties(layers: tuple[str, ...] = ()) -> torch.Generator:
    raise AssertionError("ties were drawn where there are none")


@st.composite
def networks(draw: st.DrawFn, values: int = 10**6) -> Network:
    """Scores, whole numbers so that `values` says how many tie, and masks of three layers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    alive = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    scores = {
        n: torch.from_numpy(rng.integers(-values, values, shape).astype("float32"))
        for n, shape in SHAPES.items()
    }
    masks = {name: torch.from_numpy(rng.random(shape) < alive) for name, shape in SHAPES.items()}
    return scores, masks


def groups(draw: st.DataObject, masks: dict[str, Tensor], parts: Parts) -> list[Group]:
    keeps = [
        draw.draw(st.integers(0, sum(int(masks[name].sum()) for name in part))) for part in parts
    ]
    return [Group(part, keep, keep) for part, keep in zip(parts, keeps, strict=True)]


PARTITIONS = st.sampled_from(
    [[("a",), ("b",), ("c",)], [("a", "b", "c")], [("c", "a")], [("b",), ("a", "c")], []]
)


@CALM
@given(network=networks(values=3), data=st.data(), parts=PARTITIONS)
def test_budgets_are_exact_and_the_dead_stay_dead(
    network: Network, data: st.DataObject, parts: Parts
) -> None:
    scores, masks = network
    chosen = groups(data, masks, parts)
    before = {name: mask.clone() for name, mask in masks.items()}
    result = cut(scores, masks, chosen, ties)
    for group in chosen:
        assert sum(int(result[name].sum()) for name in group.layers) == group.keep
    grouped = {name for group in chosen for name in group.layers}
    for name, mask in result.items():
        assert mask.shape == masks[name].shape
        assert mask.dtype == torch.bool
        assert not (mask & ~masks[name]).any()
        assert torch.equal(masks[name], before[name])
        assert name in grouped or torch.equal(mask, masks[name])


def stated(scores: list[np.ndarray], masks: list[np.ndarray], keep: int) -> list[np.ndarray]:
    """The rule once more, in NumPy: sort the living by score, keep the last ones."""
    flat, alive = (
        np.concatenate([s.ravel() for s in scores]),
        np.concatenate([m.ravel() for m in masks]),
    )
    order = [place for place in np.argsort(flat, kind="stable") if alive[place]]
    kept = np.zeros(flat.size, dtype=bool)
    kept[order[len(order) - keep :]] = True
    ends = np.cumsum([m.size for m in masks])[:-1]
    return [part.reshape(m.shape) for part, m in zip(np.split(kept, ends), masks, strict=True)]


@CALM
@given(network=networks(), data=st.data(), parts=PARTITIONS)
def test_without_ties_the_masks_are_those_of_a_stable_sort(
    network: Network, data: st.DataObject, parts: Parts
) -> None:
    noise, masks = network
    ranks = torch.cat([part.flatten() for part in noise.values()]).argsort(stable=True).float() - 20
    parted = zip(masks, ranks.split([mask.numel() for mask in masks.values()]), strict=True)
    scores = {name: part.reshape(SHAPES[name]) for name, part in parted}
    for group in groups(data, masks, parts):
        result = cut(scores, masks, [group], no_ties)
        own = [scores[n].numpy() for n in group.layers], [masks[n].numpy() for n in group.layers]
        for name, expected in zip(group.layers, stated(*own, group.keep), strict=True):
            assert np.array_equal(result[name].numpy(), expected)


@CALM
@given(network=networks(values=3), data=st.data())
def test_with_ties_the_kept_scores_are_those_of_a_stable_sort(
    network: Network, data: st.DataObject
) -> None:
    scores, masks = network
    (group,) = groups(data, masks, [("a", "b", "c")])
    result = cut(scores, masks, [group], ties)
    expected = stated(
        [s.numpy() for s in scores.values()], [m.numpy() for m in masks.values()], group.keep
    )
    kept = [value for name in SHAPES for value in scores[name][result[name]].tolist()]
    assert sorted(kept) == sorted(
        v for s, m in zip(scores.values(), expected, strict=True) for v in s.numpy()[m]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_type_is_selected_alike(dtype: torch.dtype) -> None:
    scores = torch.randperm(200, generator=ties()).to(dtype)
    assert sorted(scores[best(scores, 50, no_ties)].tolist()) == list(range(150, 200))


def test_ties_are_decided_by_the_stream_alone() -> None:
    scores = torch.tensor([5.0, 1, 1, 1, 1, 0])
    chosen = [
        tuple(best(scores, 3, lambda seed=seed: ties(seed=seed)).tolist()) for seed in range(600)
    ]
    again = [
        tuple(best(scores, 3, lambda seed=seed: ties(seed=seed)).tolist()) for seed in range(600)
    ]
    assert chosen == again
    counted = Counter(chosen)
    pairs = {(0, i, j) for i in range(1, 5) for j in range(i + 1, 5)}
    assert counted.keys() == pairs
    assert all(60 <= count <= 140 for count in counted.values())  # 100 expected, deviation 9


def masks_by_constant_scores(*names: str, seed: int = 0) -> dict[str, Tensor]:
    """Return the masks of level 1 that keep half of each layer, where all its scores tie."""
    layers = [LayerInfo(name, (64, 64)) for name in names]
    scope = Layerwise(rate=0.5, output_rate=0.5)
    spec = Spec("scope", "layerwise", "lotteryfw", {})
    pruner = Pruner(scope, spec, spec, layers, seed=0, ties_seed=seed)
    whole = {name: torch.ones(64, 64, dtype=torch.bool) for name in names}
    scores = {name: torch.ones(64, 64) for name in names}
    groups = pruner.budgets_after(pruner.sizes, 1)
    return pruner.by_score(whole, scores, groups, level=1)[0]


def test_each_group_draws_its_ties_from_a_stream_of_its_own() -> None:
    masks = masks_by_constant_scores("a", "b", "c")
    kept_by_two = int((masks["a"] & masks["b"]).sum())
    # by chance, 1024 of 2048 with a deviation of 16
    assert abs(kept_by_two - 1024) < 160
    assert not torch.equal(masks["b"], masks["c"])
    assert not torch.equal(masks["a"], masks_by_constant_scores("a", "b", "c", seed=1)["a"])
    # without the other layers, and in another order of them
    for others in ([], ["d"], ["c", "b"]):
        again = masks_by_constant_scores(*others, "a")
        assert torch.equal(again["a"], masks["a"])


def test_nothing_is_drawn_unless_ties_have_to_be_broken() -> None:
    assert best(torch.tensor([2.0, 1, 1, 0]), 3, no_ties).tolist() == [0, 1, 2]
    assert best(torch.ones(4), 4, no_ties).tolist() == [0, 1, 2, 3]
    assert best(torch.ones(4), 0, no_ties).tolist() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_cannot_be_ordered_are_refused_where_they_count(bad: float) -> None:
    scores, mask = torch.tensor([1.0, bad, 3.0]), torch.tensor([True, True, True])
    with pytest.raises(ContractError, match=r"1 of 3 scores .*are NaN or infinite"):
        cut({"w": scores}, {"w": mask}, [Group(("w",), 1, 1)], ties)
    alive = torch.tensor([True, False, True])
    assert cut({"w": scores}, {"w": alive}, [Group(("w",), 1, 1)], ties)["w"].tolist() == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("keep", [-1, 3])
def test_budgets_outside_of_what_is_alive_are_refused(keep: int) -> None:
    mask = torch.tensor([True, False, True])
    with pytest.raises(ContractError, match=f"{keep} weights to keep of 2 that are alive"):
        cut({"w": torch.ones(3)}, {"w": mask}, [Group(("w",), keep, keep)], ties)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "x returned list, not a tensor"),
        (torch.ones(3, 2), r"x returned shape \[3, 2\]; the layer's shape is \[2, 3\]"),
        (
            torch.ones(2, 3, dtype=torch.int32),
            "x returned dtype torch.int32; floating point is needed",
        ),
    ],
)
def test_values_that_are_no_scores_are_refused(value: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_tensor(value, (2, 3), "x")
    kept = check_tensor(torch.ones(2, 3, requires_grad=True), (2, 3), "x")
    assert not kept.requires_grad


# Against torch.nn.utils.prune, which prunes by magnitude, in place and again and again


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.Flatten(), nn.Linear(63, 41), nn.Linear(41, 10))


def prunable(module: nn.Module) -> dict[str, nn.Module]:
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    }


def ours(
    weights: dict[str, Tensor], masks: dict[str, Tensor], scope: Layerwise | Global
) -> dict[str, Tensor]:
    """One cut by large_final, as the lab makes it."""
    layers = [LayerInfo(name, tuple(weight.shape)) for name, weight in weights.items()]
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    scores = {name: LargeFinal().score(leaf_of(weight)) for name, weight in weights.items()}
    return cut(scores, masks, scope.groups(layers, kept, 1), no_ties)


def leaf_of(weight: Tensor) -> Layer:
    return replace(make_layer(tuple(weight.shape)), final=weight)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("scope", [Layerwise, Global])
def test_magnitude_pruning_equals_torchs_own(scope: type, rate: float) -> None:
    module = network(seed=round(100 * rate))
    parts = prunable(module)
    weights = {name: part.weight.detach().clone() for name, part in parts.items()}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    for _ in range(4):
        masks = ours(weights, masks, scope(rate=rate))
        if scope is Global:
            chosen = [(part, "weight") for part in parts.values()]
            prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=rate)
        else:
            for part in parts.values():
                prune.l1_unstructured(part, "weight", amount=rate)
        for name, part in parts.items():
            assert torch.equal(masks[name], part.weight_mask.bool())


@CALM
@given(size=st.integers(1, 2000), rate=st.floats(0, 0.99), times=st.integers(1, 4))
def test_budget_counts_as_torchs_pruning_does(size: int, rate: float, times: int) -> None:
    module = nn.Linear(size, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.arange(1.0, size + 1))
    for _ in range(times):
        prune.l1_unstructured(module, "weight", amount=rate)
    assert budget(size, rate, times) == int(module.weight_mask.sum())


def stable_top(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """The plain statement: a stable sort from large to small, the first `keep`."""
    order = torch.sort(scores.reshape(-1), descending=True, stable=True).indices[:keep]
    kept = torch.zeros(scores.numel(), dtype=torch.bool)
    kept[order] = True
    return kept.reshape(scores.shape)


@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 400),
    share=st.floats(0, 1),
    drift=st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e6]),
    levels=st.sampled_from([0, 1, 3, 50]),
)
@settings(deadline=None)
def test_warm_top_equals_a_stable_sort_however_scores_move(
    seed: int, size: int, share: float, drift: float, levels: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    keep = round(share * size)
    warm = IncrementalTopK(keep)
    scores = torch.randn(size, generator=rng)
    for _ in range(6):
        ranked = (
            torch.round(scores * levels) / levels if levels else scores
        )  # few levels: many ties
        expected = stable_top(ranked, keep)
        assert torch.equal(warm(ranked), expected)
        assert torch.equal(top(ranked, keep), expected)
        scores = scores + drift * torch.randn(size, generator=rng)


@given(seed=st.integers(0, 10**6), keep=st.integers(0, 60), levels=st.sampled_from([0, 1, 3, 50]))
@settings(deadline=None)
def test_warm_top_may_order_ties_otherwise(seed: int, keep: int, levels: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randn(60, generator=rng)
    ranked = torch.round(scores * levels) / levels if levels else scores
    order = torch.randperm(60, generator=rng)
    in_order = torch.empty(60)
    in_order[order] = ranked
    # Selecting among the same scores in their order keeps the same ones.
    kept = IncrementalTopK(keep, order)(ranked)
    assert torch.equal(kept, stable_top(in_order, keep)[order])


def test_warm_top_keeps_shapes_and_refuses_too_large_a_budget() -> None:
    assert IncrementalTopK(2)(torch.tensor([[1.0, 3.0], [2.0, 0.0]])).tolist() == [
        [False, True],
        [True, False],
    ]
    with pytest.raises(ContractError, match="5 to keep of 4"):
        IncrementalTopK(5)(torch.zeros(2, 2))


@given(
    st.lists(st.sampled_from([-2.5, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=40),
    st.data(),
)
def test_top_and_its_threshold_on_a_gpu_are_those_of_a_stable_sort(
    numbers: list[float], data: st.DataObject
) -> None:
    scores = torch.tensor(numbers)
    keep = data.draw(st.integers(1, len(numbers)))
    order = torch.sort(scores, descending=True, stable=True)
    assert _last_of_topk(scores, keep) == order.values[keep - 1]
    mask = torch.zeros(len(numbers), dtype=torch.bool)
    mask[order.indices[:keep]] = True
    assert torch.equal(top(scores, keep), mask)
