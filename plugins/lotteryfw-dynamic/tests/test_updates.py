"""Mask updates against plain loops, and the densities that their papers publish."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

import pytest
import torch
from lotteryfw_dynamic import AcDc, GradualPruning, RigL, Set, register_components
from pydantic import ValidationError
from torch import Tensor

from lotteryfw import Clock, LayerInfo, MaskUpdate, TrainingNetwork, UsageError, stream

LAYERS = (
    LayerInfo("conv.weight", (6, 3, 3, 3)),
    LayerInfo("fc1.weight", (20, 54)),
    LayerInfo("fc2.weight", (5, 20), is_output=True),
)
CLOCK = Clock(total=1000, steps_per_epoch=50)


def network(step: int, masks: dict[str, Tensor] | None = None) -> TrainingNetwork:
    """A network with made-up weights and gradients, the same for one step."""

    def draw(what: str) -> dict[str, Tensor]:
        return {
            layer.name: torch.randn(layer.shape, generator=stream("test", what, step, layer.name))
            for layer in LAYERS
        }

    masks = masks or {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in LAYERS}
    weights = {name: value * masks[name] for name, value in draw("weights").items()}
    return TrainingNetwork(
        LAYERS,
        weights,
        masks,
        stream("test", "update", step),
        lambda: draw("gradients"),
        lambda layer, rng: torch.randn(layer.shape, generator=rng),
    )


def sparse(density: float = 0.3) -> dict[str, Tensor]:
    return {
        layer.name: torch.rand(layer.shape, generator=stream("test", "mask", layer.name)) < density
        for layer in LAYERS
    }


def played(update: MaskUpdate, masks: dict[str, Tensor] | None = None) -> dict[int, dict[str, int]]:
    """By step of a change: how many weights of each layer are alive after it, checked against its budgets."""
    net = network(0, masks)
    counts = {}
    for step in range(1, CLOCK.total):
        if not update.due(step, CLOCK):
            continue
        net = network(step, dict(net.masks))
        groups = update.budgets(step, CLOCK, LAYERS, net.kept)
        new = dict(net.masks) | update.update(step, CLOCK, net)
        for group in groups:
            assert sum(int(new[name].sum()) for name in group.layers) == group.keep
        net = network(step, new)
        counts[step] = net.kept
    return counts


def test_gradual_pruning_has_the_cubic_density_at_every_change() -> None:
    counts = played(GradualPruning(density=0.05, begin="100it", end="700it", every="60it"))
    assert list(counts) == list(range(160, 701, 60))
    for step, kept in counts.items():
        sparsity = 0.95 + (0 - 0.95) * (1 - (step - 100) / 600) ** 3  # equation 1, in sparsity
        for layer in LAYERS:
            assert kept[layer.name] == round((1 - sparsity) * layer.size)


def test_gradual_pruning_reaches_its_density_at_the_end_whatever_the_interval() -> None:
    counts = played(GradualPruning(density=0.1, end="75%", every="400it", budget="global"))
    assert list(counts) == [400, 750]
    assert sum(counts[750].values()) == round(0.1 * sum(layer.size for layer in LAYERS))


def test_ac_dc_has_the_published_phases_and_densities() -> None:
    update = AcDc(density=0.1, warmup="100it", phase="200it", last="850it")
    size = sum(layer.size for layer in LAYERS)
    totals = {step: sum(kept.values()) for step, kept in played(update).items()}
    sparse_size = round(0.1 * size)
    assert totals == {100: sparse_size, 300: size, 500: sparse_size, 700: size, 850: sparse_size}


def plain_rigl(net: TrainingNetwork, share: float) -> dict[str, set[int]]:
    """By layer: the living weights after one change, as a plain loop over single weights."""
    alive_after = {}
    gradients = net.gradients()
    for layer in net.layers:
        weight = net.weights[layer.name].flatten().tolist()
        slope = gradients[layer.name].flatten().tolist()
        alive = [
            i for i, is_alive in enumerate(net.masks[layer.name].flatten().tolist()) if is_alive
        ]
        count = min(round(share * len(alive)), layer.size - len(alive))
        dropped = sorted(alive, key=lambda i: abs(weight[i]))[:count]
        survivors = set(alive) - set(dropped)
        candidates = [i for i in range(layer.size) if i not in survivors]
        grown = sorted(candidates, key=lambda i: -abs(slope[i]))[:count]
        alive_after[layer.name] = survivors | set(grown)
    return alive_after


def test_rigl_drops_and_grows_what_a_plain_loop_does_over_five_updates() -> None:
    update = RigL(alpha=0.3, every="100it", end="75%")
    assert [step for step in range(1, 1000) if update.due(step, CLOCK)] == list(
        range(100, 750, 100)
    )
    masks = sparse()
    changed = 0
    for step in range(100, 600, 100):
        net = network(step, masks)
        expected = plain_rigl(net, 0.15 * (1 + cos(pi * step / 750)))
        masks = update.update(step, CLOCK, net)
        for layer in LAYERS:
            alive = set(masks[layer.name].flatten().nonzero().flatten().tolist())
            assert alive == expected[layer.name]
            changed += int((masks[layer.name] & ~net.masks[layer.name]).sum())
    assert changed > 100


def test_set_replaces_the_smallest_weights_by_others_at_random() -> None:
    update, net = Set(share=0.3), network(50, sparse())
    masks = update.update(50, CLOCK, net)
    for layer in LAYERS:
        before, after = net.masks[layer.name], masks[layer.name]
        count = round(0.3 * int(before.sum()))
        dropped, grown = before & ~after, after & ~before
        assert int(dropped.sum()) == int(grown.sum()) == count
        magnitude = net.weights[layer.name].abs()
        assert magnitude[dropped].max() <= magnitude[before & after].min()
    regrown = update.regrown(LAYERS[1], network(50))
    assert torch.equal(regrown, update.regrown(LAYERS[1], network(50)))
    assert regrown.std() > 0.5
    assert not Set(values="zero").regrown(LAYERS[1], net).any()


@pytest.mark.parametrize("update", [Set(), RigL(), Set(share=1.0)])
def test_dynamic_sparse_training_keeps_every_layers_density(update: MaskUpdate) -> None:
    masks = sparse()
    start = {name: int(mask.sum()) for name, mask in masks.items()}
    counts = played(update, masks)
    assert len(counts) > 5
    assert all(kept == start for kept in counts.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradualPruning(begin="80%"), "begin"),
        (lambda: GradualPruning(every="0it"), "every"),
        (lambda: RigL(every="0it"), "every"),
        (lambda: AcDc(warmup="90%"), "warmup"),
    ],
)
def test_times_that_do_not_fit_the_training_are_refused(
    make: Callable[[], MaskUpdate], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make().due(100, CLOCK)


def test_options_are_checked_and_the_plugin_registers_its_updates() -> None:
    with pytest.raises(ValidationError, match="compresses nothing"):
        AcDc(density=1.0)
    assert register_components() == [GradualPruning, Set, RigL, AcDc]
