"""The trial of mask updates: they change the masks of a small network through a whole training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from lotteryfw.api.layers import Group
from lotteryfw.api.mask_updates import TrainingNetwork
from lotteryfw.api.rng import stream
from lotteryfw.api.steps import Clock
from lotteryfw.search.context import single_layer_groups
from lotteryfw.testkit.component_trial import ComponentTrial
from lotteryfw.testkit.fixtures import CLOCKS, LAYERS, draw_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHANGES = 6
"""Changes that are tried of each training: the first ones."""
DENSITIES = (1.0, 0.3)
"""The densities that the tried trainings begin with."""
Masks = Mapping[str, "Tensor"]


def try_mask_update(trial: ComponentTrial) -> None:
    """Require a change in every training, and at each change budgets, masks and values that fit.

    Masks are bool, keep exactly what the budgets say, and depend on network and stream alone.
    Values of weights that come back are float32 and finite. Nothing that is shown is changed.
    """
    for clock in CLOCKS:
        steps = list(islice(_due_steps(trial, clock), CHANGES))
        trial.require(
            bool(steps),
            f"due() is never True in a training of {clock.total} steps: the mask does not change",
        )
        for density in DENSITIES:
            masks = _first_masks(density)
            for step in steps:
                masks = _try_change(trial, step, clock, masks)


def _due_steps(trial: ComponentTrial, clock: Clock) -> Iterator[int]:
    for step in range(1, clock.total):
        # called as it is, since a trial of every argument would take a minute
        if trial.component.due(step, clock):  # type: ignore[attr-defined]
            due = trial.call("due", step, clock, on=f"step {step}")
            # a mask must not change at one call and stay at the next
            trial.require(
                due is True, f"due() at step {step} returned {due!r} at its second call, not True"
            )
            yield step


def _try_change(trial: ComponentTrial, step: int, clock: Clock, masks: Masks) -> dict[str, Tensor]:
    """Return the masks after a change, which is made twice."""
    import torch

    on = f"step {step} of {clock.total}"
    results = []
    for _ in range(2):
        net = make_training_network(step, masks)
        arguments = (step, clock, net.layers, net.kept)
        groups = trial.call("budgets", *arguments, on=on)
        budgets = _require_budgets(trial, groups, net.kept, f"budgets() at {on}")
        new = _call_on_network(trial, "update", (step, clock, net), net, on)
        results.append(_require_masks(trial, new, net, budgets, f"update() at {on}"))
        for layer in net.layers:
            grown = results[-1][layer.name] & ~net.masks[layer.name]
            if bool(grown.any()):
                _require_regrown(trial, net, layer.name, grown, on)
    first, second = results
    for name, mask in first.items():
        trial.require(
            torch.equal(mask, second[name]),
            f"update() at {on} gave two masks of {name} for equal networks and streams",
        )
    return first


def _require_budgets(
    trial: ComponentTrial, groups: Any, kept: Mapping[str, int], call: str
) -> list[Group]:
    """Return a budget for every layer; one in no group keeps as many weights as it has."""
    sizes = {}
    for layer in LAYERS:
        sizes[layer.name] = layer.size
    trial.require(
        isinstance(groups, Sequence), f"{call} returned {type(groups).__name__}, not a list"
    )
    missing = dict(kept)
    for group in groups:
        trial.require(
            isinstance(group, Group), f"{call} gave a {type(group).__name__}, not a Group"
        )
        for name in group.layers:
            trial.require(name in sizes, f"{call} names no layer of the network: {name}")
            trial.require(name in missing, f"{call} has {name} in two groups")
            del missing[name]
        size = sum(sizes[name] for name in group.layers)
        trial.require(
            type(group.keep) is int and 0 <= group.keep <= size,
            f"{call} keeps {group.keep} of {size} weights in {', '.join(group.layers)}",
        )
    # as the engine reads the budgets: what stands in none of them stays as it is
    return [*groups, *single_layer_groups(missing)]


def _require_masks(
    trial: ComponentTrial, masks: Any, net: TrainingNetwork, budgets: Sequence[Group], call: str
) -> dict[str, Tensor]:
    """Return the masks of all layers after a change."""
    import torch

    trial.require(
        isinstance(masks, Mapping), f"{call} returned {type(masks).__name__}, not a dict by layer"
    )
    unknown = sorted(map(str, masks.keys() - net.masks.keys()))
    trial.require(not unknown, f"{call} names no layer of the network: {', '.join(unknown)}")
    for name, mask in masks.items():
        dtype = f"{mask.dtype}" if isinstance(mask, torch.Tensor) else type(mask).__name__
        trial.require(dtype == "torch.bool", f"{call} returned {dtype} for {name}, not torch.bool")
        shape = list(net.masks[name].shape)
        trial.require(
            list(mask.shape) == shape,
            f"{call} returned shape {list(mask.shape)} for {name}, not {shape}",
        )
    new = {**net.masks, **masks}
    for group in budgets:
        count = sum(int(new[name].sum()) for name in group.layers)
        trial.require(
            count == group.keep,
            f"{call} keeps {count} weights in {', '.join(group.layers)}; "
            f"budgets() says {group.keep}",
        )
    return new


def _require_regrown(
    trial: ComponentTrial, net: TrainingNetwork, name: str, grown: Tensor, on: str
) -> None:
    """Require finite float32 values of weights that come back, the same for equal streams."""
    import torch

    (layer,) = filter(lambda layer: layer.name == name, net.layers)
    # every call gets the stream at the place where `update` left it
    state = net.rng.get_state()
    values = []
    for _ in range(2):
        net.rng.set_state(state)
        value = _call_on_network(trial, "regrown", (layer, net), net, f"{name} at {on}")
        call = f"regrown() on {name} at {on}"
        is_tensor = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        trial.require(is_tensor, f"{call} returned no float32 tensor")
        trial.require(
            value.shape == grown.shape,
            f"{call} returned shape {list(value.shape)}, not {list(grown.shape)}",
        )
        values.append(value[grown])
    first, second = values
    trial.require(
        bool(torch.isfinite(first).all()),
        f"regrown() on {name} at {on} is NaN or infinite where weights come back",
    )
    trial.require(
        torch.equal(first, second),
        f"regrown() on {name} at {on} gave two results for equal networks and streams",
    )


def _call_on_network(
    trial: ComponentTrial, method: str, arguments: tuple[Any, ...], net: TrainingNetwork, on: str
) -> Any:
    """Call a method that is shown the network; require that it writes to none of its tensors."""
    shown: list[tuple[str, Tensor]] = []
    for what, tensors in (
        ("weights", net.weights),
        ("masks", net.masks),
        ("gradients()", net.gradients()),
    ):
        for name, tensor in tensors.items():
            shown.append((f"net.{what}['{name}']", tensor))
    # the tensors lie in mappings, which the trial's own comparison does not look into
    copies = []
    for _, tensor in shown:
        copies.append(tensor.clone())
    value = trial.call(method, *arguments, on=on)
    for (name, tensor), copy in zip(shown, copies, strict=True):
        trial.require(
            bool((tensor == copy).all()),
            f"{method}() on {on} changed {name}, which it is shown to read only",
        )
    return value


def _first_masks(density: float) -> dict[str, Tensor]:
    import torch

    # both densities are those of the first step: what follows depends on the component
    masks = {}
    for layer in LAYERS:
        chances = torch.rand(layer.shape, generator=stream("testkit", "mask", layer.name))
        masks[layer.name] = chances < density
    return masks


def make_training_network(step: int, masks: Masks) -> TrainingNetwork:
    """Return a small network after `step` updates under these masks, the same at each call."""
    import torch

    def draw(purpose: str) -> dict[str, Tensor]:
        drawn = {}
        for layer in LAYERS:
            rng = stream("testkit", purpose, step, layer.name)
            drawn[layer.name] = 0.1 * torch.randn(layer.shape, generator=rng)
        return drawn

    # masked weights are 0, as the engine has them
    weights = draw("weights")
    for name, weight in weights.items():
        weights[name] = weight.where(masks[name], 0.0)
    gradients = draw("gradients")
    rng: torch.Generator = stream("testkit", "mask update", step)
    return TrainingNetwork(LAYERS, weights, dict(masks), rng, lambda: gradients, draw_weights)
