"""Controls as derivations: networks of a recorded ticket's density in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError
from lotteryfw.api.kinds import Control
from lotteryfw.api.layers import ControlLayer, LayerInfo
from lotteryfw.api.rng import Stream, stream
from lotteryfw.api.tickets import Derivation, Restart, RewindPoint, Ticket, TicketState
from lotteryfw.search.context import SearchContext, digest_of, single_layer_groups
from lotteryfw.search.derivations import kept_by_budgets
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.jobs import Spec
from lotteryfw.search.rewinding import first_values, whole_masks, zeros_where_masked
from lotteryfw.search.round_layers import merge
from lotteryfw.search.top_k import check_tensor, require_finite

if TYPE_CHECKING:
    from torch import Tensor


_FOR_CONTROLS = (Stream.CONTROL,)
"""The label of what is drawn for all controls of a level.

A ticket may be drawn anew or at random itself, and its control must not be the same network.
"""


def control_of(context: SearchContext, control: Control, spec: Spec, ticket: Ticket) -> Ticket:
    """Return a control of a recorded ticket.

    It starts where the ticket does, or at the beginning of the schedule if the control restarts.
    """
    if ticket.is_dense or ticket.learns_mask:
        # Nothing was pruned, so every control is the network itself.
        return ticket
    point = ticket.point
    if control.restarts:
        # Beside a ticket that is only measured, a control is only measured, too.
        steps = 0 if ticket.point.steps == 0 else None
        point = RewindPoint(weights=0, schedule=0, steps=steps)
    # Its training has no step, so it is measured where the ticket would start.
    if not control.trains:
        point = replace(point, steps=0)
    derivation = Controlled(context, control, spec, ticket)
    derived = Ticket.derived(derivation, ticket.level, point)
    return replace(derived, root=ticket.root, parent=ticket.parent)


class Controlled(Derivation):
    """A control of a recorded ticket: its own mask, and values by the ticket's rules or its own."""

    def __init__(self, context: SearchContext, control: Control, spec: Spec, ticket: Ticket):
        self._context = context
        self._control = control
        self._spec = spec
        self.parent: Ticket = ticket
        rules = (spec.digest, context.initialiser_digest)
        self.digest = digest_of(
            "control", *rules, ticket.origin, ticket.level, context.draws_digest
        )

    def materialise(self) -> TicketState:
        context, ticket, control = self._context, self.parent, self._control
        masks = {}
        for info in context.layers:
            # Masks come first, for all layers: what a control starts from depends on all of them.
            layer = self._layer(info, ticket.values[info.name])
            with blame(self._spec, "mask", layer):
                masks[info.name] = self._checked_mask(layer, control.mask(layer))

        start = self._start(masks)
        values = dict(self._original if control.restarts else ticket.values)
        for info in context.layers:
            name = info.name
            layer = self._layer(info, start[name])
            with blame(self._spec, "kept_values", layer):
                kept = control.kept_values(layer)
            kept = self._checked_values(layer, "kept_values", kept, masks[name])

            layer = self._layer(info, start[name])
            with blame(self._spec, "masked_values", layer):
                masked = control.masked_values(layer)
            if masked is not None:
                masked = self._checked_values(layer, "masked_values", masked, ~masks[name])

            values[name] = merge(masks[name], kept, masked)
        return TicketState(masks, values, ticket.cut)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return kept_by_budgets(self.parent)

    def _start(self, masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return, by layer, what the ticket would start from if it had these masks."""
        ticket = self.parent
        if all(bool((masks[name] == mask).all()) for name, mask in ticket.mask.items()):
            return ticket.values
        return self._restart.values(masks)

    @cached_property
    def _restart(self) -> Restart:
        restart = self.parent.source.state().restart
        # A ticket without a rule of its own has no values but those that it starts from.
        return restart or zeros_where_masked(lambda: self.parent.values)

    @cached_property
    def _original(self) -> Mapping[str, Tensor]:
        return first_values(self._context, self.parent.root)

    @cached_property
    def _rewound(self) -> Mapping[str, Tensor]:
        return self._restart.rewound()

    @cached_property
    def _random_masks(self) -> Mapping[str, Tensor]:
        context, ticket = self._context, self.parent
        # As many weights as the ticket has in every layer: a control differs in nothing else.
        groups = single_layer_groups(ticket.cut.kept)
        whole = whole_masks(context)
        return context.pruner.at_random(whole, groups, ticket.level, _FOR_CONTROLS)[0]

    def _layer(self, info: LayerInfo, start: Tensor) -> ControlLayer:
        """Return the layer as the control sees it, with its random stream at the start."""
        context, ticket, name = self._context, self.parent, info.name
        return ControlLayer(
            info,
            original=self._original[name],
            start=start,
            rewound=self._rewound[name],
            mask=ticket.mask[name],
            rng=stream(context.seed, Stream.CONTROL, self._control.use, ticket.level, name),
            _random_mask=lambda: self._random_masks[name],
            _resample=lambda: context.fresh_weights(info, ticket.level, _FOR_CONTROLS),
        )

    def _checked_mask(self, layer: ControlLayer, mask: Tensor) -> Tensor:
        """Return the mask if it keeps as many weights as the ticket's. Raises ContractError."""
        import torch

        where = f"{describe(self._spec)}: mask() on layer {layer.name}"
        shape = list(layer.info.shape)
        is_mask = isinstance(mask, torch.Tensor) and mask.dtype == torch.bool
        if not is_mask or list(mask.shape) != shape:
            raise ContractError(f"{where} must return a bool tensor of shape {shape}")
        kept, expected = int(mask.sum()), int(layer.mask.sum())
        if kept != expected:
            raise ContractError(f"{where} keeps {kept} weights; the ticket keeps {expected}")
        return mask

    def _checked_values(
        self, layer: ControlLayer, method: str, values: object, used: Tensor
    ) -> Tensor:
        what = f"{describe(self._spec)}: {method}() on layer {layer.name}"
        checked = check_tensor(values, layer.info.shape, what)
        require_finite(checked, what, used, [layer.original, layer.start, layer.rewound])
        return checked
