"""Trials for what happens between two trainings: criterion, scope, actions, rewinding, controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lotteryfw.api.errors import UsageError
from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import LATEST, Group, Layer, Need
from lotteryfw.api.rng import stream
from lotteryfw.api.tickets import RewindPoint
from lotteryfw.search.context import needs_of
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fixtures import CLOCKS, LAYERS, layers, make_control_layer, make_layer
from lotteryfw.testkit.probes import try_network_scores

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

MAX_CUTS = 12
"""Cuts in a row that a scope is tried with: 0.8 ** 12 leaves 7 % of a network."""
DENSITIES = (1.0, 0.5, 0.07, 0.001)
"""The densities that a scope is asked to share out."""


def try_criterion(trial: ComponentTrial) -> None:
    """Require scores of the layer's shape that are finite for unpruned weights and repeat."""
    needs = needs_of(cast(MaskCriterion, trial.component))
    if Need.PROBE in needs:
        try_network_scores(trial)
    gradient = Need.GRADIENT in needs
    for name, make in layers(after_cut=False, gradient=gradient):
        if Need.PROBE in needs:
            make = partial(_probed, make)
        layer = make()
        trial.require_tensor(
            "score", _one_argument(make), layer.info.shape, name, layer.mask, float32=False
        )


def _probed(make: Callable[[], Layer]) -> Layer:
    layer = make()
    return replace(layer, _probed=layer.final.abs())


def try_mask1(trial: ComponentTrial) -> None:
    """Require float32 values of the layer's shape that are finite for kept weights and repeat."""
    for name, make in layers(after_cut=True):
        layer = make()
        trial.require_tensor("kept_values", _one_argument(make), layer.info.shape, name, layer.mask)


def try_mask0(trial: ComponentTrial) -> None:
    """Require float32 values for masked weights that repeat, and that frozen weights stay."""
    for name, make in layers(after_cut=True):
        layer = make()
        trial.require_tensor(
            "masked_values", _one_argument(make), layer.info.shape, name, ~layer.mask
        )
        trial.require_tensor("kept", _with_values(make), layer.info.shape, name, layer.mask)
    # a policy that keeps the latest weights shows actions other tensors than one that rewinds
    for rewound in ("an early step", "the latest weights"):
        _try_frozen(trial, rewound)


def try_control(trial: ComponentTrial) -> None:
    """Require bool masks of the ticket's density, and finite float32 values; all repeat."""
    import torch

    for name, make_ticket_layer in layers(after_cut=True):
        make = partial(make_control_layer, make_ticket_layer)
        layer = make()
        call = f"mask() on {name}"
        masks = []
        for _ in range(2):
            mask = trial.call("mask", make(), on=name)
            masks.append(mask)
            trial.require(
                isinstance(mask, torch.Tensor) and mask.dtype == torch.bool,
                f"{call} must return a bool tensor",
            )
            trial.require(
                mask.shape == layer.info.shape,
                f"{call} returned shape {list(mask.shape)}, not {list(layer.info.shape)}",
            )
        # a control differs from its ticket in one thing, and density is not it
        kept = int(masks[0].sum())
        expected = int(layer.mask.sum())
        trial.require(kept == expected, f"{call} keeps {kept} weights; the ticket keeps {expected}")
        trial.require(torch.equal(*masks), f"{call} gave two results for equal inputs and streams")

        mask = masks[0].clone()
        trial.require_tensor("kept_values", _one_argument(make), layer.info.shape, name, mask)
        # None stands for zeros
        if trial.call("masked_values", make(), on=name) is not None:
            trial.require_tensor(
                "masked_values", _one_argument(make), layer.info.shape, name, ~mask
            )


def _one_argument(make: Callable[[], T]) -> Callable[[], tuple[T]]:
    return lambda: (make(),)


def _with_values(make: Callable[[], Layer]) -> Callable[[], tuple[Layer, Tensor]]:
    # the second argument is the values that the mask-1 action would restart from
    return lambda: (make(), make().rewound)


def _try_frozen(trial: ComponentTrial, rewound: str) -> None:
    """Require over three levels that a weight keeps the value from the level that pruned it."""
    import torch

    layer = make_layer(cut=12)
    for level in range(1, 4):
        values = trial.call("masked_values", layer, on=f"a layer at level {level}").float()
        frozen = ~layer.mask_before
        moved = int((values[frozen] != layer.init[frozen]).sum())
        trial.require(
            not moved,
            f"masked_values() moves frozen weights: at level {level}, rewinding to {rewound}, "
            f"{moved} of {int(frozen.sum())} weights that were cut at an earlier level got a new "
            "value; return layer.init where they are (`~layer.mask & ~layer.cut`)",
        )

        # the next level: train what is kept, then prune about a third of it
        init = layer.rewound.where(layer.mask, values)
        noise = 0.2 * torch.randn(layer.info.shape, generator=stream(level, "testkit", "late"))
        final = (init + noise).where(layer.mask, init)
        ranks = torch.rand(layer.info.shape, generator=stream(level, "testkit", "cut"))
        layer = replace(
            layer,
            init=init,
            final=final,
            rewound=final if rewound == "the latest weights" else layer.rewound,
            mask_before=layer.mask,
            mask=layer.mask & (ranks > 0.3),
            rng=stream(level, "testkit", "rng"),
        )


