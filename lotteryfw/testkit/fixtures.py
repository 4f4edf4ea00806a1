"""Layers and networks that components are tried on, from whole to almost pruned away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lotteryfw.api.layers import (
    ControlLayer,
    Group,
    Layer,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
)
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLOCKS = (Clock(20_000, 400), Clock(30_000, 391), Clock(50_000, 917))
"""Trainings of the length that papers report: options that name a step fit into them."""

LAYERS = (
    LayerInfo("conv1.weight", (16, 3, 3, 3)),
    LayerInfo("conv2.weight", (32, 16, 3, 3)),
    LayerInfo("fc1.weight", (50, 288)),
    LayerInfo("fc2.weight", (10, 50), is_output=True),
)


def make_layer(
    shape: tuple[int, ...] = (6, 8),
    alive: int | None = None,
    cut: int = 0,
    *,
    seed: int = 0,
    gradient: bool = False,
) -> Layer:
    """Return a layer of a small network, the same one for equal arguments.

    The mask keeps `alive` weights (None: all that are not cut) at random places; this level's pruning
    removed `cut` more (0: the layer of a criterion, which is read before). The others were pruned
    earlier and are frozen at 0. Nothing was drawn from the layer's random stream yet.
    """
    import torch

    info = LayerInfo("conv.weight" if len(shape) > 2 else "fc.weight", shape)

    def draw(purpose: str, scale: float) -> Tensor:
        return scale * torch.randn(shape, generator=stream(seed, "testkit", purpose))

    # the rank of a weight in this order decides when it is pruned
    order = torch.randperm(info.size, generator=stream(seed, "testkit", "order")).reshape(shape)
    kept = info.size - cut if alive is None else alive
    mask_before = order < kept + cut
    original = draw("original", 0.3)
    # a short training moves weights little, a whole one moves them by about their own size
    rewound = original + draw("early", 0.03)
    init = rewound.where(mask_before, 0.0)
    return Layer(
        info=info,
        original=original,
        init=init,
        final=(init + draw("late", 0.2)).where(mask_before, init),
        rewound=rewound,
        mask=order < kept,
        mask_before=mask_before,
        rng=stream(seed, "testkit", "rng"),
        _resample=lambda: draw("resample", 0.3),
        _gradient=draw("gradient", 0.1) if gradient else None,
    )


_CASES: dict[str, tuple[tuple[int, ...], int | None, int]] = {
    "a linear layer": ((6, 8), None, 12),
    "a convolution's layer": ((5, 4, 3, 3), None, 36),
    "a layer with weights that were cut earlier": ((6, 8), 20, 5),
    "a convolution's layer with weights that were cut earlier": ((5, 4, 3, 3), 40, 10),
    "a layer with one unpruned weight": ((6, 8), 1, 3),
    "a layer with no unpruned weight": ((6, 8), 0, 1),
    "a layer with ties and zeros": ((6, 8), 30, 6),
}
"""Shape, unpruned weights, and weights that this level's pruning removes."""


def layers(*, after_cut: bool, gradient: bool = False) -> Iterator[tuple[str, Callable[[], Layer]]]:
    """Yield a name for each layer to try, and a function that makes equal copies of it.

    A criterion sees layers before the cut, an action after it.
    """
    for name, (shape, alive, cut) in _CASES.items():
        make = partial(make_layer, shape, alive, cut if after_cut else 0, gradient=gradient)
        yield name, partial(_with_ties, make) if "ties" in name else make


def _with_ties(make: Callable[[], Layer]) -> Layer:
    """Return the layer as a signed constant would draw it: equal magnitudes, and exact zeros."""
    layer = make()

    # few values make ties likely in every tensor that a criterion may read
    def rounded(values: Tensor) -> Tensor:
        return (values * 4).round().clamp(-1, 1)

    return replace(
        layer,
        original=rounded(layer.original),
        init=rounded(layer.init),
        final=rounded(layer.final),
        rewound=rounded(layer.rewound),
    )


