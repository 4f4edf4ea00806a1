"""The trials of criteria, actions, scopes and rewind policies notice each kind of fault.

Every class below is right but for one thing; the message says that thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support.broken import COUNTER, component
from torch import Tensor

from lotteryfw import (
    LATEST,
    Clock,
    Component,
    ContractError,
    Group,
    Layer,
    Mask0Action,
    Mask1Action,
    MaskCriterion,
    Need,
    RewindPoint,
    RewindPolicy,
    Scope,
)
from lotteryfw.testkit import trial


def same(layer: Layer) -> Tensor:
    return layer.final.clone()


def drifting(layer: Layer) -> Tensor:
    return torch.rand(layer.info.shape, generator=layer.rng)


def into_input(layer: Layer) -> Tensor:
    return layer.final.abs_()


LEAF_FAULTS: dict[str, tuple[Callable[[Layer], Any], str]] = {
    "not a tensor": (lambda layer: 0.5, "returned float, not a tensor"),
    "wrong shape": (lambda layer: layer.final.flatten(), r"a linear layer returned shape \[48\], not \[6, 8\]"),
    "integers": (lambda layer: layer.final.long(), "returned dtype torch.int64, not floating point"),
    "NaN": (lambda layer: layer.final.log(), "values that are NaN or infinite where they are read"),
    "global stream": (lambda layer: torch.rand(layer.info.shape), "used a global random stream"),
    "numpy's stream": (lambda layer: layer.final * float(np.random.rand()), "used a global random stream"),
    "a memory": (lambda layer: layer.final + next(COUNTER), "gave two results for equal inputs and streams"),
    "changes what it reads": (into_input, "changed layer.final, which it is shown to read only"),
    "raises": (lambda layer: layer.finl, "on a linear layer raised AttributeError: 'Layer' object has no attribute 'finl'"),
    "breaks on nothing": (lambda layer: layer.final - layer.final[layer.mask].max(), "a layer with no unpruned weight raised"),
}  # fmt: skip
LAYER_KINDS: dict[type[Component], str] = {
    MaskCriterion: "score",
    Mask1Action: "kept_values",
    Mask0Action: "masked_values",
}


@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("fault", LEAF_FAULTS)
def test_a_broken_criterion_or_action_is_noticed(kind: type[Component], fault: str) -> None:
    method, message = LEAF_FAULTS[fault]
    broken = component(kind, **{LAYER_KINDS[kind]: lambda self, layer: method(layer)})
    with pytest.raises(
        ContractError, match=rf"{kind.kind} 'broken': {LAYER_KINDS[kind]}\(\) .*{message}"
    ):
        trial(broken)


@pytest.mark.parametrize("kind", [Mask1Action, Mask0Action])
def test_actions_give_float32_where_criteria_may_give_more(kind: type[Component]) -> None:
    trial(component(MaskCriterion, score=lambda self, layer: layer.final.double()))
    with pytest.raises(ContractError, match=r"returned torch.float64, not float32"):
        trial(component(kind, **{LAYER_KINDS[kind]: lambda self, layer: layer.final.double()}))


def test_a_gradient_must_be_asked_for() -> None:
    score = {"score": lambda self, layer: (layer.final * layer.gradient).abs()}
    trial(component(MaskCriterion, needs=frozenset({Need.GRADIENT}), **score))
    with pytest.raises(ContractError, match=r"needs = frozenset\(\{Need.GRADIENT\}\)"):
        trial(component(MaskCriterion, **score))


@pytest.mark.parametrize("dead", [drifting, same], ids=["drawn anew", "w_f"])
def test_frozen_weights_that_drift_are_noticed(dead: Callable[[Layer], Tensor]) -> None:
    def moving(self: Any, layer: Layer) -> Tensor:
        return dead(layer) + 0.1

    with pytest.raises(
        ContractError,
        match=r"masked_values\(\) moves frozen weights: at level 2, .* 12 of 12 weights",
    ):
        trial(component(Mask0Action, masked_values=moving))
    trial(
        component(
            Mask0Action,
            masked_values=lambda self, layer: moving(self, layer).where(layer.cut, layer.init),
        )
    )


def test_an_action_that_changes_what_kept_weights_restart_from_works_on_a_copy() -> None:
    dead = {"masked_values": lambda self, layer: torch.zeros(layer.info.shape)}
    trial(component(Mask0Action, kept=lambda self, layer, alive: alive * 2, **dead))
    with pytest.raises(ContractError, match=r"kept\(\) on a linear layer changed its input"):
        trial(component(Mask0Action, kept=lambda self, layer, alive: alive.mul_(2), **dead))


Kept = Mapping[str, int]
SCOPE_FAULTS: dict[str, tuple[Callable[[Kept, int], Any], str]] = {
    "too many": (
        lambda kept, times: [Group((n,), k + 1, k + 1) for n, k in kept.items()],
        "keeps 433 of 432 unpruned",
    ),
    "fractions": (
        lambda kept, times: [Group((n,), k * 0.8, k * 0.8) for n, k in kept.items()],
        "counts are int",
    ),
    "twice": (
        lambda kept, times: [Group(tuple(kept), 9, 9), Group(("fc1.weight",), 9, 9)],
        "fc1.weight in two groups",
    ),
    "unknown": (
        lambda kept, times: [Group(("fc9.weight",), 0, 0)],
        "names no layer of the network: fc9.weight",
    ),
    "grows": (
        lambda kept, times: [Group((n,), min(k, times), times) for n, k in kept.items()],
        r"keeps \d+ weights after 2 cuts, more than",
    ),
    "floors": (
        lambda kept, times: [
            Group((n,), int(k * 0.8**times), k * 0.8**times) for n, k in kept.items()
        ],
        "after 2 cuts made as one, but .* after 2 cuts in a row",
    ),
    "requested": (
        lambda kept, times: [Group((n,), k // 2, k) for n, k in kept.items()],
        "far from its `requested`",
    ),
    "raises": (
        lambda kept, times: [kept["fc1"]],
        "groups.. on a whole network with times = 1 raised KeyError: 'fc1'",
    ),
    "a generator": (
        lambda kept, times: (Group((n,), k, k) for n, k in kept.items()),
        "returned generator, not a list of Group",
    ),
    "changes kept": (lambda kept, times: kept.clear(), "raised AttributeError"),
}


@pytest.mark.parametrize("fault", SCOPE_FAULTS)
def test_a_broken_scope_is_noticed(fault: str) -> None:
    groups, message = SCOPE_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(Scope, groups=lambda self, layers, kept, times: groups(kept, times)))


def test_budgets_at_a_density_are_tried() -> None:
    def keeping(share: float) -> type[Scope]:
        return component(
            Scope,
            groups=lambda self, layers, kept, times: [],
            at=lambda self, layers, density: [
                Group((layer.name,), int(share * layer.size), share * layer.size)
                for layer in layers
            ],
        )

    trial(keeping(0.5))
    with pytest.raises(
        ContractError, match=r"at\(\) on a whole network at density 1.0 keeps 864 of 432 unpruned"
    ):
        trial(keeping(2))


REWIND_FAULTS: dict[str, tuple[Callable[[Clock], Any], str]] = {
    "a number": (lambda clock: 0, "returned int, not a RewindPoint"),
    "outside": (
        lambda clock: RewindPoint(clock.total + 1, 0),
        "has weights = 20001, which is no step of the training",
    ),
    "a fraction": (
        lambda clock: RewindPoint(0, clock.total / 2),
        "has schedule = 10000.0, which is no step",
    ),
    "negative": (
        lambda clock: RewindPoint(LATEST, 0, steps=-1),
        "has steps = -1, which is no length",
    ),
    "no state": (
        lambda clock: RewindPoint(0, 0, optimizer="saved"),
        "a state is saved at the steps 1, 2, …",
    ),
}


@pytest.mark.parametrize("fault", REWIND_FAULTS)
def test_a_broken_rewind_policy_is_noticed(fault: str) -> None:
    point, message = REWIND_FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(RewindPolicy, point=lambda self, clock: point(clock)))