def try_scope(trial: ComponentTrial) -> None:
    """Require budgets within each group, and that n cuts as one keep what n cuts in a row keep."""
    whole = {layer.name: layer.size for layer in LAYERS}
    # fully pruned layers are where budgets turn negative or divide by 0
    starts = {
        "a whole network": whole,
        "a network cut to a third": {name: size // 3 for name, size in whole.items()},
        "a network with a collapsed layer": {**whole, "conv2.weight": 0, "fc1.weight": 1},
    }
    for name, kept in starts.items():
        one_by_one = kept
        before = sum(kept.values())
        for times in range(1, MAX_CUTS + 1):
            total = sum(_after(trial, kept, times, name).values())
            trial.require(
                total <= before,
                f"groups() on {name} keeps {total} weights after {times} cuts, more than {before} "
                f"after {times - 1}",
            )
            before = total
            one_by_one = _after(trial, one_by_one, 1, name)
            in_a_row = sum(one_by_one.values())
            trial.require(
                total == in_a_row,
                f"groups() on {name} keeps {total} weights after {times} cuts made as one, but "
                f"{in_a_row} after {times} cuts in a row; lotteryfw.budget counts both alike",
            )
    for density in DENSITIES:
        _try_density(trial, whole, density)


def _try_density(trial: ComponentTrial, sizes: Mapping[str, int], density: float) -> None:
    """Require budgets within each group at a density. A scope may refuse densities."""
    on = f"a whole network at density {density}"
    try:
        groups = _groups(trial, "at", (LAYERS, density), on)
    except UsageError:
        return
    _try_groups(trial, f"at() on {on}", groups, sizes, times=1)


def _after(trial: ComponentTrial, kept: Mapping[str, int], times: int, name: str) -> dict[str, int]:
    """Return how many weights each layer keeps after the cuts.

    A group's budget may be spread over its layers in any way; here its first layers keep most.
    """
    on = f"{name} with times = {times}"
    groups = _groups(trial, "groups", (LAYERS, MappingProxyType(dict(kept)), times), on)
    _try_groups(trial, f"groups() on {on}", groups, kept, times)
    counts = dict(kept)
    for group in groups:
        budget = group.keep
        for layer in group.layers:
            counts[layer] = min(kept[layer], budget)
            budget -= counts[layer]
    return counts


def _groups(
    trial: ComponentTrial, method: str, arguments: tuple[Any, ...], on: str
) -> Sequence[Group]:
    """Return the budgets that a method gives, the same at each call, as a list or tuple."""
    call = f"{method}() on {on}"
    groups: Any = trial.call(method, *arguments, on=on)
    trial.require(
        isinstance(groups, list | tuple),
        f"{call} returned {type(groups).__name__}, not a list of Group",
    )
    again = trial.call(method, *arguments, on=on)
    trial.require(groups == again, f"{call} gave two results for equal inputs")
    return cast(Sequence[Group], groups)


def _try_groups(
    trial: ComponentTrial, call: str, groups: Sequence[Group], kept: Mapping[str, int], times: int
) -> None:
    seen: set[str] = set()
    for group in groups:
        _try_group(trial, call, group, kept, times, seen)
        seen |= set(group.layers)


def _try_group(
    trial: ComponentTrial,
    call: str,
    group: Any,
    kept: Mapping[str, int],
    times: int,
    seen: set[str],
) -> None:
    trial.require(isinstance(group, Group), f"{call} returned {type(group).__name__}, not Group")
    unknown = set(group.layers) - kept.keys()
    twice = set(group.layers) & seen
    trial.require(
        not unknown, f"{call} names no layer of the network: {', '.join(sorted(unknown))}"
    )
    trial.require(not twice, f"{call} has {', '.join(sorted(twice))} in two groups")

    unpruned = sum(kept[name] for name in group.layers)
    names = ", ".join(group.layers)
    trial.require(
        type(group.keep) is int, f"{call} keeps {group.keep!r} weights of {names}; counts are int"
    )
    trial.require(
        0 <= group.keep <= unpruned,
        f"{call} keeps {group.keep} of {unpruned} unpruned weights in {names}",
    )
    # each cut rounds by half a weight at most, and counts of layers that share a budget by one more
    is_close = isfinite(group.requested) and abs(group.requested - group.keep) <= times / 2 + 1
    trial.require(
        is_close, f"{call} keeps {group.keep} weights of {names}, far from its `requested`"
    )


def try_rewind(trial: ComponentTrial) -> None:
    """Require a point that lies within the training and is the same each time."""
    # lengths in epochs and shares are other steps in each of these trainings
    for clock in CLOCKS:
        on = f"a training of {clock.total} steps"
        point = trial.call("point", clock, on=on)
        call = f"point() on {on}"
        trial.require(
            isinstance(point, RewindPoint),
            f"{call} returned {type(point).__name__}, not a RewindPoint",
        )
        trial.require(
            point == trial.call("point", clock, on=on), f"{call} gave two results for one clock"
        )
        _try_point(trial, call, point, clock.total)


def _try_point(trial: ComponentTrial, call: str, point: RewindPoint, total: int) -> None:
    steps = {
        "schedule": point.schedule,
        "weights": 0 if point.weights == LATEST else point.weights,
    }
    for name, step in steps.items():
        is_within = type(step) is int and 0 <= step <= total
        trial.require(is_within, f"{call} has {name} = {step!r}, which is no step of the training")
    is_length = point.steps is None or (type(point.steps) is int and point.steps >= 0)
    trial.require(is_length, f"{call} has steps = {point.steps!r}, which is no length")
    trial.require(
        point.optimizer in ("fresh", "saved"), f"{call} has optimizer = {point.optimizer!r}"
    )
    trial.require(point.buffers in ("rewound", "latest"), f"{call} has buffers = {point.buffers!r}")
    needs_state = point.optimizer == "saved"
    has_state = point.weights not in (LATEST, 0)
    trial.require(
        has_state or not needs_state,
        f"{call} asks for the optimizer's saved state with weights = {point.weights!r}; a state is "
        "saved at the steps 1, 2, … of the dense run only",
    )
