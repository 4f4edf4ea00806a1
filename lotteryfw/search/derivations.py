"""How tickets come about. Each derivation has a digest, known at once, and a state, computed when it is needed.

A digest is made of the derivation's own fields and its parent's digest: equal digests are equal tickets, since all
else is drawn from named streams. A plan is made of digests alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from lotteryfw.api.errors import ContractError, PluginError, StoreError, UsageError
from lotteryfw.api.kinds import Control
from lotteryfw.api.layers import (
    LATEST,
    ControlLayer,
    Layer,
    LayerInfo,
    MaskedLayer,
    MaskedNetwork,
)
from lotteryfw.api.rng import stream
from lotteryfw.api.tickets import (
    Derivation,
    RewindPoint,
    Ticket,
    TicketSource,
    TicketState,
    Trained,
)
from lotteryfw.search.context import SearchContext, digest_of, sha256_of, single_layer_groups
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.initial_state import supermask_values
from lotteryfw.search.jobs import Spec
from lotteryfw.search.top_k import check_tensor

if TYPE_CHECKING:
    from torch import Tensor


class Dense(Derivation):
    """The whole network at its initialisation."""

    def __init__(self, context: SearchContext):
        self._context = context
        self.digest = context.dense_digest

    def materialise(self) -> TicketState:
        import torch

        initial = self._context.initial
        mask = {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in initial.layers}
        return TicketState(mask, initial.values, self._context.pruner.budget_stats(()))

    def kept_by_budgets(self) -> Mapping[str, int]:
        return dict(self._context.pruner.sizes)


class Pruned(Derivation):
    """What the criterion and the scope keep of a trained ticket, at the values that rewinding and both actions give.

    `times` rounds of pruning are made as one, down to the weights that as many rounds would leave.
    """

    def __init__(
        self, context: SearchContext, parent: Ticket, trained: Trained, root: Trained, times: int
    ):
        self._context, self._parent, self._trained, self._root = context, parent, trained, root
        self.parent = parent
        self._times = times
        made_from = context.parents_digest(parent, trained, root)
        self.digest = sha256_of(
            f"next\x1f{made_from}\x1f{context.pruning_digest}\x1f{times}\x1f{context.seed}"
        )

    def materialise(self) -> TicketState:
        context, cell, parent = self._context, self._context.cell, self._parent
        level = parent.level + self._times
        original, start, final = context.initial.values, parent.values, self._trained.weights()
        rewound = rewound_weights(context, self._trained, self._root)
        gradient = self._trained.gradient

        def layer(info: LayerInfo, mask: Tensor, purpose: str) -> Layer:
            name = info.name
            return Layer(
                info, original[name], start[name], final[name], rewound[name], mask, parent.mask[name],
                stream(context.seed, purpose, level, name), lambda: context.fresh_weights(info, level),
                None if gradient is None else gradient[name],
            )  # fmt: skip

        scores = {}
        for info in context.layers:
            shown = layer(info, parent.mask[info.name], "criterion")
            with blame(context.specs["criterion"], "score", shown):
                score = cell.criterion.score(shown)
            scores[info.name] = _checked(context, "criterion", "score", info, score)
        groups = context.pruner.budgets_after(parent.cut.kept, self._times)
        mask, stats = context.pruner.by_score(parent.mask, scores, groups, level)

        values = carried_values(context, self._trained, rewound)
        for info in context.layers:
            name = info.name
            shown = layer(info, mask[name], "mask1")
            with blame(context.specs["mask1"], "kept_values", shown):
                alive = cell.mask1.kept_values(shown)
            alive = _checked(context, "mask1", "kept_values", info, alive)
            shown = layer(info, mask[name], "mask0")
            with blame(context.specs["mask0"], "masked_values", shown):
                dead = cell.mask0.masked_values(shown)
            dead = _checked(context, "mask0", "masked_values", info, dead)
            with blame(context.specs["mask0"], "kept", shown):
                alive = cell.mask0.kept(shown, alive)
            alive = _checked(context, "mask0", "kept", info, alive)
            values[name] = merge(mask[name], alive, dead)
        return TicketState(mask, values, stats)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return _kept_after_pruning(self._context, self._parent, self._times)


class RandomMask(Derivation):
    """A uniformly random mask within the scope's budgets, over the rewound weights."""

    def __init__(
        self, context: SearchContext, parent: Ticket, trained: Trained, root: Trained, times: int
    ):
        self._context, self._parent, self._trained, self._root = context, parent, trained, root
        self.parent = parent
        self._times = times
        made_from = context.parents_digest(parent, trained, root)
        self.digest = digest_of("random", made_from, context.random_digest, times, context.seed)

    def materialise(self) -> TicketState:
        context, parent = self._context, self._parent
        groups = context.pruner.budgets_after(parent.cut.kept, self._times)
        mask, stats = context.pruner.at_random(parent.mask, groups, parent.level + self._times)
        rewound = rewound_weights(context, self._trained, self._root)
        values = carried_values(context, self._trained, rewound)
        for name, part in mask.items():
            values[name] = merge(part, rewound[name], None)
        return TicketState(mask, values, stats)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return _kept_after_pruning(self._context, self._parent, self._times)


