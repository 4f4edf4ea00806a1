"""Parametrizations against plain statements of what they do: masks by a stable sort, gradients by autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lotteryfw import Group, LayerInfo, MaskedLayer, MaskedNetwork, UsageError
from lotteryfw.api.rng import stream
from lotteryfw.std.parametrizations import Bernoulli, TopK

torch.set_num_threads(1)

shapes = st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple)
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


def network(
    seed: int, wanted: list[tuple[int, ...]], allowed: float = 1.0, *, tied: bool = False
) -> dict[str, MaskedLayer]:
    """Edges by layer, with scores on a coarse grid where `tied`."""
    edges = {}
    for place, shape in enumerate(wanted):
        rng = stream("test", seed, place)
        scores = torch.randn(shape, generator=rng)
        scores = (2 * scores).round() / 2 if tied else scores
        weights = torch.randn(shape, generator=rng)
        open_ = torch.rand(shape, generator=rng) < allowed
        layer = LayerInfo(f"fc{place}.weight", shape)
        edges[layer.name] = MaskedLayer(layer, weights, scores, open_)
    return edges


def scored(edges: Mapping[str, MaskedLayer], budgets: list[Group]) -> MaskedNetwork:
    return MaskedNetwork(
        edges, tuple(budgets), lambda layer, rng: torch.randn(layer.shape, generator=rng)
    )


def by_sorting(edges: Mapping[str, MaskedLayer], group: Group, rank: str) -> dict[str, Tensor]:
    """The masks of a group: every allowed edge in one list, sorted by falling rank, ties by place."""
    listed = [
        (-abs(float(score)) if rank == "abs" else -float(score), layer, place)
        for layer, name in enumerate(group.layers)
        for place, score in enumerate(edges[name].scores.flatten())
        if edges[name].allowed.flatten()[place]
    ]
    masks = {name: torch.zeros(edges[name].info.size, dtype=torch.bool) for name in group.layers}
    for _, layer, place in sorted(listed)[: group.keep]:
        masks[group.layers[layer]][place] = True
    return {name: mask.reshape(edges[name].info.shape) for name, mask in masks.items()}


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(shapes, min_size=1, max_size=3), density=shares, allowed=shares, seed=st.integers(0, 99),
    rank=st.sampled_from(["abs", "signed"]), together=st.booleans(), tied=st.booleans(),
)  # fmt: skip
def test_top_k_keeps_what_a_stable_sort_keeps_at_every_step(
    wanted: list[tuple[int, ...]],
    density: float,
    allowed: float,
    seed: int,
    rank: Any,
    together: bool,
    tied: bool,
) -> None:
    edges = network(seed, wanted, allowed, tied=tied)
    alive = {name: int(each.allowed.sum()) for name, each in edges.items()}
    groups = [Group((name,), round(density * count), 0) for name, count in alive.items()]
    if together:
        groups = [Group(tuple(alive), round(density * sum(alive.values())), 0)]
    net, top_k = scored(edges, groups), TopK(rank=rank)
    for step in range(5):  # the scores drift, as in a training, and `net` remembers
        masks = top_k.sampled(net, stream("unused"))
        for group in groups:
            wanted_masks = by_sorting(edges, group, rank)
            assert all(torch.equal(masks[name], wanted_masks[name]) for name in group.layers)
            assert sum(int(masks[name].sum()) for name in group.layers) == group.keep
        for each in edges.values():
            change = torch.randn(each.info.shape, generator=stream("drift", seed, step))
            each.scores.add_((4 * change).round() / 8 if tied else 0.01 * change)


def test_top_k_leaves_alone_what_has_no_budget_and_never_keeps_what_was_removed() -> None:
    edges = network(0, [(4, 5), (3, 4)], allowed=0.4)
    first, second = edges
    masks = TopK().masks(scored(edges, [Group((first,), 19, 19)]))  # more than is allowed
    assert torch.equal(masks[first], edges[first].allowed)
    assert torch.equal(masks[second], edges[second].allowed)
    with pytest.raises(UsageError, match="needs a density"):
        TopK().masks(scored(edges, []))


def test_top_k_scores_begin_within_one_over_the_square_root_of_fan_in() -> None:
    layer = LayerInfo("conv.weight", (64, 16, 3, 3))
    scores = TopK().initial(layer, stream("scores"))
    bound = (16 * 9) ** -0.5
    assert 0.99 * bound < scores.max() <= bound
    assert -bound <= scores.min() < -0.99 * bound
    assert scores.var() == pytest.approx(bound**2 / 3, rel=0.05)


def slopes(how: Any, edges: MaskedLayer, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The weights that a parametrization computes with, and the gradient of some loss of theirs in the scores."""
    scores = edges.scores.clone().requires_grad_()
    weight = how.weight(MaskedLayer(edges.info, edges.weights, scores, edges.allowed), mask)
    return weight.detach(), torch.autograd.grad(loss(weight), scores)[0]


