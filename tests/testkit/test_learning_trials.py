"""The trial of parametrizations notices each kind of fault.

One parametrization keeps all promises; for each fault one of its methods is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import pytest
import torch
from support.broken import COUNTER, component
from torch import Tensor

from lotteryfw import (
    ContractError,
    IncrementalTopK,
    MaskedLayer,
    MaskedNetwork,
    Parametrization,
    straight_through,
)
from lotteryfw.testkit import trial


def positive(net: MaskedNetwork) -> dict[str, Tensor]:
    return {name: (edges.scores > 0) & edges.allowed for name, edges in net.edges.items()}


def without_rng(net: MaskedNetwork) -> dict[str, Tensor]:
    return {
        name: (torch.rand(edges.info.shape) < 0.5) & edges.allowed
        for name, edges in net.edges.items()
    }


def remembered(net: MaskedNetwork) -> dict[str, Tensor]:
    found: dict[str, Tensor] = net.memory.setdefault("masks", positive(net))
    return found


def scores_changed(net: MaskedNetwork) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: edges.scores.sub_(0.1) > 9 for name, edges in net.edges.items()}


def passed(edges: MaskedLayer, mask: Tensor) -> Tensor:
    return edges.weights * straight_through(mask, edges.scores)


def redrawn(
    self: Any, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    for name, edges in net.edges.items():
        edges.weights.copy_(torch.where(masks[name], edges.weights, net.draw(edges.info, rng)))


def scores_moved(
    self: Any, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    for edges in net.edges.values():
        edges.scores.mul_(0.5)


def drawn_from_anywhere(
    self: Any, step: int, net: MaskedNetwork, masks: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    for edges in net.edges.values():
        edges.weights.add_(next(COUNTER))


def best_scores(net: MaskedNetwork) -> dict[str, Tensor]:
    masks = {name: edges.allowed for name, edges in net.edges.items()}
    for group in net.budgets:
        edges = [net.edges[name] for name in group.layers]
        ranks = torch.cat([e.scores.masked_fill(~e.allowed, -inf).flatten() for e in edges])
        keep = min(group.keep, sum(int(e.allowed.sum()) for e in edges))
        parts = IncrementalTopK(keep)(ranks).split([e.info.size for e in edges])
        masks |= {
            e.info.name: part.view(e.info.shape) for e, part in zip(edges, parts, strict=True)
        }
    return masks


def best_in_budgets(net: MaskedNetwork) -> dict[str, Tensor]:
    in_budgets = [name for group in net.budgets for name in group.layers]
    return {name: mask for name, mask in best_scores(net).items() if name in in_budgets}


def none_without_budget(net: MaskedNetwork) -> dict[str, Tensor]:
    masks = {name: torch.zeros_like(edges.allowed) for name, edges in net.edges.items()}
    return masks | best_in_budgets(net)


def hardened(edges: MaskedLayer, mask: Tensor) -> Tensor:
    return passed(edges, mask) * (1 + (edges.progress or 0.0))


TOP_K: dict[str, Any] = {
    "masks": lambda self, net: best_scores(net),
    "closed_form": lambda self: "top_k",
}


def drawn(net: MaskedNetwork, rng: torch.Generator) -> dict[str, Tensor]:
    masks = {}
    for name, edges in net.edges.items():
        noise = torch.rand(edges.info.shape, generator=rng)
        masks[name] = (noise < edges.scores.sigmoid()) & edges.allowed
    return masks


def drawn_weight(edges: MaskedLayer, mask: Tensor, rescale: bool = False) -> Tensor:
    taking_part = straight_through(mask, edges.scores.sigmoid())
    weight = edges.weights * taking_part
    return weight * (mask.numel() / taking_part.sum().clamp(min=0.5)) if rescale else weight


BERNOULLI: dict[str, Any] = {
    "sampled": lambda self, net, rng: drawn(net, rng),
    "weight": lambda self, edges, mask: drawn_weight(edges, mask),
    "draws": lambda self: 2,
    "closed_form": lambda self: "bernoulli",
}
DYNAMIC: dict[str, Any] = BERNOULLI | {
    "weight": lambda self, edges, mask: drawn_weight(edges, mask, rescale=True),
    "closed_form": lambda self: "bernoulli_dynamic",
}

PARAMETRIZATION_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "initial's shape": (
        {"initial": lambda self, layer, rng: torch.zeros(3)},
        r"initial.. on conv1.weight .* shape",
    ),
    "initial's dtype": (
        {"initial": lambda self, layer, rng: torch.zeros(layer.shape).double()},
        "not float32",
    ),
    "initial draws": (
        {"initial": lambda self, layer, rng: torch.rand(layer.shape)},
        "used a global random stream",
    ),
    "no dict": (
        {"masks": lambda self, net: list(positive(net).values())},
        "masks.. on a whole .* returned list",
    ),
    "a layer left out": (
        {"masks": lambda self, net: dict(list(positive(net).items())[1:])},
        "no mask for conv1.weight",
    ),
    "floats": (
        {"masks": lambda self, net: {n: m.float() for n, m in positive(net).items()}},
        "not torch.bool",
    ),
    "flat": (
        {"masks": lambda self, net: {n: m.flatten() for n, m in positive(net).items()}},
        r"not \[16, 3, 3, 3\]",
    ),
    "removed edges": (
        {"masks": lambda self, net: {n: e.scores > 0 for n, e in net.edges.items()}},
        "masks.. on a network with few edges left keeps .* of conv1.weight that were removed for good",
    ),
    "scores changed": ({"masks": lambda self, net: scores_changed(net)}, "changed edges.scores"),
    "sampled elsewhere": (
        {"sampled": lambda self, net, rng: without_rng(net)},
        "sampled.. .*global random stream",
    ),
    "memory decides": (
        {"masks": lambda self, net: remembered(net)},
        "another mask of conv1.weight when net.memory",
    ),
    "weights leak": (
        {"weight": lambda self, edges, mask: edges.weights * edges.scores},
        "is not 0 for .* masked",
    ),
    "no gradient": (
        {"weight": lambda self, edges, mask: edges.weights * mask},
        "weight.. on .* has no gradient",
    ),
    "NaN gradient": (
        {
            "weight": lambda self, edges, mask: (
                passed(edges, mask) + 0 * (edges.scores * 0).sqrt() * mask
            )
        },
        "a gradient that is NaN",
    ),
    "weights written": (
        {
            "weight": lambda self, edges, mask: (
                edges.weights.mul_(mask) * straight_through(mask, edges.scores)
            )
        },
        "changed edges.weights",
    ),
    "more than allowed": (
        {"expected": lambda self, edges, mask: 1e9},
        "expected.. on .* is 1000000000.0; 432 edges",
    ),
    "expected text": (
        {"expected": lambda self, edges, mask: "half"},
        "returned 'half', not a finite number",
    ),
    "draws": (
        {"draws": lambda self: 1.5},
        "draws.. returned 1.5, not an integer of at least 0",
    ),
    "refresh": (
        {"refresh": lambda self: 0},
        "refresh.. returned 0, not an integer of at least 1",
    ),
    "unknown form": (
        {"closed_form": lambda self: "topk"},
        "closed_form.. returned 'topk', not one",
    ),
    "form of other masks": (
        {"closed_form": lambda self: "top_k"},
        "closed_form.. is 'top_k', but masks.. on conv1.weight of a whole network keeps other edges",
    ),
    "form of another order": (
        TOP_K | {"closed_form": lambda self: "top_k_magnitude"},
        "is 'top_k_magnitude', but masks.. on .* keeps other edges",
    ),
    "form of another draw": (
        TOP_K | {"sampled": lambda self, net, rng: positive(net)},
        "is 'top_k', but sampled.. on .* keeps other edges",
    ),
    "form of other weights": (
        TOP_K | {"weight": lambda self, edges, mask: 2 * passed(edges, mask)},
        "is 'top_k', but weight.. on .* is not the weights under the mask",
    ),
    "form of another gradient": (
        TOP_K
        | {
            "weight": lambda self, edges, mask: (
                edges.weights * straight_through(mask, edges.scores * 2)
            )
        },
        "is 'top_k', but weight.. on .* does not pass the mask's gradient straight",
    ),
    "form and layers in budgets alone": (
        TOP_K | {"masks": lambda self, net: best_in_budgets(net)},
        "masks.. on a network with a layer in no budget has no mask for fc1.weight",
    ),
    "form and no edge of a layer in no budget": (
        TOP_K | {"masks": lambda self, net: none_without_budget(net)},
        "is 'top_k', but masks.. on fc1.weight of a network with a layer in no budget keeps other",
    ),
    "form and weights that change as a training goes on": (
        TOP_K | {"weight": lambda self, edges, mask: hardened(edges, mask)},
        r"is 'top_k', but weight.. on conv1.weight of a whole network at progress 0\.33 is not the "
        "weights under the mask",
    ),
    "drawn form and weights that change as a training goes on": (
        BERNOULLI
        | {
            "weight": lambda self, edges, mask: (
                drawn_weight(edges, mask) * (1 - (edges.progress or 0.0))
            )
        },
        r"is 'bernoulli', but weight.. on .* at progress 0\.33 is not the weights under the mask",
    ),
    "form and a gradient that changes as a training goes on": (
        TOP_K
        | {
            "weight": lambda self, edges, mask: (
                edges.weights * straight_through(mask, edges.scores * (1 + (edges.progress or 0.0)))
            )
        },
        r"is 'top_k', but weight.. on .* at progress 0\.33 does not pass the mask's gradient straight",
    ),
    "form and a method": (
        TOP_K | {"after_step": redrawn},
        "is 'top_k', but after_step is not the default",
    ),
    "form and trained weights": (
        TOP_K | {"trains_weights": True},
        "is 'top_k', but trains_weights is not the default",
    ),
    "form and its own draws": (
        TOP_K | {"draws": lambda self: 2},
        "is 'top_k', but draws is not the default",
    ),
    "drawn form and other masks": (
        BERNOULLI | {"masks": lambda self, net: best_scores(net)},
        "is 'bernoulli', but masks.. on .* keeps other edges",
    ),
    "drawn form and no draw": (
        BERNOULLI | {"sampled": lambda self, net, rng: positive(net)},
        "is 'bernoulli', but sampled.. on .* keeps other edges",
    ),
    "drawn form and another gradient": (
        BERNOULLI | {"weight": lambda self, edges, mask: passed(edges, mask)},
        "is 'bernoulli', but weight.. on .* does not pass the mask's gradient straight",
    ),
    "drawn form and a refresh": (
        BERNOULLI | {"refresh": lambda self: 2},
        "is 'bernoulli', but refresh is not the default",
    ),
    "dynamic form without the factor": (
        DYNAMIC | {"weight": lambda self, edges, mask: drawn_weight(edges, mask)},
        "is 'bernoulli_dynamic', but weight.. on .* is not the weights under the mask",
    ),
    "dynamic form without the factor's gradient": (
        DYNAMIC
        | {
            "weight": lambda self, edges, mask: (
                drawn_weight(edges, mask) * (mask.numel() / mask.sum().clamp(min=1))
            )
        },
        "is 'bernoulli_dynamic', but weight.. on .* does not pass the mask's gradient straight",
    ),
    "scores moved": ({"after_step": scores_moved}, "after_step.. on .* changed edges.scores"),
    "redrawn anyhow": ({"after_step": drawn_from_anywhere}, "after_step.. on .* gave two results"),
    "raises": (
        {"masks": lambda self, net: net.egdes},
        "masks.. on a whole network raised AttributeError",
    ),
}


def parametrization(**methods: Any) -> type[Any]:
    right = {
        "initial": lambda self, layer, rng: torch.rand(layer.shape, generator=rng) - 0.5,
        "masks": lambda self, net: positive(net),
        "weight": lambda self, edges, mask: passed(edges, mask),
    }
    return component(Parametrization, **(right | methods))


@pytest.mark.parametrize("fault", PARAMETRIZATION_FAULTS)
def test_a_broken_parametrization_is_noticed(fault: str) -> None:
    methods, message = PARAMETRIZATION_FAULTS[fault]
    with pytest.raises(ContractError, match=rf"parametrization 'broken': .*{message}"):
        trial(parametrization(**methods))


def test_a_parametrization_may_redraw_weights_after_a_step() -> None:
    trial(parametrization())
    trial(parametrization(after_step=redrawn))


@pytest.mark.parametrize("form", [TOP_K, BERNOULLI, DYNAMIC], ids=["ranked", "drawn", "dynamic"])
def test_a_parametrization_may_have_a_closed_form(form: dict[str, Any]) -> None:
    trial(parametrization(**form))
