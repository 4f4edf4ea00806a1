"""The tickets of one cell: every way in which a search can have one made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.api.component import Component
from lotteryfw.api.errors import ContractError, UsageError
from lotteryfw.api.kinds import MaskCriterion
from lotteryfw.api.layers import LATEST
from lotteryfw.api.tickets import Derivation, RewindPoint, Ticket, Trained
from lotteryfw.search.context import SearchContext
from lotteryfw.search.derivations import Dense, LoadedFile, Pruned, RandomMask
from lotteryfw.search.given_values import GivenTicket, Interpolated
from lotteryfw.search.guard import describe
from lotteryfw.search.learned_masks import (
    Extracted,
    MaskScores,
    NextCycle,
    RewoundMask,
    next_cycle_point,
)
from lotteryfw.search.mask_updates import FinalMask, TrainingStart
from lotteryfw.search.start_file import StartFile, file_digest
from lotteryfw.search.tensor_checks import check_layers, check_masks, check_values
from lotteryfw.search.top_k import check_tensor
from lotteryfw.search.untrained import Untrained

if TYPE_CHECKING:
    from torch import Tensor

_WHOLE_SCHEDULE = RewindPoint(weights=0, schedule=0)


class TicketFactory:
    """Makes the tickets of one cell. `lotteryfw.Lab` documents its methods.

    A method checks what it was given and returns a ticket at once: the ticket holds a derivation,
    and no tensor is computed before somebody looks at it.
    """

    def __init__(self, context: SearchContext):
        self._context = context

    def dense(self) -> Ticket:
        return Ticket.derived(Dense(self._context), 0, _WHOLE_SCHEDULE, is_dense=True)

    def prune(
        self,
        ticket: Ticket,
        trained: Trained,
        times: int = 1,
        *,
        density: float | None = None,
        scores: Mapping[str, Tensor] | None = None,
        criterion: Component | None = None,
    ) -> Ticket:
        if density is not None and not 0 < density <= 1:
            raise UsageError(
                f"{self._search}: lab.prune(density={density!r}): a density is above 0, and 1 at "
                "most"
            )
        if scores is not None:
            scores = self._checked_scores(f"{self._search}: lab.prune(scores=…)", scores)
        if scores is not None and criterion is not None:
            raise UsageError(
                f"{self._search}: lab.prune has either `scores` or a `criterion`, not both"
            )
        other = None
        if criterion is not None:
            if not isinstance(criterion, MaskCriterion):
                raise ContractError(
                    f"{self._search}: lab.prune(criterion=…) is a criterion, such as an option of "
                    f"the type MaskCriterion, and not {criterion!r}"
                )
            other = (criterion, self._context.describe(criterion, self._context.clock))
        root = self._root(ticket, trained)
        derivation = Pruned(self._context, ticket, trained, root, times, density, scores, other)
        return self._next_round(derivation, ticket, trained, root, times)

    def prune_randomly(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        root = self._root(ticket, trained)
        derivation = RandomMask(self._context, ticket, trained, root, times)
        return self._next_round(derivation, ticket, trained, root, times)

    def as_is(self, ticket: Ticket) -> Ticket:
        # A training of no steps is evaluated, and has a key of its own, like any other.
        return replace(ticket, point=replace(ticket.point, steps=0))

    def learn_mask(self, density: float | None = None, length: int | None = None) -> Ticket:
        if self._context.cell.parametrization is None:
            raise ContractError(
                f"{self._search} learns masks (lab.learn_mask) and has no parametrization"
            )
        self._check_density(density)
        derivation = MaskScores(self._context, density, length)
        return Ticket.derived(derivation, 0, _WHOLE_SCHEDULE, length=length, learns_mask=True)

    def continue_mask(
        self,
        ticket: Ticket,
        learned: Trained,
        density: float | None,
        *,
        hard: bool,
        length: int | None = None,
    ) -> Ticket:
        self._check_density(density)
        length = ticket.length if length is None else length
        root = ticket.root or learned
        derivation = NextCycle(self._context, ticket, learned, root, density, hard, length)
        # A step to return to is one of the first cycle, whatever the length of this one.
        point = next_cycle_point(self._context, root, length)
        return Ticket.derived(
            derivation, ticket.level + 1, point, root=root, length=length, learns_mask=True
        )

    def update_mask(self, density: float = 1.0) -> Ticket:
        if self._context.cell.mask_update is None:
            raise ContractError(
                f"{self._search} has masks updated in training (lab.update_mask), and its recipe has no "
                'mask update: name "mask_update" in its `required` or `optional`'
            )
        derivation = TrainingStart(self._context, density)
        return Ticket.derived(derivation, 0, _WHOLE_SCHEDULE, updates_mask=True)

    def ticket(
        self,
        base: Ticket,
        *,
        values: Mapping[str, Tensor] | None = None,
        mask: Mapping[str, Tensor] | None = None,
        frozen: Mapping[str, Tensor] | None = None,
        scores: Mapping[str, Tensor] | None = None,
        point: RewindPoint | None = None,
        label: str = "",
    ) -> Ticket:
        shown = f"label={label!r}" if label else "…"
        who, network = f"{self._search}: lab.ticket({shown})", self._context.initial
        shapes = {layer.name: layer.shape for layer in network.layers}
        if values is not None:
            check_values(f"{who}: values", values, network)
        if mask is not None:
            check_masks(f"{who}: mask", mask, shapes)
        if frozen is not None:
            check_layers(f"{who}: frozen", frozen, shapes)
        if scores is not None:
            if not base.learns_mask:
                raise ContractError(
                    f"{who}: scores are what a mask is learned from, and `base` learns none: "
                    "begin with lab.learn_mask()"
                )
            score_shapes = {
                layer.name: self._context.score_shape(layer) for layer in network.layers
            }
            check_layers(f"{who}: scores", scores, score_shapes)
        if point is None:
            point = replace(base.point, optimizer="fresh")
        else:
            self._check_point(who, base, point)

        derivation = GivenTicket(base, values, mask, scores, frozen)
        if mask is not None and not any(derivation.kept_by_budgets().values()):
            raise ContractError(f"{who}: the mask keeps no weight of the whole network")
        # Another mask is another round, with a data order and draws of its own.
        level = base.level if mask is None else base.level + 1
        ticket = Ticket.derived(derivation, level, point)
        return replace(
            ticket,
            root=base.root,
            parent=base.parent if mask is None else base.level,
            length=base.length,
            is_dense=base.is_dense and mask is None,
            learns_mask=base.learns_mask,
            updates_mask=base.updates_mask,
        )

    def load(self, path: Path | str) -> Ticket:
        path = Path(path).absolute()
        who = f"{self._search}: lab.load"
        try:
            digest = file_digest(path)
        except OSError as error:
            raise UsageError(f"{who}: cannot read {path}: {error.strerror}") from None
        file = StartFile(path, digest, self._context.cell.read_file, who)
        derivation = LoadedFile(self._context, file)
        return Ticket.derived(derivation, 0, _WHOLE_SCHEDULE, is_dense=True)

    def at(self, ticket: Ticket, values: Mapping[str, Tensor]) -> Ticket:
        return self.ticket(ticket, values=values)

    def interpolate(self, first: Trained, second: Trained, alpha: float) -> Ticket:
        if not 0 <= alpha <= 1:
            raise UsageError(f"lab.interpolate: alpha is a number from 0 to 1, not {alpha!r}")
        derivation = Interpolated(self._context, first, second, alpha)
        ticket = first.ticket
        # An optimizer's state belongs to the values of one training, and these are of two.
        point = replace(ticket.point, optimizer="fresh")
        return Ticket.derived(derivation, ticket.level, point, root=ticket.root)

    def again(self, ticket: Ticket, order: int) -> Ticket:
        if type(order) is not int or order < 0:
            raise UsageError(f"lab.again: order is an integer of at least 0, not {order!r}")
        return replace(ticket, order=order)

    def is_training_of(self, ticket: Ticket, trained: Trained) -> bool:
        return self._context.training_digest(trained) == self._context.job_digest(ticket)

    def extract_ticket(self, ticket: Ticket, trained: Trained, *, rewound: bool = False) -> Ticket:
        level, point = ticket.level + 1, self._context.point
        if rewound and ticket.learns_mask:
            learned = RewoundMask(self._context, ticket, trained)
            return Ticket.derived(learned, level, point, root=trained)
        if ticket.updates_mask:
            final = FinalMask(self._context, ticket, trained)
            return Ticket.derived(final, level, point, root=trained)
        return Ticket.derived(Extracted(self._context, ticket, trained), level, _WHOLE_SCHEDULE)

    def _check_point(self, who: str, base: Ticket, point: RewindPoint) -> None:
        """Raise ContractError for a point that no training of the ticket can start from."""
        total = self._context.clock.total if base.length is None else base.length
        if not 0 <= point.schedule <= total:
            raise ContractError(
                f"{who}: point.schedule is a step from 0 to {total}, not {point.schedule}"
            )
        if point.steps is not None and point.steps < 0:
            raise ContractError(f"{who}: point.steps is at least 0, not {point.steps}")
        if point.optimizer == "saved":
            raise ContractError(
                f"{who}: the optimizer's state was saved for other values; point.optimizer is "
                '"fresh"'
            )

    @property
    def _search(self) -> str:
        """The search and its distribution, as messages name them."""
        return describe(self._context.specs["search"])

    def _root(self, ticket: Ticket, trained: Trained) -> Trained:
        """Return the training that a pruned ticket goes back to.

        Raises UsageError where there is none, and the rewind policy points into one.
        """
        root = ticket.root or trained
        # Only a chain that begins with lab.probe has no training to go back into.
        if not isinstance(root.outcome, Untrained):
            return root
        objective = self._context.cell.objective
        if objective.needs_teacher:
            raise UsageError(
                f"objective '{objective.use}' compares with the cell's dense training, and the "
                f"search '{self._context.cell.search.use}' prunes before any: use another "
                "objective, or a search that prunes what it trained"
            )
        point = self._context.point
        step = point.schedule if point.weights == LATEST else max(point.weights, point.schedule)
        if step != 0:
            rewind, search = self._context.cell.rewind, self._context.cell.search
            raise UsageError(
                f"rewind '{rewind.use}' goes back to step {step} of a training, and the search "
                f"'{search.use}' prunes before any: use \"to_init\""
            )
        return root

    def _next_round(
        self, derivation: Derivation, ticket: Ticket, trained: Trained, root: Trained, times: int
    ) -> Ticket:
        level, point = ticket.level + times, self._context.point
        parent = ticket.level if _is_own_training(ticket, trained) else None
        return Ticket.derived(derivation, level, point, root=root, parent=parent)

    def _checked_scores(self, what: str, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scores by layer. Raises ContractError for a missing layer, shape or dtype."""
        unknown = scores.keys() - {layer.name for layer in self._context.layers}
        if unknown:
            raise ContractError(f"{what} names no layer of the network: {', '.join(unknown)}")
        checked = {}
        for layer in self._context.layers:
            if layer.name not in scores:
                raise ContractError(f"{what} lacks layer {layer.name}")
            where = f"{what} for layer {layer.name}"
            checked[layer.name] = check_tensor(scores[layer.name], layer.shape, where).cpu()
        return checked

    def _check_density(self, density: float | None) -> None:
        """Raise UsageError if the parametrization lacks a density, or cannot use one."""
        parametrization, search = self._context.cell.parametrization, self._context.cell.search
        if parametrization is None:
            return
        if parametrization.needs_density is True and density is None:
            raise UsageError(
                f"parametrization: '{parametrization.use}' needs a density, and the search "
                f"'{search.use}' asks for none"
            )
        if parametrization.needs_density is False and density is not None:
            raise UsageError(
                f"parametrization: '{parametrization.use}' cannot keep to a density, and the "
                f"search '{search.use}' asks for one"
            )


def _is_own_training(ticket: Ticket, trained: Trained) -> bool:
    """Return whether a training, as a search has it, is that of a ticket from first step to last.

    Unlike `TicketFactory.is_training_of` it hashes nothing, as a plan prunes very many tickets.
    """
    start = trained.ticket
    # What lab.probe returns was not trained, and what lab.stop_when returns perhaps not to its end.
    if isinstance(trained.outcome, Untrained) or start.keeps_end:
        return False
    if start is ticket:
        return True
    same_start = start.origin == ticket.origin and start.point == ticket.point
    return same_start and start.order == ticket.order