class MaskScores(Derivation):
    """The whole network at what the mask-1 action makes of its initialisation, with fresh scores to learn a mask by."""

    def __init__(self, context: SearchContext, density: float | None, length: int | None):
        self._context, self._density = context, density
        self.digest = digest_of(
            "scored", context.dense_digest, context.masking_digest, density, length, context.seed
        )

    def materialise(self) -> TicketState:
        import torch

        context = self._context
        budgets = context.pruner.budgets_at(self._density)
        values = supermask_values(context.cell, context.specs, context.initial, context.seed)
        return TicketState(
            mask={
                layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in context.layers
            },
            values=values,
            stats=context.pruner.budget_stats(budgets),
            scores={layer.name: context.initial_scores(layer) for layer in context.layers},
            budgets=budgets,
        )

    def kept_by_budgets(self) -> Mapping[str, int]:
        """Also asks the parametrization for a mask once, which raises where it needs a density and has none."""
        import torch

        context = self._context
        budgets = context.pruner.budgets_at(self._density)
        edges = {
            layer.name: MaskedLayer(
                layer,
                context.initial.values[layer.name],
                torch.zeros(layer.shape),
                torch.ones(()) > 0,
            )
            for layer in context.layers
        }
        assert context.cell.parametrization is not None
        with blame(context.specs["parametrization"], "masks"):
            context.cell.parametrization.masks(MaskedNetwork(edges, budgets, context.draw))
        return dict(context.pruner.sizes)


class NextCycle(Derivation):
    """The next cycle of learning a mask, at another density. `hard` removes what the last one left out for good.

    The rewind policy says where scores and schedule go on: at LATEST scores stay as learned, at step k they return to
    that step of the first cycle, whose training `root` is.
    """

    def __init__(
        self, context: SearchContext, parent: Ticket, learned: Trained, root: Trained,
        density: float | None, hard: bool, length: int | None,
    ):  # fmt: skip
        self._context, self._parent, self._learned, self._root = context, parent, learned, root
        self.parent = parent
        self._density, self._hard = density, hard
        made_from = context.parents_digest(parent, learned, root)
        self._point = next_cycle_point(context, root, length)
        rules = (context.masking_digest, context.rewind_digest)
        self.digest = digest_of("rescored", made_from, *rules, density, hard, length, context.seed)

    def materialise(self) -> TicketState:
        context, parent, rewind = self._context, self._parent, self._point.weights
        budgets = context.pruner.budgets_at(self._density)
        mask = (
            context.masks_of(_learned_network(context, parent, self._learned))
            if self._hard
            else parent.mask
        )
        weights, scores = self._learned.weights(), self._learned.scores()
        if rewind == 0:
            first = self._root.ticket
            weights, scores = first.values, first.scores or {}
        elif rewind != LATEST:
            network, _ = self._root.outcome.state(rewind)
            weights, scores = network.values, network.scores
        return TicketState(mask, weights, context.pruner.budget_stats(budgets), scores, budgets)

    def kept_by_budgets(self) -> Mapping[str, int]:
        self._context.pruner.budgets_at(self._density)
        return dict(self._context.pruner.sizes)


