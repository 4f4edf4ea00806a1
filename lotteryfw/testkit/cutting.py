"""The trials of what happens between two trainings: criterion, scope, mask-1 and mask-0 action, rewind policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import LATEST, Group, Layer, Need
from lotteryfw.api.rng import stream
from lotteryfw.api.tickets import RewindPoint
from lotteryfw.testkit.fixtures import CLOCKS, LAYERS, layers, make_control_layer, make_layer
from lotteryfw.testkit.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def try_criterion(subject: Subject) -> None:
    """Scores have the layer's shape, are floating point, finite where alive, and repeat."""
    gradient = Need.GRADIENT in cast(MaskCriterion, subject.component).needs
    for what, make in layers(after_cut=False, gradient=gradient):
        layer = make()
        subject.demand_tensor(
            "score", _alone(make), layer.info.shape, what, layer.mask, float32=False
        )


def try_mask1(subject: Subject) -> None:
    """Values for kept weights have the layer's shape, are float32, finite where alive, and repeat."""
    for what, make in layers(after_cut=True):
        layer = make()
        subject.demand_tensor("kept_values", _alone(make), layer.info.shape, what, layer.mask)


def try_mask0(subject: Subject) -> None:
    """Values for masked weights are float32 and repeat; what was frozen at an earlier cut stays."""
    for what, make in layers(after_cut=True):
        layer = make()
        subject.demand_tensor("masked_values", _alone(make), layer.info.shape, what, ~layer.mask)
        subject.demand_tensor("kept", _with_alive(make), layer.info.shape, what, layer.mask)
    for rewound in ("an early step", "the latest weights"):
        _try_frozen(subject, rewound)


def try_control(subject: Subject) -> None:
    """Masks are bool and keep the ticket's density, values are float32 and finite, all repeat."""
    import torch

    for what, make_ticket_layer in layers(after_cut=True):
        make = partial(make_control_layer, make_ticket_layer)
        layer = make()
        masks = [subject.ask("mask", make(), on=what) for _ in range(2)]
        call = f"mask() on {what}"
        for mask in masks:
            subject.demand(
                isinstance(mask, torch.Tensor) and mask.dtype == torch.bool,
                f"{call} must return a bool tensor",
            )
            subject.demand(
                mask.shape == layer.info.shape,
                f"{call} returned shape {list(mask.shape)}, not {list(layer.info.shape)}",
            )
        kept, expected = int(masks[0].sum()), int(layer.mask.sum())
        subject.demand(
            kept == expected, f"{call} keeps {kept} weights; the ticket keeps {expected}"
        )
        subject.demand(torch.equal(*masks), f"{call} gave two results for equal inputs and streams")

        mask = masks[0].clone()
        subject.demand_tensor("kept_values", _alone(make), layer.info.shape, what, mask)
        if subject.ask("masked_values", make(), on=what) is not None:
            subject.demand_tensor("masked_values", _alone(make), layer.info.shape, what, ~mask)


def _alone(make: Callable[[], T]) -> Callable[[], tuple[T]]:
    return lambda: (make(),)


def _with_alive(make: Callable[[], Layer]) -> Callable[[], tuple[Layer, Tensor]]:
    return lambda: (make(), make().rewound)


def _try_frozen(subject: Subject, rewound: str) -> None:
    """Plays three levels: every weight must stay at the value that it got at the level that cut it."""
    import torch

    layer = make_layer(cut=12)
    for level in range(1, 4):
        dead = subject.ask("masked_values", layer, on=f"a layer at level {level}").float()
        long_dead = ~layer.mask_before
        moved = int((dead[long_dead] != layer.init[long_dead]).sum())
        subject.demand(
            not moved,
            f"masked_values() moves frozen weights: at level {level}, rewinding to {rewound}, {moved} of {int(long_dead.sum())} "
            "weights that were cut at an earlier level got a new value; return layer.init where they are "
            "(`~layer.mask & ~layer.cut`)",
        )
        init = layer.rewound.where(layer.mask, dead)
        noise = 0.2 * torch.randn(layer.info.shape, generator=stream(level, "testkit", "late"))
        final = (init + noise).where(layer.mask, init)
        ranks = torch.rand(layer.info.shape, generator=stream(level, "testkit", "cut"))
        layer = replace(
            layer, init=init, final=final, rewound=final if rewound == "the latest weights" else layer.rewound,
            mask_before=layer.mask, mask=layer.mask & (ranks > 0.3), rng=stream(level, "testkit", "rng"),
        )  # fmt: skip


