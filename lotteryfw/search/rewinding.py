"""The values that a round of pruning starts from: rewound weights, and the rules for any mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lotteryfw.api.errors import PluginError
from lotteryfw.api.layers import LATEST
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.tickets import (
    REMOVED_WITH,
    Restart,
    Ticket,
    Trained,
)
from lotteryfw.search.context import SearchContext
from lotteryfw.search.guard import describe
from lotteryfw.search.round_layers import RoundLayers, Tensors, merge
from lotteryfw.search.stored_tickets import without_ticket_state

if TYPE_CHECKING:
    from torch import Tensor


def shown_round(
    context: SearchContext,
    level: int,
    parent: Ticket,
    trained: Trained,
    root: Trained,
    rewound: Tensors,
) -> RoundLayers:
    """Return the layers of the round that `trained` ended, as criterion and actions see them."""
    original = first_values(context, root)
    return RoundLayers(context, level, parent.values, parent.mask, trained, rewound, original)


def restart_of(
    context: SearchContext,
    level: int,
    parent: Ticket,
    trained: Trained,
    root: Trained,
    rewound: Tensors,
    before: Tensors,
) -> Restart:
    """Return the rules that give the ticket after a round its values, for any masks.

    `before` are the masks that its own was cut from.
    """
    start, mask, original = parent.values, parent.mask, first_values(context, root)
    restored = rewinding(context, parent, trained, root, rewound)
    # The closure lives as long as the ticket, and must not keep its ancestors' tensors.
    trained = without_ticket_state(trained)

    def values(masks: Tensors) -> Tensors:
        # Another mask may keep what earlier rounds removed. What it does not keep either stays at
        # the value that it was frozen at.
        cut_from = {name: before[name] | kept for name, kept in masks.items()}
        shown = RoundLayers(context, level, start, mask, trained, restored(), original)
        return shown.filled(masks, cut_from)

    return Restart(restored, values)


def rewound_weights(context: SearchContext, trained: Trained, root: Trained) -> Tensors:
    """Return every parameter and buffer where the rewind policy points.

    That is after `trained`, or at a step of the training `root`. Raises PluginError where no dense
    training passed that step.
    """
    step = context.point.weights
    if step == LATEST:
        return trained.weights()
    if step == 0:
        return first_values(context, root)
    dense = root.ticket
    passes_steps = dense.is_dense or dense.updates_mask or dense.learns_mask
    if not passes_steps or dense.point.steps == 0:
        raise PluginError(
            f"{describe(context.specs['search'])} prunes a ticket that does not come from a "
            f"training of the dense network, so there is no step {step} to rewind to: train "
            "lab.dense() first"
        )
    return root.outcome.state(step)[0].values


def first_values(context: SearchContext, root: Trained | None) -> Tensors:
    """Return every parameter and buffer at step 0 of the chain that begins with `root`.

    They are the cell's, unless its search began with a whole network of its own.
    """
    if root is not None and root.ticket.is_dense and root.ticket.origin != context.dense_digest:
        return root.ticket.values
    return context.initial.values


def rewinding(
    context: SearchContext, parent: Ticket, trained: Trained, root: Trained, rewound: Tensors
) -> Callable[[], Tensors]:
    """Return a function that gives, by layer, the rewound values of all weights.

    Where nothing is rewound (LATEST), `rewound` has what the masked weights were frozen at. The
    latest value that training gave such a weight is the one that it was removed with, by a pruning
    or, within a training, by a mask update.

    The function holds no ticket, since that would keep the tensors of all its ancestors.
    """
    earlier = parent.source.state().restart
    if context.point.weights == 0:
        first = first_values(context, root)
        return lambda: first
    network = _masked_network(context, parent, trained, root)
    if network is not None:
        before_removal = _before_removal(context, network)
        return lambda: before_removal
    if context.point.weights != LATEST or earlier is None:
        trained, root = without_ticket_state(trained), without_ticket_state(root)
        return lambda: rewound_weights(context, trained, root)

    removed_with = earlier.rewound()
    latest = {}
    for name, mask in parent.mask.items():
        latest[name] = merge(mask, rewound[name], removed_with[name])
    return lambda: latest


def _masked_network(
    context: SearchContext, parent: Ticket, trained: Trained, root: Trained
) -> NetworkState | None:
    """Return the network that rewinding takes, where a mask update had removed weights of it."""
    if context.point.weights == LATEST:
        return trained.outcome.tensors() if parent.updates_mask else None
    return root.outcome.state(context.point.weights)[0] if root.ticket.updates_mask else None


def _before_removal(context: SearchContext, network: NetworkState) -> Tensors:
    """Return, by layer, the last value that each weight had in a training with mask updates."""
    removed_with = network.extra[REMOVED_WITH]
    values = {}
    for name, mask in network.masks.items():
        # A weight that no training step moved has its first value: no mask had it so far.
        was_trained = removed_with[name] != 0
        masked = merge(was_trained, removed_with[name], context.initial.values[name])
        values[name] = merge(mask, network.values[name], masked)
    return values


def zeros_where_masked(rewound: Callable[[], Tensors]) -> Restart:
    """Return the restart of a ticket that has these weights where it keeps them, and zeros."""

    def values(masks: Tensors) -> Tensors:
        weights = rewound()
        filled = {}
        for name, mask in masks.items():
            filled[name] = merge(mask, weights[name], None)
        return filled

    return Restart(rewound, values)


def carried_values(context: SearchContext, trained: Trained, rewound: Tensors) -> dict[str, Tensor]:
    """Return the values of the next round before its layers are filled in.

    Parameters are rewound; buffers are those that the policy names.
    """
    values = dict(rewound)
    # Batch-norm statistics of early weights do not fit a network that went on from later ones.
    if context.point.buffers == "latest":
        latest = trained.weights()
        for name in context.initial.buffers:
            values[name] = latest[name]
    return values


def whole_masks(context: SearchContext) -> dict[str, Tensor]:
    """Return, by layer, the mask that keeps everything."""
    import torch

    masks = {}
    for layer in context.layers:
        masks[layer.name] = torch.ones(layer.shape, dtype=torch.bool)
    return masks
