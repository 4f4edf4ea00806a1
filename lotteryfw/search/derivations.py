"""Derivations say how tickets come about: by a digest, known at once, and a state, computed later.

A digest is made of the derivation's own fields and its parent's digest: equal digests are equal
tickets, since all else is drawn from named streams. A plan is made of digests alone.

`learned_masks` and `controls` have the derivations of their tickets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lotteryfw.api.errors import NothingToPrune, UsageError
from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import Group
from lotteryfw.api.tickets import (
    Derivation,
    Ticket,
    TicketState,
    Trained,
)
from lotteryfw.search.context import SearchContext, digest_of, sha256_of
from lotteryfw.search.initial_state import InitialState
from lotteryfw.search.jobs import Spec, tensors_digest
from lotteryfw.search.rewinding import (
    carried_values,
    restart_of,
    rewinding,
    rewound_weights,
    shown_round,
    whole_masks,
    zeros_where_masked,
)
from lotteryfw.search.round_layers import Tensors
from lotteryfw.search.start_file import StartFile

if TYPE_CHECKING:
    pass


class Dense(Derivation):
    """The network that a search begins with: the whole one at its initialisation.

    Where the cell starts from a file, it has the file's values and masks.
    """

    def __init__(self, context: SearchContext):
        self._context = context
        self.digest = context.dense_digest

    def materialise(self) -> TicketState:
        return _beginning(self._context, self._context.initial)

    def kept_by_budgets(self) -> Mapping[str, int]:
        # Looking at the network also holds a start file against it, before anything is trained.
        return self.materialise().stats.kept


class LoadedFile(Derivation):
    """A network in a file, which a search names: a ticket, or a plain state dict.

    Buffers that the file lacks are those of the cell's network.
    """

    def __init__(self, context: SearchContext, file: StartFile):
        self._context = context
        self._file = file
        self.digest = digest_of("loaded", context.dense_digest, file.digest)

    def materialise(self) -> TicketState:
        # Read when it is needed: a plan has no use for the tensors.
        return _beginning(self._context, self._file.applied(self._context.initial))

    def kept_by_budgets(self) -> Mapping[str, int]:
        # This also holds the file against the network, before anything is trained.
        return self.materialise().stats.kept


class Pruned(Derivation):
    """A pruning by criterion and scope, at the values that rewinding and both actions give.

    `times` rounds of pruning are made as one, down to the weights that as many rounds would leave;
    with a `density` the budgets are the scope's for that density. `scores` by layer, if there are
    any, take the place of the criterion's, and so does another `criterion`.
    """

    def __init__(
        self,
        context: SearchContext,
        parent: Ticket,
        trained: Trained,
        root: Trained,
        times: int,
        density: float | None = None,
        scores: Tensors | None = None,
        criterion: tuple[MaskCriterion, Spec] | None = None,
    ):
        self._context = context
        self._density = density
        self._scores = scores
        # A search may prune by a criterion of its own beside the recipe's.
        self._criterion = criterion or (context.cell.criterion, context.specs["criterion"])
        self._trained = trained
        self._root = root
        self._times = times
        self.parent: Ticket = parent
        made_from = context.parents_digest(parent, trained, root)
        # A plan makes one for each level of each cell, and joining the parts by hand takes half
        # the time of `digest_of`.
        source = (
            f"next\x1f{made_from}\x1f{context.pruning_digest}\x1f{times}\x1f{context.draws_digest}"
        )
        if density is not None or scores is not None:
            other_scores = None if scores is None else tensors_digest(scores)
            source = f"{source}\x1f{density}\x1f{other_scores}"
        if criterion is not None:
            source = f"{source}\x1fby\x1f{criterion[1].digest}"
        self.digest = sha256_of(source)

    def materialise(self) -> TicketState:
        context, parent = self._context, self.parent
        level = parent.level + self._times
        rewound = rewound_weights(context, self._trained, self._root)
        shown = shown_round(context, level, parent, self._trained, self._root, rewound)
        groups = self._budgets(parent.cut.kept)
        # A round that is one of several made at once, or goes to a density, may remove nothing.
        if self._times == 1 and self._density is None:
            _require_pruning(context, parent, groups)
        scores = self._scores
        if scores is None:
            scores = shown.scores(*self._criterion)
        spec = self._criterion[1]
        mask, stats = context.pruner.by_score(parent.mask, scores, groups, level, spec)

        values = carried_values(context, self._trained, rewound)
        values |= shown.filled(mask, parent.mask)
        restart = restart_of(
            context, level, parent, self._trained, self._root, rewound, before=parent.mask
        )
        return TicketState(mask, values, stats, restart=restart)

    def _budgets(self, kept: Mapping[str, int]) -> list[Group]:
        pruner = self._context.pruner
        if self._density is None:
            return pruner.budgets_after(kept, self._times)
        return pruner.budgets_down_to(kept, self._density)

    def kept_by_budgets(self) -> Mapping[str, int]:
        kept = kept_by_budgets(self.parent)
        return _kept_within(self._context, self.parent, self._times, kept, self._budgets(kept))


class RandomMask(Derivation):
    """A uniformly random mask within the scope's budgets, over the rewound weights."""

    def __init__(
        self, context: SearchContext, parent: Ticket, trained: Trained, root: Trained, times: int
    ):
        self._context = context
        self._trained = trained
        self._root = root
        self._times = times
        self.parent: Ticket = parent
        made_from = context.parents_digest(parent, trained, root)
        self.digest = digest_of(
            "random", made_from, context.random_digest, times, context.draws_digest
        )

    def materialise(self) -> TicketState:
        context, parent = self._context, self.parent
        # Random among what is kept, so that a chain of random tickets is nested, as a search's are.
        groups = context.pruner.budgets_after(parent.cut.kept, self._times)
        mask, stats = context.pruner.at_random(parent.mask, groups, parent.level + self._times)
        rewound = rewound_weights(context, self._trained, self._root)

        restored = rewinding(context, parent, self._trained, self._root, rewound)
        restart = zeros_where_masked(restored)
        values = carried_values(context, self._trained, rewound) | dict(restart.values(mask))
        return TicketState(mask, values, stats, restart=restart)

    def kept_by_budgets(self) -> Mapping[str, int]:
        kept = kept_by_budgets(self.parent)
        groups = self._context.pruner.budgets_after(kept, self._times)
        return _kept_within(self._context, self.parent, self._times, kept, groups)


