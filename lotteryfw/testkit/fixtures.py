"""What components are put to work on: leaves as they come up in a study, large and small, whole and nearly gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """A layer of a small network, the same one for equal arguments, with its random stream not yet drawn from.

    `alive` weights (None: all that are not cut) are alive now, at random places; `cut` more were so until this level's
    cut (0: a criterion's layer, which is read before the cut). The rest was cut earlier and is frozen at 0.
    """
    import torch

    layer = LayerInfo("conv.weight" if len(shape) > 2 else "fc.weight", shape)

    def draw(what: str, scale: float) -> Tensor:
        return scale * torch.randn(shape, generator=stream(seed, "testkit", what))

    order = torch.randperm(layer.size, generator=stream(seed, "testkit", "order")).reshape(shape)
    kept = layer.size - cut if alive is None else alive
    mask_before = order < kept + cut
    original = draw("original", 0.3)
    rewound = original + draw("early", 0.03)
    init = rewound.where(mask_before, 0.0)
    return Layer(
        info=layer,
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
    "a layer with one living weight": ((6, 8), 1, 3),
    "a layer with no living weight": ((6, 8), 0, 1),
    "a layer with ties and zeros": ((6, 8), 30, 6),
}
"""Shape, living weights and weights cut now."""


def layers(*, after_cut: bool, gradient: bool = False) -> Iterator[tuple[str, Callable[[], Layer]]]:
    """(what it is, a maker of equal copies) of every layer to try: before the cut for criteria, after it for actions."""
    for what, (shape, alive, cut) in _CASES.items():
        make = partial(make_layer, shape, alive, cut if after_cut else 0, gradient=gradient)
        yield what, partial(_flattened, make) if "ties" in what else make


def _flattened(make: Callable[[], Layer]) -> Layer:
    """The layer made as a signed constant would have it: weights of one magnitude, and some that are exactly 0."""
    layer = make()
    names = ("original", "init", "final", "rewound")
    return replace(
        layer, **{name: (getattr(layer, name) * 4).round().clamp(-1, 1) for name in names}
    )


def make_control_layer(make: Callable[[], Layer]) -> ControlLayer:
    """Return a layer of a recorded ticket, as a control sees it; `make` makes it as an action sees it."""
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
    share: float = 1.0, *, together: bool = False, round_to: int | None = None, drift: int = 0
) -> MaskedNetwork:
    """A small network while its mask is learned, the same one for equal arguments.

    `share` of each layer's edges are allowed (0: those of the first layer all are, of the others none), and half of
    those are to be kept, in one budget for all layers or in one each. `drift` steps have moved the scores, which are
    multiples of 1 / `round_to` where that is given: many tie then.
    """
    import torch

    edges = {}
    for place, layer in enumerate(LAYERS):

        def draw(what: str, scale: float, layer: LayerInfo = layer) -> Tensor:
            return scale * torch.randn(layer.shape, generator=stream("testkit", what, layer.name))

        scores = draw("scores", 0.5) + sum(draw(f"drift {step}", 0.01) for step in range(drift))
        if round_to:
            scores = (scores * round_to).round() / round_to
        chances = torch.rand(layer.shape, generator=stream("testkit", "allowed", layer.name))
        edges[layer.name] = MaskedLayer(
            layer, draw("weights", 0.3), scores, chances < (share or float(place == 0))
        )
    halves = {name: int(each.allowed.sum()) // 2 for name, each in edges.items()}
    layerwise = tuple(Group((name,), half, half) for name, half in halves.items())
    one = Group(tuple(halves), sum(halves.values()), sum(halves.values()))
    return MaskedNetwork(edges, (one,) if together else layerwise, _drawn)


def _drawn(layer: LayerInfo, rng: torch.Generator) -> Tensor:
    import torch

    return 0.3 * torch.randn(layer.shape, generator=rng)


NETS: dict[str, Callable[..., MaskedNetwork]] = {
    "a whole network": make_net,
    "a network with one budget for all layers": partial(make_net, together=True),
    "a network with few edges left": partial(make_net, 0.05),
    "a network with few edges left, in one budget": partial(make_net, 0.05, together=True),
    "a network with layers that have no edge left": partial(make_net, 0.0),
    "a network whose scores tie": partial(make_net, round_to=2),
}
"""Makers of networks whose mask is learned. All take `drift`."""