def loss(weight: Tensor) -> Tensor:
    factors = torch.randn(weight.shape, generator=stream("loss"))
    return (weight * factors).sum() + (weight**2).sum()


@pytest.mark.parametrize("scale_fan", [False, True])
@pytest.mark.parametrize("rank", ["abs", "signed"])
@given(shape=shapes, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_top_k_passes_every_score_the_gradient_of_its_rank(
    rank: Any, scale_fan: bool, shape: tuple[int, ...], seed: int
) -> None:
    (edges,) = network(seed, [shape]).values()
    mask = torch.rand(shape, generator=stream("mask", seed)) < 0.5
    weight, slope = slopes(TopK(rank=rank, scale_fan=scale_fan), edges, mask)

    scores = edges.scores.clone().requires_grad_()
    ranks = scores.abs() if rank == "abs" else scores
    plain = edges.weights * (
        mask.float() + ranks - ranks.detach()
    )  # the value of the mask, the slope of the rank
    if scale_fan:
        plain = plain / max(1 / mask.numel(), mask.double().mean().item()) ** 0.5
    torch.testing.assert_close(weight, plain.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(loss(plain), scores)[0])
    assert (weight[~mask] == 0).all()
    assert (slope != 0).all(), "unselected edges learn too"


def test_fans_scaled_by_density_keep_the_variance_of_a_layers_output() -> None:
    shape = (200, 400)
    signs = torch.randint(2, shape, generator=stream("signs")) * 2.0 - 1
    edges = MaskedLayer(
        LayerInfo("fc.weight", shape),
        signs * (2 / 400) ** 0.5,
        torch.randn(shape),
        torch.ones(shape).bool(),
    )
    (mask,) = (
        TopK().masks(scored({"fc.weight": edges}, [Group(("fc.weight",), 8000, 8000)])).values()
    )
    weight = TopK(scale_fan=True).weight(edges, mask)
    torch.testing.assert_close(
        weight[mask].abs(), torch.full((8000,), (2 / (400 * 0.1)) ** 0.5)
    )  # fan_in of the kept
    assert (weight**2).sum(1).mean() == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("rescale", ["none", "static", "dynamic"])
@given(shape=shapes, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_bernoulli_is_autograd_of_the_plain_formula(
    rescale: Any, shape: tuple[int, ...], seed: int
) -> None:
    (edges,) = network(seed, [shape]).values()
    mask = torch.rand(shape, generator=stream("mask", seed)) < 0.5
    weight, slope = slopes(Bernoulli(rescale=rescale, logit=-1.0), edges, mask)
    if rescale == "dynamic" and not mask.any():  # the plain formula divides by 0
        assert (weight == 0).all()
        assert slope.isfinite().all()
        return

    scores = edges.scores.clone().requires_grad_()
    p = torch.sigmoid(scores)
    m = mask.float() + p - p.detach()
    plain = edges.weights * m
    if rescale == "dynamic":
        plain = edges.weights * m * (mask.numel() / m.sum())
    if rescale == "static":
        plain = plain * (1 + torch.tensor(1.0).exp())  # 1 / sigmoid(-1)
    torch.testing.assert_close(weight, plain.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(loss(plain), scores)[0])


def test_bernoulli_draws_each_edge_with_its_own_probability() -> None:
    edges = network(0, [(30, 20), (5, 30)], allowed=0.7)
    net, how = scored(edges, []), Bernoulli()
    total = {name: torch.zeros(each.info.shape) for name, each in edges.items()}
    for number in range(2000):
        for name, mask in how.sampled(net, stream("masks", number)).items():
            total[name] += mask
    for name, each in edges.items():
        found, wanted = total[name] / 2000, each.scores.sigmoid() * each.allowed
        assert (found[~each.allowed] == 0).all()
        sd = (wanted * (1 - wanted) / 2000).sqrt()
        assert ((found - wanted).abs() <= 5 * sd).all()
    alike = how.sampled(net, stream(1)), how.sampled(net, stream(1)), how.sampled(net, stream(2))
    assert all(torch.equal(alike[0][name], alike[1][name]) for name in edges)
    assert not any(torch.equal(alike[0][name], alike[2][name]) for name in edges)


def test_bernoulli_expects_the_sum_of_its_probabilities_and_keeps_what_is_more_likely_in() -> None:
    edges = network(0, [(30, 20)], allowed=0.7)
    ((name, each),) = edges.items()
    mask = Bernoulli().masks(scored(edges, []))[name]
    assert torch.equal(mask, (torch.sigmoid(each.scores) > 0.5) & each.allowed)
    wanted = sum(
        1 / (1 + 2.718281828459045 ** -float(score)) for score in each.scores[each.allowed]
    )
    assert Bernoulli().expected(each, mask) == pytest.approx(wanted)
    assert TopK().expected(each, mask) == int(mask.sum())
    assert (Bernoulli(logit=-0.5).initial(each.info, stream(0)) == -0.5).all()