# The functions that several derivations share


def _beginning(context: SearchContext, network: InitialState) -> TicketState:
    """Return the state of a ticket that begins a chain with this network."""
    masks = whole_masks(context) | dict(network.masks)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return TicketState(masks, network.values, context.pruner.stats(masks, kept))


def kept_by_budgets(ticket: Ticket) -> Mapping[str, int]:
    """Return how many weights of each layer a ticket's budgets leave, before any training.

    Within a group any distribution is possible; only its sum is certain. Raises UsageError where
    nothing is left.
    """
    return ticket.source.kept_by_budgets()


def _require_pruning(context: SearchContext, parent: Ticket, groups: Sequence[Group]) -> None:
    """Raise NothingToPrune where the budgets are exhausted."""
    kept = parent.cut.kept
    if not context.pruner.is_exhausted(groups, kept):
        return
    scope = context.cell.scope
    raise NothingToPrune(
        f"scope '{scope.use}' {scope.options()} removes none of the {sum(kept.values()):,} weights "
        f"left at level {parent.level}: the search ended there"
    )


def _kept_within(
    context: SearchContext,
    parent: Ticket,
    times: int,
    kept_before: Mapping[str, int],
    groups: Sequence[Group],
) -> dict[str, int]:
    # Any distribution within a group is possible, so the first layers are taken to keep the most.
    kept = dict(kept_before)
    for group in groups:
        remaining = group.keep
        for name in group.layers:
            kept[name] = min(kept[name], remaining)
            remaining -= kept[name]
    if not any(kept.values()):
        scope = context.cell.scope
        raise UsageError(
            f"scope '{scope.use}' {scope.options()} leaves no weights at level "
            f"{parent.level + times} of cell {context.cell.id}: lower the rate, search fewer "
            "levels, or ask for a higher density"
        )
    return kept