def make_control_layer(make: Callable[[], Layer]) -> ControlLayer:
    """Return a layer of a recorded ticket, as a control sees it; `make` makes an action's layer."""
    import torch

    layer = make()
    shape = layer.info.shape

    def random_mask() -> Tensor:
        order = torch.randperm(layer.info.size, generator=stream(0, "testkit", "random mask"))
        return (order < layer.mask.sum()).reshape(shape)

    return ControlLayer(
        info=layer.info,
        original=layer.original,
        start=layer.rewound.where(layer.mask, layer.init),
        rewound=layer.rewound,
        mask=layer.mask,
        rng=stream(0, "testkit", "rng"),
        _random_mask=random_mask,
        _resample=layer.resample,
    )


def make_net(
    share: float = 1.0,
    *,
    together: bool = False,
    in_no_budget: Sequence[str] = (),
    round_to: int | None = None,
    drift: int = 0,
    score_shape: Callable[[LayerInfo], tuple[int, ...]] | None = None,
) -> MaskedNetwork:
    """Return a small network whose mask is being learned, the same one for equal arguments.

    `share` of each layer's edges are allowed (0: all of the first layer, none of the others), and half
    of those are to be kept, in one budget for each layer or, `together`, in one for all; the layers
    `in_no_budget` are in none. `drift` is the number of steps that have moved the scores. With `round_to`
    they are multiples of 1 / `round_to`, so that many tie. `score_shape` gives the shape of a layer's
    scores where it is not the layer's.
    """
    import torch

    edges: dict[str, MaskedLayer] = {}
    for index, layer in enumerate(LAYERS):
        # `layer` is a default, since a closure would see the loop's last one
        def draw(
            purpose: str, scale: float, shape: tuple[int, ...], layer: LayerInfo = layer
        ) -> Tensor:
            noise = torch.randn(shape, generator=stream("testkit", purpose, layer.name))
            return scale * noise

        shape = layer.shape if score_shape is None else score_shape(layer)
        scores = draw("scores", 0.5, shape)
        for step in range(drift):
            scores = scores + draw(f"drift {step}", 0.01, shape)
        if round_to:
            scores = (scores * round_to).round() / round_to
        chances = torch.rand(layer.shape, generator=stream("testkit", "allowed", layer.name))
        allowed = chances < (share or float(index == 0))
        weights = draw("weights", 0.3, layer.shape)
        edges[layer.name] = MaskedLayer(layer, weights, scores, allowed)

    # half, so that every budget both keeps and removes edges
    halves = {name: int(layer.allowed.sum()) // 2 for name, layer in edges.items()}
    for name in in_no_budget:
        del halves[name]
    if together:
        total = sum(halves.values())
        budgets = [Group(tuple(halves), total, total)]
    else:
        budgets = [Group((name,), half, half) for name, half in halves.items()]
    return MaskedNetwork(edges, tuple(budgets), draw_weights)


def draw_weights(layer: LayerInfo, rng: torch.Generator) -> Tensor:
    """Return what the initialiser of these networks draws for a layer: float32 [s]."""
    import torch

    return 0.3 * torch.randn(layer.shape, generator=rng)


NETS: dict[str, Callable[..., MaskedNetwork]] = {
    "a whole network": make_net,
    "a network with one budget for all layers": partial(make_net, together=True),
    "a network with few edges left": partial(make_net, 0.05),
    "a network with few edges left, in one budget": partial(make_net, 0.05, together=True),
    "a network with layers that have no edge left": partial(make_net, 0.0),
    "a network whose scores tie": partial(make_net, round_to=2),
    "a network with a layer in no budget": partial(make_net, 0.5, in_no_budget=["fc1.weight"]),
}
"""Functions that make networks whose mask is being learned. All take `drift` and `score_shape`."""
