"""Masks that change during a training: when its mask update changes them, and the change itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import Initialiser, MaskUpdate
from lotteryfw.api.layers import Group, LayerInfo
from lotteryfw.api.mask_updates import TrainingNetwork
from lotteryfw.api.metrics import FigureUnit
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.rng import Stream, stream
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import REMOVED_WITH
from lotteryfw.engine.runtime import EngineContext
from lotteryfw.search.context import single_layer_groups
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import Spec, Train
from lotteryfw.search.top_k import check_tensor

DENSITY, CHURN = "density", "churn"
"""The names of the curves; those of a layer have its name behind a slash."""


class ChangeSteps:
    """The steps of a training after whose update its masks change; none without a mask update."""

    def __init__(self, job: Train, context: EngineContext):
        self._spec = job.mask_update
        self._update: MaskUpdate | None = None
        if job.mask_update is not None:
            self._update = context.component(job.mask_update)
        self._clock = Clock(job.total, job.steps_per_epoch)
        # A change lies in [1, total) of the schedule; a training may be a part of that.
        self._steps = range(job.start + 1, min(job.start + job.steps + 1, job.total))

    def __contains__(self, step: int) -> bool:
        if self._update is None or self._spec is None or step not in self._steps:
            return False
        with blame(self._spec, "due"):
            return bool(self._update.due(step, self._clock))

    def next(self, after: int, until: int) -> int:
        """Return the first of them in (`after`, `until`), or `until`."""
        if self._update is not None:
            for step in range(after + 1, until):
                if step in self:
                    return step
        return until

    def last(self) -> int:
        """Return the last of them; -1 where there is none."""
        if self._update is not None:
            # From the end, since most updates change masks until late in the training.
            for step in reversed(self._steps):
                if step in self:
                    return step
        return -1


class ChangingMasks:
    """The masks of one network in training, and the rule by which its mask update changes them.

    The tensors of the constraint stay in one place, since a recorded update reads them (see
    `lotteryfw.engine.kernels.captured`). `parameters` are the network's, by name.
    """

    def __init__(
        self,
        job: Train,
        context: EngineContext,
        layers: Sequence[LayerInfo],
        parameters: Mapping[str, Tensor],
    ):
        assert job.mask_update is not None
        assert job.initialiser is not None
        self.steps = ChangeSteps(job, context)
        self._spec: Spec = job.mask_update
        self._update: MaskUpdate = context.component(job.mask_update)
        self._initialiser: Initialiser = context.component(job.initialiser)
        self._clock = Clock(job.total, job.steps_per_epoch)
        self._seed = job.mask_seed or 0
        self._layers = tuple(layers)
        self._parameters: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        """By layer, bool: the weights that are alive now. A change makes new tensors."""
        self._masked: dict[str, Tensor] = {}
        self.removed_with: dict[str, Tensor] = {}
        """By layer: the last value of each weight that a change removed, 0 where none did."""
        for layer in layers:
            self._parameters[layer.name] = parameters[layer.name]
            self.removed_with[layer.name] = torch.zeros_like(parameters[layer.name].detach())
            # A copy, since the job's own mask may be another training's, too.
            mask = job.mask[layer.name].to(context.device, copy=True)
            self.masks[layer.name] = mask
            self._masked[layer.name] = ~mask
        self._changed: dict[str, int] = {}
        self.apply()

    # The constraint of a training step

    def apply(self) -> None:
        """Set every masked weight to 0."""
        with torch.no_grad():
            for name, masked in self._masked.items():
                self._parameters[name].masked_fill_(masked, 0.0)

    def restore(self, state: NetworkState) -> None:
        """Go back to masks that the training had."""
        masks, removed_with = state.masks, state.extra[REMOVED_WITH]
        for name, masked in self._masked.items():
            self.removed_with[name] = removed_with[name].to(masked.device, copy=True)
            self.masks[name] = masks[name].to(masked.device, copy=True)
            # In place: a recorded update reads this memory.
            masked.copy_(~self.masks[name])
        self._changed = {}

    # The curves

    @property
    def curve_units(self) -> dict[str, FigureUnit]:
        """The curves of masks that change: density and churn of the network and of each layer."""
        units: dict[str, FigureUnit] = {DENSITY: "share", CHURN: "share"}
        for layer in self._layers:
            units[f"{DENSITY}/{layer.name}"] = "share"
            units[f"{CHURN}/{layer.name}"] = "share"
        return units

    def curve_figures(self) -> dict[str, float]:
        """Return densities, and the share of mask entries that changed since the last call."""
        # Churn is counted from one point of the curve to the next.
        changed, self._changed = self._changed, {}
        kept = self._kept()
        total = sum(map(Tensor.numel, self.masks.values()))
        figures = {
            DENSITY: sum(kept.values()) / total,
            CHURN: sum(changed.values()) / total,
        }
        for layer in self._layers:
            figures[f"{DENSITY}/{layer.name}"] = kept[layer.name] / layer.size
            figures[f"{CHURN}/{layer.name}"] = changed.get(layer.name, 0) / layer.size
        return figures

    # A change

    def change(
        self,
        step: int,
        optimizer: torch.optim.Optimizer,
        gradients: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Change the masks after the update that ends at `step`, if they are due.

        Weights that go become 0, weights that come back take the update's `regrown`, and the
        optimizer's state of both becomes 0. Raises ContractError for masks that are not what the
        update's budgets say.
        """
        if step not in self.steps:
            return
        weights = {}
        for name, parameter in self._parameters.items():
            weights[name] = parameter.detach()
        rng = stream(self._seed, Stream.MASK_UPDATE, step)
        net = TrainingNetwork(
            self._layers, weights, dict(self.masks), rng, gradients, self._initialiser.weight
        )
        kept = self._kept()
        with blame(self._spec, "budgets"):
            groups = self._update.budgets(step, self._clock, self._layers, kept)
        budgets = self._checked_budgets(step, groups, kept)
        with blame(self._spec, "update", net):
            masks = self._update.update(step, self._clock, net)
        new = self._checked_masks(step, masks, budgets)

        # All values are asked for before any is written: a component sees one network throughout.
        regrown: dict[str, Tensor] = {}
        for layer in self._layers:
            grown = new[layer.name] & ~self.masks[layer.name]
            if bool(grown.any()):
                regrown[layer.name] = self._regrown(step, layer, grown, net)
        for name, mask in new.items():
            self._set(name, mask, regrown.get(name), optimizer)

    def _set(
        self, name: str, mask: Tensor, regrown: Tensor | None, optimizer: torch.optim.Optimizer
    ) -> None:
        parameter = self._parameters[name]
        # What stays under the mask, or outside it, keeps its value and its momentum.
        changed = mask ^ self.masks[name]
        with torch.no_grad():
            # Controls that keep such a weight start from this value: the end of the training has 0.
            removed = changed & self.masks[name]
            self.removed_with[name] = torch.where(removed, parameter, self.removed_with[name])
            if regrown is not None:
                parameter.copy_(torch.where(mask & changed, regrown, parameter))
            parameter.masked_fill_(~mask, 0.0)
            for state_name, state in optimizer.state.get(parameter, {}).items():
                # A count of steps belongs to the whole tensor.
                if not isinstance(state, Tensor) or not state.dim():
                    continue
                if state.shape != parameter.shape:
                    raise ContractError(
                        f"optimizer {type(optimizer).__name__} keeps '{state_name}' of {name} in "
                        f"the shape {list(state.shape)}, so a mask update cannot begin it afresh "
                        "for single weights"
                    )
                state.masked_fill_(changed, 0)
        self.masks[name] = mask
        self._masked[name].copy_(~mask)
        self._changed[name] = self._changed.get(name, 0) + int(changed.sum())

    def _kept(self) -> dict[str, int]:
        """Return how many weights of each layer are alive, in one wait for the device."""
        counts = torch.stack([mask.sum() for mask in self.masks.values()]).tolist()
        return dict(zip(self.masks, counts, strict=True))

    # What the component answers

    def _who(self, method: str, step: int) -> str:
        return f"{describe(self._spec)}: {method}() at step {step}"

    def _checked_budgets(
        self, step: int, groups: Sequence[Group], kept: Mapping[str, int]
    ) -> list[Group]:
        """Return a budget for every layer: those of a layer in no group keep as many as it has."""
        who = self._who("budgets", step)
        sizes = {layer.name: layer.size for layer in self._layers}
        # What no group names has to keep exactly what it has now.
        missing = dict(kept)
        for group in groups:
            if not isinstance(group, Group):
                raise ContractError(f"{who} gave a {type(group).__name__}, not a Group")
            for name in group.layers:
                if name not in sizes:
                    raise ContractError(f"{who} names no layer of the network: {name}")
                if missing.pop(name, None) is None:
                    raise ContractError(f"{who} has {name} in two groups")
            size = sum(sizes[name] for name in group.layers)
            if not 0 <= group.keep <= size:
                raise ContractError(
                    f"{who} keeps {group.keep} of {size} weights in {', '.join(group.layers)}"
                )
        return [*groups, *single_layer_groups(missing)]

    def _checked_masks(
        self, step: int, masks: object, budgets: Sequence[Group]
    ) -> dict[str, Tensor]:
        """Return the masks of all layers, if they keep what the budgets say."""
        who = self._who("update", step)
        if not isinstance(masks, Mapping):
            raise ContractError(f"{who} returned {type(masks).__name__}, not a dict by layer")
        unknown = sorted(map(str, masks.keys() - self.masks.keys()))
        if unknown:
            raise ContractError(f"{who} names no layer of the network: {', '.join(unknown)}")
        new = dict(self.masks)
        for name, mask in masks.items():
            shape = list(self.masks[name].shape)
            is_mask = isinstance(mask, Tensor) and mask.dtype == torch.bool
            if not is_mask or list(mask.shape) != shape:
                returned = type(mask).__name__
                if isinstance(mask, Tensor):
                    returned = f"{mask.dtype} of shape {list(mask.shape)}"
                raise ContractError(
                    f"{who} returned {returned} for layer {name}; a bool tensor of shape {shape} "
                    "belongs there"
                )
            # A copy, since the component may write to what it returned.
            new[name] = mask.detach().to(self.masks[name].device, copy=True)
        for group in budgets:
            # One wait for the device for each budget, at a step that waits anyway.
            count = sum(int(new[name].sum()) for name in group.layers)
            if count != group.keep:
                raise ContractError(
                    f"{who} keeps {count} weights in {', '.join(group.layers)}; "
                    f"its budgets() says {group.keep}"
                )
        return new

    def _regrown(self, step: int, layer: LayerInfo, grown: Tensor, net: TrainingNetwork) -> Tensor:
        """Return the values of weights that come back: float32 [s] on the device."""
        with blame(self._spec, "regrown", layer, net):
            value = self._update.regrown(layer, net)
        what = f"{self._who('regrown', step)} on layer {layer.name}"
        value = check_tensor(value, layer.shape, what).to(grown.device).float()
        if not bool(torch.isfinite(value[grown]).all()):
            raise ContractError(
                f"{what} returned NaN or infinite values for weights that come back"
            )
        return value
