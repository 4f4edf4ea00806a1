"""The trial of mask updates notices each kind of fault.

One mask update keeps all promises; for each fault one of its methods is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from support.broken import COUNTER, component
from support.mask_updates import Swap
from torch import Tensor

from lotteryfw import Clock, ContractError, Group, LayerInfo, MaskUpdate, TrainingNetwork
from lotteryfw.testkit import trial


def due(self: Any, step: int, clock: Clock) -> bool:
    return step % 1000 == 0


def budgets(
    self: Any, step: int, clock: Clock, layers: Sequence[LayerInfo], kept: Mapping[str, int]
) -> list[Group]:
    return []


def moved(self: Any, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
    return {name: mask.roll(1, 0) for name, mask in net.masks.items()}


RIGHT: dict[str, Any] = {"due": due, "budgets": budgets, "update": moved}


def grown(self: Any, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
    return {name: torch.ones_like(mask) for name, mask in net.masks.items()}


def at_random(self: Any, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
    places = next(COUNTER)
    return {name: mask.roll(places, 0) for name, mask in net.masks.items()}


def writing(self: Any, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
    for weight in net.weights.values():
        weight.add_(1)
    return moved(self, step, clock, net)


def global_stream(self: Any, step: int, clock: Clock, net: TrainingNetwork) -> dict[str, Tensor]:
    torch.rand(1)
    return moved(self, step, clock, net)


def answers(value: Any) -> Any:
    return lambda self, *arguments: value


def first_of(net: TrainingNetwork) -> str:
    return net.layers[0].name


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "never": ({"due": answers(False)}, r"due\(\) is never True in a training of 20000 steps"),
    "no bool": (
        {"due": lambda self, step, clock: step == 7 and "yes"},
        r"due\(\) .*returned 'yes'",
    ),
    "budget": ({"update": grown}, r"update\(\) at step 1000 of 20000 keeps .* budgets\(\) says"),
    "layer": (
        {"budgets": answers([Group(("fc9",), 1, 1)])},
        r"budgets\(\) .* names no layer .*fc9",
    ),
    "twice": (
        {"budgets": answers([Group(("fc1.weight",), 1, 1), Group(("fc1.weight",), 1, 1)])},
        r"budgets\(\) .* has fc1.weight in two groups",
    ),
    "too many": (
        {"budgets": answers([Group(("fc2.weight",), 501, 501)])},
        r"keeps 501 of 500 weights in fc2.weight",
    ),
    "no group": ({"budgets": answers([1])}, r"budgets\(\) .* gave a int, not a Group"),
    "no list": ({"budgets": answers(None)}, r"budgets\(\) .* returned NoneType, not a list"),
    "no dict": ({"update": answers([])}, r"update\(\) .* returned list, not a dict by layer"),
    "unknown": ({"update": answers({"fc9": 1})}, r"update\(\) .* names no layer .*: fc9"),
    "float": (
        {"update": lambda self, step, clock, net: {first_of(net): net.weights[first_of(net)]}},
        r"update\(\) .* returned torch.float32 for conv1.weight, not torch.bool",
    ),
    "shape": (
        {"update": lambda self, step, clock, net: {first_of(net): net.masks[first_of(net)][1:]}},
        r"update\(\) .* returned shape \[15, 3, 3, 3\] for conv1.weight, not",
    ),
    "not repeated": ({"update": at_random}, r"update\(\) .* gave two masks of"),
    "writes": ({"update": writing}, r"update\(\) .* changed net.weights\['conv1.weight'\]"),
    "global stream": ({"update": global_stream}, r"update\(\) .* used a global random stream"),
    "raises": ({"update": lambda self, *a: 1 / 0}, r"update\(\) .* raised ZeroDivisionError"),
    "NaN": (
        {"regrown": lambda self, layer, net: torch.full(layer.shape, float("nan"))},
        r"regrown\(\) .* is NaN or infinite where weights come back",
    ),
    "regrown shape": (
        {"regrown": lambda self, layer, net: torch.zeros(3)},
        r"regrown\(\) .* returned shape \[3\], not",
    ),
    "regrown type": (
        {"regrown": lambda self, layer, net: torch.zeros(layer.shape, dtype=torch.float64)},
        r"regrown\(\) .* returned no float32 tensor",
    ),
}


def test_what_keeps_its_promises_passes() -> None:
    trial(component(MaskUpdate, **RIGHT))
    trial(Swap, {"every": 1000})


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault: str) -> None:
    methods, message = FAULTS[fault]
    with pytest.raises(ContractError, match=message):
        trial(component(MaskUpdate, **{**RIGHT, **methods}))
