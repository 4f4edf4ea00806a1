"""The trial of parametrizations: masks are learned for a few steps on small networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.layers import LayerInfo, MaskedLayer, MaskedNetwork, UpdateFactors
from lotteryfw.api.rng import stream
from lotteryfw.testkit.closed_forms import try_closed_form
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fixtures import LAYERS, NETS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STEPS = 3
"""Steps that scores drift for while one `memory` is kept."""


def try_parametrization(trial: ComponentTrial) -> None:
    """Require initial scores that repeat, valid masks, weights with gradients, and valid counts.

    Masks are bool, keep allowed edges only, and depend on scores and stream alone. Weights are 0 where
    masked, pass a finite gradient to the scores, and are not written to. Factors and penalties are
    numbers. Masks and weights follow the closed form, if there is one.
    """
    score_shape = partial(_score_shape, trial)
    for layer in LAYERS:
        shape = score_shape(layer)
        trial.require_tensor("initial", partial(_draw_arguments, layer), shape, layer.name)
        _try_factors(trial, layer)
    for method, minimum in (("draws", 0), ("refresh", 1)):
        count = trial.call(method, on="its options")
        is_count = type(count) is int and count >= minimum
        trial.require(
            is_count, f"{method}() returned {count!r}, not an integer of at least {minimum}"
        )

    has_noise = _has_noise(cast(Parametrization, trial.component))
    for name, make_any in NETS.items():
        make = partial(make_any, score_shape=score_shape)
        with_memory = make()
        for step in range(STEPS):
            progress = step / STEPS
            # scores move as in training, and `memory` is from the step before
            net = make(drift=step)
            remembering = replace(net, memory=with_memory.memory)
            draw = partial(stream, "testkit", "masks", step)
            learned = _masks(trial, "masks", net, remembering, name)
            sampled = _masks(trial, "sampled", net, remembering, name, draw)
            if has_noise:
                _try_noise(trial, net, sampled, draw, name)
            for layer_name, edges in net.edges.items():
                on = f"{layer_name} of {name}"
                in_a_step = replace(edges, progress=progress)
                _try_weight(trial, in_a_step, sampled[layer_name], on)
                _try_weight(trial, edges, learned[layer_name], on)
                _try_expected(trial, edges, learned[layer_name], on)
            try_closed_form(trial, net, learned, sampled, draw, progress, name)
            _try_penalty(trial, net, progress, name)
        _try_after_step(trial, make, name)


def _has_noise(parametrization: Parametrization) -> bool:
    """Return whether it has a `noise`, which is optional. The trial asks again where it breaks."""
    try:
        return parametrization.noise(list(LAYERS), stream("testkit", "masks")) is not None
    except Exception:
        return True


def _try_noise(
    trial: ComponentTrial,
    net: MaskedNetwork,
    sampled: Mapping[str, Tensor],
    draw: Callable[[], torch.Generator],
    name: str,
) -> None:
    """Require that `noise` and `masks_from` together give the masks of `sampled`."""
    # the engine draws noise on the CPU for many steps, and makes masks of it on the device
    noise = trial.call("noise", [edges.info for edges in net.edges.values()], draw(), on=name)
    masks = trial.call("masks_from", net, noise, on=name)
    for layer_name, mask in sampled.items():
        trial.require(
            bool((masks[layer_name] == mask).all()),
            f"noise() and masks_from() on {layer_name} of {name} do not do together what sampled() "
            "does",
        )


def _draw_arguments(layer: LayerInfo) -> tuple[LayerInfo, torch.Generator]:
    return layer, stream("testkit", layer.name)


def _masks(
    trial: ComponentTrial,
    method: str,
    net: MaskedNetwork,
    remembering: MaskedNetwork,
    name: str,
    *draws: Callable[[], torch.Generator],
) -> Mapping[str, Tensor]:
    """Return the masks that `masks` or `sampled` gives, after trying it three times.

    It must give the same ones twice with an empty memory, and with the memory of earlier calls.
    """
    import torch

    call = f"{method}() on {name}"
    results = []
    for shown in (net, replace(net, memory={}), remembering):
        masks = trial.call(method, shown, *(draw() for draw in draws), on=name)
        _try_masks(trial, masks, net, call)
        results.append(masks)
    first, second, remembered = results
    # what memory holds depends on earlier calls, which a resumed training has not made
    for layer_name, mask in first.items():
        trial.require(
            torch.equal(mask, second[layer_name]),
            f"{call} gave two results for equal inputs and streams",
        )
        trial.require(
            torch.equal(mask, remembered[layer_name]),
            f"{call} gives another mask of {layer_name} when net.memory holds something: memory may "
            "make it faster, and must never decide",
        )
    return cast(Mapping[str, "Tensor"], first)


def _try_masks(trial: ComponentTrial, masks: Any, net: MaskedNetwork, call: str) -> None:
    import torch

    trial.require(
        isinstance(masks, Mapping), f"{call} returned {type(masks).__name__}, not a dict by layer"
    )
    missing = sorted(net.edges.keys() - masks.keys())
    unknown = sorted(map(str, masks.keys() - net.edges.keys()))
    trial.require(not missing, f"{call} has no mask for {', '.join(missing)}")
    trial.require(not unknown, f"{call} names no layer of the network: {', '.join(unknown)}")
    for name, edges in net.edges.items():
        mask = masks[name]
        dtype = f"{mask.dtype}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        trial.require(dtype == "torch.bool", f"{call} returned {dtype} for {name}, not torch.bool")
        shape = list(edges.info.shape)
        trial.require(
            list(mask.shape) == shape,
            f"{call} returned shape {list(mask.shape)} for {name}, not {shape}",
        )
        removed = int((mask & ~edges.allowed).sum())
        trial.require(
            not removed,
            f"{call} keeps {removed} edges of {name} that were removed for good; `& edges.allowed`",
        )


def _try_weight(trial: ComponentTrial, edges: MaskedLayer, mask: Tensor, on: str) -> None:
    import torch

    call = f"weight() on {on}"
    # most parametrizations learn scores over weights that stay as they were drawn
    trains_weights = cast(Parametrization, trial.component).trains_weights
    scores = edges.scores.clone().requires_grad_()
    edges = replace(edges, scores=scores)
    if trains_weights:
        edges = replace(edges, weights=edges.weights.clone().requires_grad_())
    trial.require_tensor("weight", lambda: (edges, mask), edges.info.shape, on)
    weight: Tensor = trial.call("weight", edges, mask, on=on)
    # what is masked must not take part in the forward pass, whatever its gradient is
    leaking = int(weight.detach()[~mask].count_nonzero())
    trial.require(not leaking, f"{call} is not 0 for {leaking} edges that are masked")
    if trains_weights and edges.progress is None:
        # Nothing is trained here, and the mask that is found need not be differentiable.
        return
    trial.require(
        weight.requires_grad,
        f"{call} has no gradient: a mask is bool; lotteryfw.straight_through(mask, surrogate) passes "
        "one to the scores",
    )
    (gradient,) = torch.autograd.grad(weight.sum(), scores, allow_unused=True)
    trial.require(gradient is not None, f"{call} does not depend on edges.scores")
    is_finite = bool(torch.isfinite(gradient).all())
    trial.require(is_finite, f"{call} gives scores a gradient that is NaN or infinite")
    if trains_weights:
        weight = trial.call("weight", edges, mask, on=on)
        (gradient,) = torch.autograd.grad(weight.sum(), edges.weights, allow_unused=True)
        trial.require(
            gradient is not None,
            f"{call} does not depend on edges.weights, which `trains_weights` says are trained",
        )
        is_finite = bool(torch.isfinite(gradient).all())
        trial.require(is_finite, f"{call} gives weights a gradient that is NaN or infinite")


def _score_shape(trial: ComponentTrial, layer: LayerInfo) -> tuple[int, ...]:
    """Return the shape of a layer's scores, after requiring that it is one."""
    shape = trial.call("score_shape", layer, on=layer.name)
    is_shape = isinstance(shape, tuple)
    for size in shape if is_shape else ():
        is_shape = is_shape and type(size) is int and size > 0
    trial.require(
        is_shape,
        f"score_shape() on {layer.name} returned {shape!r}, not a tuple of integers above 0",
    )
    return cast(tuple[int, ...], shape)