class Extracted(Derivation):
    """The ticket that a learned mask makes of the network it was learned over, at the weights that the network computed
    with under that mask. Its stats have the expected number of edges beside those of the mask."""

    def __init__(self, context: SearchContext, parent: Ticket, learned: Trained):
        self._context, self._parent, self._learned = context, parent, learned
        self.parent = parent
        made_from = context.parents_digest(parent, learned, learned)
        self.digest = digest_of("found", made_from, context.masking_digest)

    def materialise(self) -> TicketState:
        context = self._context
        parametrization, spec = context.cell.parametrization, context.specs["parametrization"]
        assert parametrization is not None
        net = _learned_network(context, self._parent, self._learned)
        mask = context.masks_of(net)
        values = dict(self._learned.weights())
        expected = 0.0
        for name, part in mask.items():
            edges = net.edges[name]
            with blame(spec, "expected", edges):
                expected += parametrization.expected(edges, part)
            with blame(spec, "weight", edges):
                weight = parametrization.weight(edges, part)
            values[name] = merge(part, weight, None)
        return TicketState(mask, values, context.pruner.stats(mask, expected))

    def kept_by_budgets(self) -> Mapping[str, int]:
        return dict(self._context.pruner.sizes)


class Controlled(Derivation):
    """A control of a recorded ticket: a network of the same density in every layer."""

    def __init__(
        self,
        context: SearchContext,
        control: Control,
        spec: Spec,
        ticket: Ticket,
        trained: Trained,
    ):
        self._context = context
        self._control = control
        self._spec = spec
        self._ticket = ticket
        self._trained = trained
        self.parent = ticket
        made_from = context.parents_digest(ticket, trained, ticket.root or trained)
        rules = (context.initialiser_digest, context.rewind_digest)
        self.digest = digest_of("control", spec.digest, made_from, *rules, context.seed)

    def materialise(self) -> TicketState:
        context, ticket, control = self._context, self._ticket, self._control
        mask = {}
        values = dict(context.initial.values if control.restarts else ticket.values)
        for info in context.layers:
            name = info.name

            layer = self._layer(info)
            with blame(self._spec, "mask", layer):
                mask[name] = self._checked_mask(layer, control.mask(layer))

            layer = self._layer(info)
            with blame(self._spec, "kept_values", layer):
                kept = control.kept_values(layer)
            kept = self._checked_values(info, "kept_values", kept)

            layer = self._layer(info)
            with blame(self._spec, "masked_values", layer):
                masked = control.masked_values(layer)
            if masked is not None:
                masked = self._checked_values(info, "masked_values", masked)

            values[name] = merge(mask[name], kept, masked)
        return TicketState(mask, values, ticket.cut)

    def kept_by_budgets(self) -> Mapping[str, int]:
        return kept_by_budgets(self._ticket)

    @cached_property
    def _rewound(self) -> Mapping[str, Tensor]:
        if self._trained.ticket.learns_mask:
            # The mask was learned over these weights, so this is where the ticket starts.
            return self._trained.weights()
        root = self._ticket.root or self._trained
        return rewound_weights(self._context, self._trained, root)

    @cached_property
    def _random_masks(self) -> Mapping[str, Tensor]:
        import torch

        ticket = self._ticket
        whole = {name: torch.ones_like(part) for name, part in ticket.mask.items()}
        groups = single_layer_groups(ticket.cut.kept)
        return self._context.pruner.at_random(whole, groups, ticket.level)[0]

    def _layer(self, info: LayerInfo) -> ControlLayer:
        """The layer as the control sees it, with its random stream at the start."""
        context, ticket, name = self._context, self._ticket, info.name
        return ControlLayer(
            info,
            original=context.initial.values[name],
            start=ticket.values[name],
            rewound=self._rewound[name],
            mask=ticket.mask[name],
            rng=stream(context.seed, "control", self._control.use, ticket.level, name),
            _random_mask=lambda: self._random_masks[name],
            _resample=lambda: context.fresh_weights(info, ticket.level),
        )

    def _checked_mask(self, layer: ControlLayer, mask: Tensor) -> Tensor:
        """The mask, if it keeps as many weights as the ticket's. Raises ContractError."""
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

    def _checked_values(self, info: LayerInfo, method: str, values: object) -> Tensor:
        what = f"{describe(self._spec)}: {method}() on layer {info.name}"
        return check_tensor(values, info.shape, what)


