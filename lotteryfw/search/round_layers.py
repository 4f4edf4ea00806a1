"""The layers of one round as criterion and actions see them, and the values that these give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import Layer, LayerInfo
from lotteryfw.api.rng import Stream, stream
from lotteryfw.api.tickets import Trained
from lotteryfw.search.context import SearchContext
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import Spec
from lotteryfw.search.top_k import check_tensor, require_finite

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]


class RoundLayers:
    """The layers of one round as criterion and actions see them, and what these answer."""

    def __init__(
        self,
        context: SearchContext,
        level: int,
        start: Tensors,
        mask_before: Tensors,
        trained: Trained,
        rewound: Tensors,
        original: Tensors,
    ):
        """`original` are the values at step 0 of the chain that the round belongs to."""
        self._context = context
        self._level = level
        self._start = start
        self._mask_before = mask_before
        self._final = trained.weights()
        self._trained = trained
        self._rewound = rewound
        self._original = original

    def scores(self, criterion: MaskCriterion, spec: Spec) -> dict[str, Tensor]:
        """Return, by layer, the scores of a criterion, which jobs name by `spec`."""
        context = self._context
        gradient, probed = self._trained.gradient, self._trained.network_scores
        scores = {}
        for info in context.layers:
            # A criterion is asked before the cut, so both masks are the one before.
            mask = self._mask_before[info.name]
            layer = self._layer(info, Stream.CRITERION, mask, mask)
            if gradient is not None:
                layer = replace(layer, _gradient=gradient[info.name])
            if probed is not None:
                layer = replace(layer, _probed=probed[info.name])
            with blame(spec, "score", layer):
                score = criterion.score(layer)
            what = f"{describe(spec)}: score() on layer {info.name}"
            scores[info.name] = check_tensor(score, info.shape, what)
        return scores

    def filled(self, masks: Tensors, masks_before: Tensors) -> dict[str, Tensor]:
        """Return, by layer, the values that both actions give under these masks."""
        context, cell = self._context, self._context.cell
        values = {}
        for info in context.layers:
            mask, before = masks[info.name], masks_before[info.name]

            layer = self._layer(info, Stream.MASK1, mask, before)
            with blame(context.specs["mask1"], "kept_values", layer):
                kept = cell.mask1.kept_values(layer)
            kept = checked_values(context, "mask1", "kept_values", layer, kept, mask)

            # A new view with a stream of its own: what mask-1 drew must not shift what mask-0 draws.
            layer = self._layer(info, Stream.MASK0, mask, before)
            with blame(context.specs["mask0"], "masked_values", layer):
                masked = cell.mask0.masked_values(layer)
            masked = checked_values(context, "mask0", "masked_values", layer, masked, ~mask)
            # `init_zero_all` of Zhou et al. also zeroes kept weights that moved toward zero.
            with blame(context.specs["mask0"], "kept", layer):
                kept = cell.mask0.kept(layer, kept)
            kept = checked_values(context, "mask0", "kept", layer, kept, mask)

            values[info.name] = merge(mask, kept, masked)
        return values

    def _layer(self, info: LayerInfo, purpose: Stream, mask: Tensor, mask_before: Tensor) -> Layer:
        context, name = self._context, info.name
        return Layer(
            info,
            original=self._original[name],
            init=self._start[name],
            final=self._final[name],
            rewound=self._rewound[name],
            mask=mask,
            mask_before=mask_before,
            rng=stream(context.seed, purpose, self._level, name),
            _resample=lambda: context.fresh_weights(info, self._level),
        )


def merge(mask: Tensor, kept: Tensor, masked: Tensor | None) -> Tensor:
    """Return float32 [s]: `kept` where `mask`, else `masked` (None: zero)."""
    import torch

    return torch.where(mask, kept.float(), torch.zeros(()) if masked is None else masked.float())


def checked_values(
    context: SearchContext, slot: str, method: str, layer: Layer, value: object, used: Tensor
) -> Tensor:
    """Return float32 [s] that a component gave for a layer. Raises ContractError for anything else.

    `used` [s] bool are the weights that get these values.
    """
    what = f"{describe(context.specs[slot])}: {method}() on layer {layer.info.name}"
    values = check_tensor(value, layer.info.shape, what)
    require_finite(values, what, used, _shown(layer))
    return values


def _shown(layer: Layer) -> tuple[Tensor, ...]:
    """Return the weights that a component sees of a layer."""
    return layer.original, layer.init, layer.final, layer.rewound
