"""The trial of parametrizations: masks are learned for a few steps on small networks, as the engine does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from lotteryfw.api.kinds import Parametrization
from lotteryfw.api.layers import LayerInfo, MaskedLayer, MaskedNetwork
from lotteryfw.api.rng import stream
from lotteryfw.testkit.fixtures import LAYERS, NETS
from lotteryfw.testkit.subject import Subject

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STEPS = 3
"""How many steps scores drift while one `memory` is kept."""


def try_parametrization(subject: Subject) -> None:
    """Scores begin the same; masks are bool, alive only where allowed, and decided by scores and stream alone; weights
    are 0 where masked, pass a gradient to every score, and stay what they are."""
    for layer in LAYERS:
        subject.demand_tensor("initial", partial(_drawing, layer), layer.shape, layer.name)
    for method, least in (("draws", 0), ("refresh", 1)):
        count = subject.ask(method, on="its options")
        whole = type(count) is int and count >= least
        subject.demand(
            whole, f"{method}() returned {count!r}, not a whole number of at least {least}"
        )
    for what, make in NETS.items():
        with_memory = make()
        for step in range(STEPS):
            fresh = make(drift=step)
            net = replace(fresh, memory=with_memory.memory)
            learned = _masks(subject, "masks", fresh, net, what)
            sampled = _masks(
                subject, "sampled", fresh, net, what, partial(stream, "testkit", "masks", step)
            )
            if _draws_apart(cast(Parametrization, subject.component)):
                _try_noise(subject, fresh, sampled, partial(stream, "testkit", "masks", step), what)
            for name, edges in fresh.edges.items():
                _try_weight(subject, edges, sampled[name], f"{name} of {what}")
                _try_weight(subject, edges, learned[name], f"{name} of {what}")
                _try_expected(subject, edges, learned[name], f"{name} of {what}")
        _try_after_step(subject, make, what)


def _draws_apart(parametrization: Parametrization) -> bool:
    """Return whether it has a `noise`, which is optional. The trial asks again where it breaks."""
    try:
        parametrization.noise(list(LAYERS), stream("testkit", "masks"))
    except NotImplementedError:
        return False
    except Exception:
        return True
    return True


def _try_noise(
    subject: Subject,
    net: MaskedNetwork,
    sampled: Mapping[str, Tensor],
    rng: Callable[[], torch.Generator],
    what: str,
) -> None:
    """`noise` and `masks_from` do together what `sampled` does."""
    noise = subject.ask("noise", [edges.info for edges in net.edges.values()], rng(), on=what)
    masks = subject.ask("masks_from", net, noise, on=what)
    for name, mask in sampled.items():
        equal = bool((masks[name] == mask).all())
        on = f"{name} of {what}"
        subject.demand(
            equal, f"noise() and masks_from() on {on} do not do together what sampled() does"
        )


def _drawing(layer: LayerInfo) -> tuple[LayerInfo, torch.Generator]:
    return layer, stream("testkit", layer.name)


def _masks(
    subject: Subject,
    method: str,
    fresh: MaskedNetwork,
    remembering: MaskedNetwork,
    what: str,
    *rng: Callable[[], torch.Generator],
) -> Mapping[str, Tensor]:
    """What `masks` or `sampled` gives for a network, with an empty memory and with one of earlier calls."""
    import torch

    call = f"{method}() on {what}"
    first, second, later = (
        subject.ask(method, net, *(draw() for draw in rng), on=what)
        for net in (fresh, replace(fresh, memory={}), remembering)
    )
    for masks in (first, second, later):
        _try_masks(subject, masks, fresh, call)
    for name, mask in first.items():
        subject.demand(
            torch.equal(mask, second[name]), f"{call} gave two results for equal inputs and streams"
        )
        subject.demand(
            torch.equal(mask, later[name]),
            f"{call} gives another mask of {name} when net.memory holds something: memory may make it faster, and must "
            "never decide",
        )
    return cast(Mapping[str, "Tensor"], first)


def _try_masks(subject: Subject, masks: Any, net: MaskedNetwork, call: str) -> None:
    import torch

    subject.demand(
        isinstance(masks, Mapping), f"{call} returned {type(masks).__name__}, not a dict by layer"
    )
    missing, strange = net.edges.keys() - masks.keys(), masks.keys() - net.edges.keys()
    subject.demand(not missing, f"{call} has no mask for {', '.join(sorted(missing))}")
    subject.demand(
        not strange, f"{call} names no layer of the network: {', '.join(map(str, sorted(strange)))}"
    )
    for name, edges in net.edges.items():
        mask = masks[name]
        found = f"{mask.dtype}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        subject.demand(found == "torch.bool", f"{call} returned {found} for {name}, not torch.bool")
        shape = list(edges.info.shape)
        subject.demand(
            list(mask.shape) == shape,
            f"{call} returned shape {list(mask.shape)} for {name}, not {shape}",
        )
        removed = int((mask & ~edges.allowed).sum())
        subject.demand(
            not removed,
            f"{call} keeps {removed} edges of {name} that were removed for good; `& edges.allowed`",
        )


def _try_weight(subject: Subject, edges: MaskedLayer, mask: Tensor, what: str) -> None:
    import torch

    call = f"weight() on {what}"
    scores = edges.scores.clone().requires_grad_()
    edges = replace(edges, scores=scores)
    subject.demand_tensor("weight", lambda: (edges, mask), edges.info.shape, what)
    weight: Tensor = subject.ask("weight", edges, mask, on=what)
    leaking = int(weight.detach()[~mask].count_nonzero())
    subject.demand(not leaking, f"{call} is not 0 for {leaking} edges that are masked")
    subject.demand(
        weight.requires_grad,
        f"{call} has no gradient: a mask is bool; lotteryfw.straight_through(mask, surrogate) passes one to the scores",
    )
    (slope,) = torch.autograd.grad(weight.sum(), scores, allow_unused=True)
    subject.demand(slope is not None, f"{call} does not depend on edges.scores")
    finite = bool(torch.isfinite(slope).all())
    subject.demand(finite, f"{call} gives scores a gradient that is NaN or infinite")


def _try_expected(subject: Subject, edges: MaskedLayer, mask: Tensor, what: str) -> None:
    expected = subject.ask("expected", edges, mask, on=what)
    allowed = int(edges.allowed.sum())
    number = isinstance(expected, float | int) and isfinite(expected)
    subject.demand(number, f"expected() on {what} returned {expected!r}, not a finite number")
    # a sum of float32 may be off in its last bits
    within = -1e-3 <= expected <= allowed * (1 + 1e-6) + 1e-3
    subject.demand(within, f"expected() on {what} is {expected}; {allowed} edges may take part")


def _try_after_step(subject: Subject, make: Callable[..., MaskedNetwork], what: str) -> None:
    """It may write to weights, and to nothing else; what it writes is finite and repeats."""
    import torch

    written = []
    for _ in range(2):
        net = make()
        masks = subject.ask("sampled", net, stream("testkit", "masks"), on=what)
        for step in range(STEPS):
            given = (step, net, masks, stream("testkit", "after step", step))
            subject.ask("after_step", *given, on=what, may_change="edges.weights")
        written.append({name: edges.weights for name, edges in net.edges.items()})
    for name, weights in written[0].items():
        call = f"after_step() on {what}"
        finite = bool(torch.isfinite(weights).all())
        subject.demand(finite, f"{call} made weights of {name} NaN or infinite")
        subject.demand(
            torch.equal(weights, written[1][name]),
            f"{call} gave two results for equal inputs and streams",
        )
