"""Derivations around a training with mask updates: its start, and the mask that it ends with."""

from __future__ import annotations

from collections.abc import Mapping

from lotteryfw.api.errors import UsageError
from lotteryfw.api.layers import Group
from lotteryfw.api.tickets import Derivation, Ticket, TicketState, Trained
from lotteryfw.search.context import SearchContext, digest_of
from lotteryfw.search.derivations import kept_by_budgets
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.rewinding import (
    carried_values,
    restart_of,
    rewound_weights,
    shown_round,
    whole_masks,
)
from lotteryfw.search.round_layers import merge


class TrainingStart(Derivation):
    """The network at its initialisation, under the first mask of a training with mask updates.

    Below a density of 1 that mask is uniformly random within the scope's budgets.
    """

    def __init__(self, context: SearchContext, density: float):
        if not 0 < density <= 1:
            who = describe(context.specs["search"])
            raise UsageError(f"{who}: a training begins at a density in (0, 1], not at {density}")
        self._context = context
        self._density = density
        # The scope decides nothing where the whole network is trained.
        scope = context.specs["scope"].digest if density < 1 else ""
        rules = (context.update_digest, scope)
        # Equal scores of the random mask are ordered by the stream of ties.
        seeds = context.draws_digest if density < 1 else context.seed
        self.digest = digest_of("training start", context.dense_digest, *rules, density, seeds)

    def materialise(self) -> TicketState:
        context = self._context
        masks = whole_masks(context)
        # No draw, so that the whole network is the same for every seed of random masks.
        if self._density == 1:
            return TicketState(masks, context.initial.values, context.pruner.budget_stats(()))
        masks, stats = context.pruner.at_random(masks, self._budgets(), 0)
        values = dict(context.initial.values)
        for name, mask in masks.items():
            values[name] = merge(mask, values[name], None)
        return TicketState(masks, values, stats)

    def kept_by_budgets(self) -> Mapping[str, int]:
        """Raises UsageError where the density leaves no weight in the whole network."""
        context = self._context
        if self._density == 1:
            return dict(context.pruner.sizes)
        kept = context.pruner.budget_stats(self._budgets()).kept
        if not any(kept.values()):
            raise UsageError(
                f"search '{context.cell.search.use}': a density of {self._density} leaves no "
                f"weights of {sum(context.pruner.sizes.values())}"
            )
        return kept

    def _budgets(self) -> tuple[Group, ...]:
        return self._context.pruner.budgets_at(self._density)


class FinalMask(Derivation):
    """The ticket of the mask that a training with mask updates ended with.

    Rewinding and both actions give its values, as if one cut of the whole network had made the
    mask: a mask update may bring back weights that an earlier one removed.
    """

    def __init__(self, context: SearchContext, parent: Ticket, trained: Trained):
        self._context = context
        self._trained = trained
        self.parent: Ticket = parent
        made_from = context.parents_digest(parent, trained, trained)
        self.digest = digest_of("final mask", made_from, context.pruning_digest, context.seed)

    def materialise(self) -> TicketState:
        context, parent, trained = self._context, self.parent, self._trained
        level = parent.level + 1
        mask = dict(trained.masks())
        rewound = rewound_weights(context, trained, trained)
        shown = shown_round(context, level, parent, trained, trained, rewound)
        values = carried_values(context, trained, rewound)
        whole = whole_masks(context)
        values |= shown.filled(mask, whole)
        stats = context.pruner.stats(mask, sum(int(part.sum()) for part in mask.values()))
        restart = restart_of(context, level, parent, trained, trained, rewound, before=whole)
        return TicketState(mask, values, stats, restart=restart)

    def kept_by_budgets(self) -> Mapping[str, int]:
        """Play the budgets of every change.

        What several layers share is divided in proportion to their sizes; only its sum is certain.
        Raises UsageError where a change leaves no weight in the whole network.
        """
        context = self._context
        update, spec = context.cell.mask_update, context.specs["mask_update"]
        assert update is not None
        sizes = context.pruner.sizes
        kept = dict(kept_by_budgets(self.parent))
        for step in range(1, context.clock.total):
            with blame(spec, "due"):
                if not update.due(step, context.clock):
                    continue
            with blame(spec, "budgets"):
                groups = update.budgets(step, context.clock, context.layers, kept)
            for group in groups:
                # The distribution within a group is the update's choice, which is not known before training.
                keep, size = group.keep, sum(sizes[name] for name in group.layers)
                for name in group.layers:
                    kept[name] = keep * sizes[name] // size
                    keep, size = keep - kept[name], size - sizes[name]
            if not any(kept.values()):
                raise UsageError(
                    f"mask_update '{update.use}' leaves no weights of {sum(sizes.values())} at "
                    f"step {step} of cell {context.cell.id}"
                )
        return kept