def _try_factors(trial: ComponentTrial, layer: LayerInfo) -> None:
    """Require factors that are numbers of at least 0, for weights and for scores."""
    for is_score in (False, True):
        factors = trial.call("factors", layer.name, is_score, on=layer.name)
        is_valid = isinstance(factors, UpdateFactors)
        # the sum is finite only where both are
        is_valid = is_valid and isfinite(sum(factors)) and min(factors) >= 0
        trial.require(
            is_valid,
            f"factors() on {layer.name} returned {factors!r}, not UpdateFactors of finite numbers, "
            "none of them negative",
        )


def _try_penalty(trial: ComponentTrial, net: MaskedNetwork, progress: float, name: str) -> None:
    """Require a penalty that is None, or a finite number that depends on scores or weights."""
    import torch

    edges = {}
    for layer_name, layer in net.edges.items():
        scores = layer.scores.clone().requires_grad_()
        weights = layer.weights.clone().requires_grad_()
        edges[layer_name] = replace(layer, scores=scores, weights=weights, progress=progress)
    penalty = trial.call("penalty", replace(net, edges=edges), on=name)
    if penalty is None:
        return
    call = f"penalty() on {name}"
    is_number = isinstance(penalty, torch.Tensor) and penalty.dim() == 0
    trial.require(is_number, f"{call} is no 0-d tensor")
    trial.require(bool(torch.isfinite(penalty)), f"{call} is {penalty.item()}")
    trial.require(penalty.requires_grad, f"{call} depends on neither scores nor weights")


def _try_expected(trial: ComponentTrial, edges: MaskedLayer, mask: Tensor, on: str) -> None:
    expected = trial.call("expected", edges, mask, on=on)
    allowed = int(edges.allowed.sum())
    is_number = isinstance(expected, float | int) and isfinite(expected)
    trial.require(is_number, f"expected() on {on} returned {expected!r}, not a finite number")
    # a sum of float32 may be off in its last bits
    is_within = -1e-3 <= expected <= allowed * (1 + 1e-6) + 1e-3
    trial.require(is_within, f"expected() on {on} is {expected}; {allowed} edges may take part")


def _try_after_step(trial: ComponentTrial, make: Callable[..., MaskedNetwork], name: str) -> None:
    """Require that `after_step` writes to weights alone; they must stay finite and repeat."""
    import torch

    results: list[dict[str, Tensor]] = []
    for _ in range(2):
        net = make()
        masks = trial.call("sampled", net, stream("testkit", "masks"), on=name)
        for step in range(STEPS):
            rng = stream("testkit", "after step", step)
            trial.call("after_step", step, net, masks, rng, on=name, may_change="edges.weights")
        results.append({layer_name: edges.weights for layer_name, edges in net.edges.items()})
    first, second = results
    call = f"after_step() on {name}"
    for layer_name, weights in first.items():
        is_finite = bool(torch.isfinite(weights).all())
        trial.require(is_finite, f"{call} made weights of {layer_name} NaN or infinite")
        trial.require(
            torch.equal(weights, second[layer_name]),
            f"{call} gave two results for equal inputs and streams",
        )
