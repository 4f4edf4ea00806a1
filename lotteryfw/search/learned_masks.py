"""Derivations of learned masks: fresh scores, further cycles, the ticket of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lotteryfw.api.errors import UsageError
from lotteryfw.api.layers import LATEST, MaskedLayer, MaskedNetwork
from lotteryfw.api.tickets import Derivation, RewindPoint, Ticket, TicketState, Trained
from lotteryfw.search.context import SearchContext, digest_of
from lotteryfw.search.guard import blame
from lotteryfw.search.initial_state import supermask_values
from lotteryfw.search.rewinding import (
    carried_values,
    restart_of,
    rewound_weights,
    shown_round,
    whole_masks,
    zeros_where_masked,
)
from lotteryfw.search.round_layers import merge

if TYPE_CHECKING:
    from torch import Tensor


class MaskScores(Derivation):
    """The whole network with fresh scores to learn a mask by.

    Its weights are those that the mask-1 action makes of the initialisation.
    """

    def __init__(self, context: SearchContext, density: float | None, length: int | None):
        self._context = context
        self._density = density
        self.digest = digest_of(
            "scored",
            context.dense_digest,
            context.masking_digest,
            density,
            length,
            context.draws_digest,
            context.seeds.scores,
        )

    def materialise(self) -> TicketState:
        context = self._context
        budgets = context.pruner.budgets_at(self._density)
        seeds = (context.seed, context.seeds.init)
        values = supermask_values(context.cell, context.specs, context.initial, *seeds)
        scores = {layer.name: context.initial_scores(layer) for layer in context.layers}
        stats = context.pruner.budget_stats(budgets)
        return TicketState(whole_masks(context), values, stats, scores, budgets)

    def kept_by_budgets(self) -> Mapping[str, int]:
        """Also ask the parametrization for a mask, which raises where it needs a density."""
        import torch

        context = self._context
        if context.initial.masks:
            raise UsageError(
                f"start: {context.cell.start and context.cell.start.path} has masks, and the "
                f"search '{context.cell.search.use}' learns masks over a whole network; start "
                "from a file without masks"
            )
        budgets = context.pruner.budgets_at(self._density)
        everything = whole_masks(context)
        edges = {}
        for layer in context.layers:
            weights = context.initial.values[layer.name]
            scores = torch.zeros(context.score_shape(layer))
            edges[layer.name] = MaskedLayer(layer, weights, scores, everything[layer.name])
        assert context.cell.parametrization is not None
        with blame(context.specs["parametrization"], "masks"):
            context.cell.parametrization.masks(MaskedNetwork(edges, budgets, context.draw))
        return dict(context.pruner.sizes)


class NextCycle(Derivation):
    """The next cycle of learning a mask, at another density.

    `hard` removes for good what the last cycle did not select. The rewind policy says where scores
    and schedule go on: at LATEST scores stay as learned, at step k they return to that step of the
    first cycle, whose training `root` is.
    """

    def __init__(
        self,
        context: SearchContext,
        parent: Ticket,
        learned: Trained,
        root: Trained,
        density: float | None,
        hard: bool,
        length: int | None,
    ):
        self._context = context
        self._learned = learned
        self._root = root
        self._density = density
        self._hard = hard
        self._point = next_cycle_point(context, root, length)
        self.parent: Ticket = parent
        made_from = context.parents_digest(parent, learned, root)
        rules = (context.masking_digest, context.rewind_digest)
        self.digest = digest_of(
            "rescored", made_from, *rules, density, hard, length, context.draws_digest
        )

    def materialise(self) -> TicketState:
        context, step = self._context, self._point.weights
        budgets = context.pruner.budgets_at(self._density)
        mask: Mapping[str, Tensor] = self.parent.mask
        # A hard cycle may keep only what the last one selected; a soft one may keep any edge.
        if self._hard:
            mask = context.masks_of(_learned_network(context, self.parent, self._learned))

        weights, scores = self._learned.weights(), self._learned.scores()
        # The first cycle's own start, since mask-1 made its weights and not the initialiser.
        if step == 0:
            first = self._root.ticket
            weights, scores = first.values, first.scores or {}
        elif step != LATEST:
            network, _ = self._root.outcome.state(step)
            weights, scores = network.values, network.scores
        stats = context.pruner.budget_stats(budgets)
        return TicketState(mask, weights, stats, scores, budgets)

    def kept_by_budgets(self) -> Mapping[str, int]:
        # Raises UsageError where the scope cannot keep to this density.
        self._context.pruner.budgets_at(self._density)
        return dict(self._context.pruner.sizes)


class Extracted(Derivation):
    """The ticket that a learned mask makes of the network it was learned over.

    Its weights are those that the network computed with under that mask. Its stats have the
    expected number of edges beside those of the mask.
    """

    def __init__(self, context: SearchContext, parent: Ticket, learned: Trained):
        self._context = context
        self._learned = learned
        self.parent: Ticket = parent
        made_from = context.parents_digest(parent, learned, learned)
        self.digest = digest_of("found", made_from, context.masking_digest)

    def materialise(self) -> TicketState:
        context = self._context
        parametrization, spec = context.cell.parametrization, context.specs["parametrization"]
        assert parametrization is not None
        net = _learned_network(context, self.parent, self._learned)
        masks = context.masks_of(net)
        weights = self._learned.weights()
        values = dict(weights)
        expected = 0.0
        for name, mask in masks.items():
            edges = net.edges[name]
            with blame(spec, "expected", edges):
                expected += parametrization.expected(edges, mask)
            with blame(spec, "weight", edges):
                weight = parametrization.weight(edges, mask)
            # What the network computed with under the mask: rescaled weights, not the raw ones.
            values[name] = merge(mask, weight, None)
        stats = context.pruner.stats(masks, expected)
        return TicketState(masks, values, stats, restart=zeros_where_masked(lambda: weights))

    def kept_by_budgets(self) -> Mapping[str, int]:
        return dict(self._context.pruner.sizes)


class RewoundMask(Derivation):
    """The ticket of a learned mask over rewound weights.

    Rewinding and both actions give its values, as if one cut of the whole network had made the
    mask.
    """

    def __init__(self, context: SearchContext, parent: Ticket, learned: Trained):
        self._context = context
        self._learned = learned
        self.parent: Ticket = parent
        made_from = context.parents_digest(parent, learned, learned)
        rules = (context.masking_digest, context.pruning_digest)
        self.digest = digest_of("rewound mask", made_from, *rules, context.draws_digest)

    def materialise(self) -> TicketState:
        context, parent, learned = self._context, self.parent, self._learned
        level = parent.level + 1
        masks = context.masks_of(_learned_network(context, parent, learned))
        rewound = rewound_weights(context, learned, learned)
        shown = shown_round(context, level, parent, learned, learned, rewound)
        values = carried_values(context, learned, rewound)
        whole = whole_masks(context)
        values |= shown.filled(masks, whole)
        stats = context.pruner.stats(masks, sum(int(mask.sum()) for mask in masks.values()))
        restart = restart_of(context, level, parent, learned, learned, rewound, before=whole)
        return TicketState(masks, values, stats, restart=restart)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return dict(self._context.pruner.sizes)


def next_cycle_point(context: SearchContext, root: Trained, length: int | None) -> RewindPoint:
    """Return where a cycle of this length goes on.

    A step to return to is one of the first cycle, so the policy is asked about that one's length.
    """
    point = context.point_at(root.ticket.length)
    return context.point_at(length) if point.weights == LATEST else point


def _learned_network(context: SearchContext, ticket: Ticket, learned: Trained) -> MaskedNetwork:
    """Return the network of a ticket whose mask was learned, at its final scores."""
    weights, scores = learned.weights(), learned.scores()
    edges = {}
    for layer in context.layers:
        name = layer.name
        edges[name] = MaskedLayer(layer, weights[name], scores[name], ticket.mask[name])
    return MaskedNetwork(edges, ticket.budgets, context.draw)