def try_scope(subject: Subject) -> None:
    """Budgets lie within what is alive, no layer is in two groups, and n cuts as one leave what n cuts leave."""
    whole = {layer.name: layer.size for layer in LAYERS}
    starts = {
        "a whole network": whole,
        "a network cut to a third": {name: size // 3 for name, size in whole.items()},
        "a network with a collapsed layer": {**whole, "conv2.weight": 0, "fc1.weight": 1},
    }
    for what, kept in starts.items():
        one_by_one, totals = kept, [sum(kept.values())]
        for times in range(1, 13):
            totals.append(sum(_after(subject, kept, times, what).values()))
            subject.demand(
                totals[-1] <= totals[-2],
                f"groups() on {what} keeps {totals[-1]} weights after {times} cuts, more than {totals[-2]} after "
                f"{times - 1}",
            )
            one_by_one = _after(subject, one_by_one, 1, what)
            subject.demand(
                totals[-1] == sum(one_by_one.values()),
                f"groups() on {what} keeps {totals[-1]} weights after {times} cuts made as one, but "
                f"{sum(one_by_one.values())} after {times} cuts in a row; lotteryfw.budget counts both alike",
            )


def _after(subject: Subject, kept: Mapping[str, int], times: int, what: str) -> dict[str, int]:
    """How many weights each layer keeps after the cuts. A group's budget goes to its layers in order: any does."""
    on = f"{what} with times = {times}"
    given = (LAYERS, MappingProxyType(dict(kept)), times)
    groups = list(subject.ask("groups", *given, on=on))
    call = f"groups() on {on}"
    subject.demand(
        groups == list(subject.ask("groups", *given, on=on)),
        f"{call} gave two results for equal inputs",
    )
    left = dict(kept)
    seen: set[str] = set()
    for group in groups:
        subject.demand(
            isinstance(group, Group), f"{call} returned {type(group).__name__}, not Group"
        )
        unknown, twice = set(group.layers) - kept.keys(), set(group.layers) & seen
        subject.demand(
            not unknown, f"{call} names no layer of the network: {', '.join(sorted(unknown))}"
        )
        subject.demand(not twice, f"{call} has {', '.join(sorted(twice))} in two groups")
        seen |= set(group.layers)
        alive = sum(kept[name] for name in group.layers)
        names = ", ".join(group.layers)
        subject.demand(
            type(group.keep) is int,
            f"{call} keeps {group.keep!r} weights of {names}; counts are int",
        )
        subject.demand(
            0 <= group.keep <= alive,
            f"{call} keeps {group.keep} of {alive} living weights in {names}",
        )
        # each cut rounds by half a weight at most, and counts of layers that share a budget by one more
        close = isfinite(group.requested) and abs(group.requested - group.keep) <= times / 2 + 1
        subject.demand(
            close, f"{call} keeps {group.keep} weights of {names}, far from its `requested`"
        )
        budget = group.keep
        for name in group.layers:
            left[name] = min(kept[name], budget)
            budget -= left[name]
    return left


def try_rewind(subject: Subject) -> None:
    """The point lies within the training, and is the same each time."""
    for clock in CLOCKS:
        on = f"a training of {clock.total} steps"
        point = subject.ask("point", clock, on=on)
        call = f"point() on {on}"
        subject.demand(
            isinstance(point, RewindPoint),
            f"{call} returned {type(point).__name__}, not a RewindPoint",
        )
        subject.demand(
            point == subject.ask("point", clock, on=on), f"{call} gave two results for one clock"
        )
        steps = {
            "schedule": point.schedule,
            "weights": 0 if point.weights == LATEST else point.weights,
        }
        for name, step in steps.items():
            within = type(step) is int and 0 <= step <= clock.total
            subject.demand(
                within, f"{call} has {name} = {step!r}, which is no step of the training"
            )
        length = point.steps is None or (type(point.steps) is int and point.steps >= 0)
        subject.demand(length, f"{call} has steps = {point.steps!r}, which is no length")
        subject.demand(
            point.optimizer in ("fresh", "saved"), f"{call} has optimizer = {point.optimizer!r}"
        )
        subject.demand(
            point.buffers in ("rewound", "latest"), f"{call} has buffers = {point.buffers!r}"
        )
        stateless = point.optimizer == "saved" and (point.weights == LATEST or point.weights == 0)
        subject.demand(
            not stateless,
            f"{call} asks for the optimizer's saved state with weights = {point.weights!r}; a state is saved at the "
            "steps 1, 2, … of the dense run only",
        )