class Loaded(Derivation):
    """A ticket whose tensors are read from a file, or are at hand, when they are needed."""

    def __init__(self, digest: str, load: Callable[[], TicketState]):
        self.digest = digest
        self._load = load

    def materialise(self) -> TicketState:
        return self._load()

    def kept_by_budgets(self) -> Mapping[str, int]:
        return self._load().stats.kept


# What several derivations share


def without_state(ticket: Ticket) -> Ticket:
    """The ticket without its tensors, and without those of the training that it goes back to."""

    def gone() -> TicketState:
        raise StoreError(f"the tensors of the ticket {ticket.origin[:12]} are not kept in memory")

    root = ticket.root
    if root is not None:
        root = replace(root, ticket=without_state(root.ticket))
    return replace(ticket, source=TicketSource(Loaded(ticket.origin, gone)), root=root)


def kept_by_budgets(ticket: Ticket) -> Mapping[str, int]:
    """Return how many weights of each layer a ticket's budgets leave, before any training.

    Within a group any distribution is possible; only its sum is certain. Raises UsageError where nothing is left.
    """
    return ticket.source.kept_by_budgets()


def rewound_weights(
    context: SearchContext, trained: Trained, root: Trained
) -> Mapping[str, Tensor]:
    """Every parameter and buffer where the rewind policy points: after `trained`, or on the training `root`."""
    step = context.point.weights
    if step == LATEST:
        return trained.weights()
    if step == 0:
        return context.initial.values
    dense = root.ticket
    if not dense.is_dense or dense.point.steps == 0:
        raise PluginError(
            f"{describe(context.specs['search'])} prunes a ticket that does not come from a training of the dense "
            f"network, so there is no step {step} to rewind to: train lab.dense() first"
        )
    return root.outcome.state(step)[0].values


def carried_values(
    context: SearchContext, trained: Trained, rewound: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The values of the next round before its layers are filled in: parameters rewound, buffers as the policy says."""
    if context.point.buffers == "rewound":
        return dict(rewound)
    latest = trained.weights()
    return {
        name: latest[name] if name in context.initial.buffers else value
        for name, value in rewound.items()
    }


def next_cycle_point(context: SearchContext, root: Trained, length: int | None) -> RewindPoint:
    """Where a cycle of this length goes on: a step to return to is one of the first cycle."""
    point = context.point_at(root.ticket.length)
    return context.point_at(length) if point.weights == LATEST else point


def merge(mask: Tensor, alive: Tensor, dead: Tensor | None) -> Tensor:
    """float32 [s]: `alive` where `mask`, else `dead` (None: zero)."""
    import torch

    return torch.where(mask, alive.float(), torch.zeros(()) if dead is None else dead.float())


def _checked(
    context: SearchContext, slot: str, method: str, layer: LayerInfo, value: object
) -> Tensor:
    what = f"{describe(context.specs[slot])}: {method}() on layer {layer.name}"
    return check_tensor(value, layer.shape, what)


def _learned_network(context: SearchContext, ticket: Ticket, learned: Trained) -> MaskedNetwork:
    """The network of a ticket whose mask was learned, at its final scores."""
    weights, scores = learned.weights(), learned.scores()
    edges = {
        layer.name: MaskedLayer(
            layer, weights[layer.name], scores[layer.name], ticket.mask[layer.name]
        )
        for layer in context.layers
    }
    return MaskedNetwork(edges, ticket.budgets, context.draw)


def _kept_after_pruning(context: SearchContext, parent: Ticket, times: int) -> dict[str, int]:
    kept = dict(kept_by_budgets(parent))
    for group in context.pruner.budgets_after(kept, times):
        remaining = group.keep
        for name in group.layers:
            kept[name] = min(kept[name], remaining)
            remaining -= kept[name]
    if not any(kept.values()):
        scope = context.cell.scope
        raise UsageError(
            f"scope '{scope.use}' {scope.options()} leaves no weights at level {parent.level + times} of cell "
            f"{context.cell.id}: lower the rate, or search fewer levels"
        )
    return kept
