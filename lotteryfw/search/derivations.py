"""Derivations say how tickets come about: by a digest, known at once, and a state, computed later.

A digest is made of the derivation's own fields and its parent's digest: equal digests are equal
tickets, since all else is drawn from named streams. A plan is made of digests alone.

`learned_masks` and `controls` have the derivations of their tickets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lotteryfw.api.errors import NothingToPrune, PluginError, StoreError, UsageError
from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import LATEST, Group
from lotteryfw.api.network_state import NetworkState
from lotteryfw.api.tickets import (
    REMOVED_WITH,
    Derivation,
    Restart,
    Ticket,
    TicketSource,
    TicketState,
    Trained,
)
from lotteryfw.search.context import SearchContext, digest_of, sha256_of
from lotteryfw.search.guard import describe
from lotteryfw.search.initial_state import InitialState
from lotteryfw.search.jobs import Spec, tensors_digest
from lotteryfw.search.round_layers import RoundLayers, Tensors, merge
from lotteryfw.search.start_file import StartFile

if TYPE_CHECKING:
    from torch import Tensor


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
        restart = restart_of(context, level, parent, self._trained, self._root, rewound)
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


class Loaded(Derivation):
    """A ticket whose tensors are read from a file, or are at hand, when they are needed."""

    def __init__(self, digest: str, load: Callable[[], TicketState]):
        self.digest = digest
        self._load = load

    def materialise(self) -> TicketState:
        return self._load()

    def kept_by_budgets(self) -> Mapping[str, int]:
        return self._load().stats.kept


# The functions that several derivations share


def _beginning(context: SearchContext, network: InitialState) -> TicketState:
    """Return the state of a ticket that begins a chain with this network."""
    masks = whole_masks(context) | dict(network.masks)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return TicketState(masks, network.values, context.pruner.stats(masks, kept))


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
) -> Restart:
    """Return the rules that give the ticket after a round its values, for any masks."""
    whole = whole_masks(context)
    start, mask, original = parent.values, parent.mask, first_values(context, root)
    restored = rewinding(context, parent, trained, root, rewound)
    trained = _without_ticket_state(trained)

    def values(masks: Tensors) -> Tensors:
        # Another mask may keep what earlier rounds removed, so it is cut from the whole.
        shown = RoundLayers(context, level, start, mask, trained, restored(), original)
        return shown.filled(masks, whole)

    return Restart(restored, values)


def without_state(ticket: Ticket) -> Ticket:
    """Return the ticket without its tensors, and without those of the training it goes back to."""

    def gone() -> TicketState:
        raise StoreError(f"the tensors of the ticket {ticket.origin[:12]} are not kept in memory")

    root = ticket.root
    if root is not None:
        root = replace(root, ticket=without_state(root.ticket))
    return replace(ticket, source=TicketSource(Loaded(ticket.origin, gone)), root=root)


def kept_by_budgets(ticket: Ticket) -> Mapping[str, int]:
    """Return how many weights of each layer a ticket's budgets leave, before any training.

    Within a group any distribution is possible; only its sum is certain. Raises UsageError where
    nothing is left.
    """
    return ticket.source.kept_by_budgets()


def whole_masks(context: SearchContext) -> dict[str, Tensor]:
    """Return, by layer, the mask that keeps everything."""
    import torch

    masks = {}
    for layer in context.layers:
        masks[layer.name] = torch.ones(layer.shape, dtype=torch.bool)
    return masks


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
        trained, root = _without_ticket_state(trained), _without_ticket_state(root)
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


def _without_ticket_state(trained: Trained) -> Trained:
    return replace(trained, ticket=without_state(trained.ticket))


def carried_values(context: SearchContext, trained: Trained, rewound: Tensors) -> dict[str, Tensor]:
    """Return the values of the next round before its layers are filled in.

    Parameters are rewound; buffers are those that the policy names.
    """
    values = dict(rewound)
    if context.point.buffers == "latest":
        latest = trained.weights()
        for name in context.initial.buffers:
            values[name] = latest[name]
    return values


def _require_pruning(context: SearchContext, parent: Ticket, groups: Sequence[Group]) -> None:
    """Raise NothingToPrune where a scope's budgets keep all that a ticket keeps."""
    kept = parent.cut.kept
    for group in groups:
        if group.keep < sum(kept[name] for name in group.layers):
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
