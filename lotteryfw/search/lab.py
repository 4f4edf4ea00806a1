"""The lab of one cell: makes the tickets and jobs of its search, and keeps its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lotteryfw.api.errors import ContractError, TrainingDiverged, UsageError
from lotteryfw.api.kinds import Control, MaskCriterion, Metric
from lotteryfw.api.lab import Search
from lotteryfw.api.layers import LATEST, LayerInfo, Need
from lotteryfw.api.metrics import Evaluation
from lotteryfw.api.tickets import Derivation, RewindPoint, Ticket, Trained
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe, SearchContext, digest_of
from lotteryfw.search.controls import control_of
from lotteryfw.search.derivations import Dense, Pruned, RandomMask
from lotteryfw.search.evaluations import EvaluationFactory
from lotteryfw.search.given_values import AtValues, Interpolated
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Job, Spec
from lotteryfw.search.learned_masks import (
    Extracted,
    MaskScores,
    NextCycle,
    RewoundMask,
    next_cycle_point,
)
from lotteryfw.search.mask_updates import FinalMask, TrainingStart
from lotteryfw.search.requests import ChooseKernel, JobFactory, JobRequest, no_kernel
from lotteryfw.search.top_k import check_tensor
from lotteryfw.search.untrained import Untrained

if TYPE_CHECKING:
    from torch import Tensor

if TYPE_CHECKING:
    from torch import Tensor

_WHOLE_SCHEDULE = RewindPoint(weights=0, schedule=0)


class Record(NamedTuple):
    """A level that a search recorded."""

    level: int
    ticket: Ticket
    trained: Trained
    variant: str = "ticket"


class CellLab:
    """The lab of one cell: `lotteryfw.Lab` for its search, and more for the runner.

    `snapshots` names, by the origin of a training, further steps whose state other cells will want.
    `engine` is the state of the code that chooses kernels (see `SearchContext`).
    """

    def __init__(
        self,
        cell: Cell,
        describe_component: Describe,
        data_folder: Path,
        device: str,
        choose_kernel: ChooseKernel = no_kernel,
        snapshots: Mapping[str, frozenset[int]] | None = None,
        engine: str = "",
    ):
        self.cell = cell
        self.clock = cell.clock
        self.seed = cell.seed
        self.context = SearchContext(cell, describe_component, data_folder, device, engine)
        self.records: list[Record] = []
        self._describe_component = describe_component
        self._jobs = JobFactory(self.context, choose_kernel, snapshots)
        self._evaluations = EvaluationFactory(self.context, describe_component)

    # The methods of `lotteryfw.Lab`, which documents them

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        return self.context.layers

    def dense(self) -> Ticket:
        return Ticket.derived(Dense(self.context), 0, _WHOLE_SCHEDULE, is_dense=True)

    def prune(
        self,
        ticket: Ticket,
        trained: Trained,
        times: int = 1,
        *,
        density: float | None = None,
        scores: Mapping[str, Tensor] | None = None,
        criterion: MaskCriterion | None = None,
    ) -> Ticket:
        who = describe(self.context.specs["search"])
        if density is not None and not 0 < density <= 1:
            raise UsageError(
                f"{who}: lab.prune(density={density!r}): a density is above 0, and 1 at most"
            )
        if scores is not None:
            scores = self._checked_scores(f"{who}: lab.prune(scores=…)", scores)
        if scores is not None and criterion is not None:
            raise UsageError(f"{who}: lab.prune has either `scores` or a `criterion`, not both")
        other = None
        if criterion is not None:
            other = (criterion, self._describe_component(criterion, self.clock))
        root = self._root(ticket, trained)
        derivation = Pruned(self.context, ticket, trained, root, times, density, scores, other)
        return self._next_round(derivation, ticket, root, times)

    def prune_randomly(self, ticket: Ticket, trained: Trained, times: int = 1) -> Ticket:
        root = self._root(ticket, trained)
        derivation = RandomMask(self.context, ticket, trained, root, times)
        return self._next_round(derivation, ticket, root, times)

    def as_is(self, ticket: Ticket) -> Ticket:
        return replace(ticket, point=replace(ticket.point, steps=0))

    def learn_mask(self, density: float | None = None, length: int | None = None) -> Ticket:
        if self.cell.parametrization is None:
            who = describe(self.context.specs["search"])
            raise ContractError(f"{who} learns masks (lab.learn_mask) and has no parametrization")
        self._check_density(density)
        derivation = MaskScores(self.context, density, length)
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
        derivation = NextCycle(self.context, ticket, learned, root, density, hard, length)
        point = next_cycle_point(self.context, root, length)
        return Ticket.derived(
            derivation, ticket.level + 1, point, root=root, length=length, learns_mask=True
        )

    def update_mask(self, density: float = 1.0) -> Ticket:
        if self.cell.mask_update is None:
            who = describe(self.context.specs["search"])
            raise ContractError(
                f"{who} has masks updated in training (lab.update_mask), and its recipe has no "
                'mask update: name "mask_update" in its `required` or `optional`'
            )
        derivation = TrainingStart(self.context, density)
        return Ticket.derived(derivation, 0, _WHOLE_SCHEDULE, updates_mask=True)

    def at(self, ticket: Ticket, values: Mapping[str, Tensor]) -> Ticket:
        derivation = AtValues(self.context, ticket, values)
        point, root = replace(ticket.point, optimizer="fresh"), ticket.root
        return Ticket.derived(derivation, ticket.level, point, root=root, parent=ticket.parent)

    def interpolate(self, first: Trained, second: Trained, alpha: float) -> Ticket:
        if not 0 <= alpha <= 1:
            raise UsageError(f"lab.interpolate: alpha is a number from 0 to 1, not {alpha!r}")
        derivation = Interpolated(self.context, first, second, alpha)
        ticket = first.ticket
        point = replace(ticket.point, optimizer="fresh")
        return Ticket.derived(derivation, ticket.level, point, root=ticket.root)

    def again(self, ticket: Ticket, order: int) -> Ticket:
        if type(order) is not int or order < 0:
            raise UsageError(f"lab.again: order is an integer of at least 0, not {order!r}")
        return replace(ticket, order=order)

    def extract_ticket(self, ticket: Ticket, trained: Trained, *, rewound: bool = False) -> Ticket:
        level = ticket.level + 1
        if rewound and ticket.learns_mask:
            mask = RewoundMask(self.context, ticket, trained)
            point = self.context.point
            return Ticket.derived(mask, level, point, root=trained, parent=ticket.level)
        if ticket.updates_mask:
            derivation = FinalMask(self.context, ticket, trained)
            point = self.context.point
            return Ticket.derived(derivation, level, point, root=trained, parent=ticket.level)
        return Ticket.derived(Extracted(self.context, ticket, trained), level, _WHOLE_SCHEDULE)

    def train(
        self, ticket: Ticket, variant: str = "ticket", *, probe: bool = True
    ) -> Search[Trained]:
        if probe and self.context.probe_specs:
            (trained,) = yield from self.train_all([ticket])
        else:
            request = self._jobs.training(ticket)
            (outcome,) = yield (request,)
            trained = Trained(ticket, outcome, origin=request.origin)
        if trained.diverged_at is not None:
            finds_mask = ticket.learns_mask or ticket.updates_mask
            level = ticket.level + 1 if finds_mask else ticket.level
            self.record(level, ticket, trained, variant)
            raise TrainingDiverged(trained.diverged_at, ticket.learns_mask)
        return trained

    def train_all(self, tickets: Sequence[Ticket], *, probe: bool = True) -> Search[list[Trained]]:
        if not tickets:
            return []
        trainings = tuple(self._jobs.training(ticket) for ticket in tickets)
        outcomes = yield trainings
        trained = []
        for request, outcome in zip(trainings, outcomes, strict=True):
            trained.append(Trained(request.ticket, outcome, origin=request.origin))
        return (yield from self._probed(trained)) if probe else trained

    def probe(self, network: Ticket | Trained) -> Search[Trained]:
        (probed,) = yield from self.probe_all([network])
        return probed

    def probe_all(self, networks: Sequence[Ticket | Trained]) -> Search[list[Trained]]:
        unprobed = []
        for network in networks:
            if isinstance(network, Ticket):
                origin = digest_of("untrained", network.origin)
                network = Trained(network, Untrained(network), origin=origin)
            unprobed.append(network)
        return (yield from self._probed(unprobed, self.context.all_probe_specs))

    def _probed(
        self, trained: list[Trained], specs: Mapping[Need, Spec] | None = None
    ) -> Search[list[Trained]]:
        """Ask for what is needed of each network that did not diverge, and add it.

        Without `specs` that is what the criterion and the search need.
        """
        needs = tuple(self.context.probe_specs if specs is None else specs)
        finite = [one for one in trained if one.diverged_at is None]
        if not needs or not finite:
            return trained
        requests = []
        for one in finite:
            for need in needs:
                requests.append(self._jobs.probe(one, need))
        outcomes = iter((yield tuple(requests)))
        probed = []
        for one in trained:
            if one.diverged_at is None:
                one = replace(one, probes={need: next(outcomes) for need in needs})
            probed.append(one)
        return probed

    def evaluate(
        self,
        network: Ticket | Trained,
        part: str = "test",
        metrics: Sequence[Metric] = (),
        recalibrate_batch_norm: int | None = None,
    ) -> Search[Evaluation]:
        (figures,) = yield from self.evaluate_all([network], part, metrics, recalibrate_batch_norm)
        return figures

    def evaluate_all(
        self,
        networks: Sequence[Ticket | Trained],
        part: str = "test",
        metrics: Sequence[Metric] = (),
        recalibrate_batch_norm: int | None = None,
    ) -> Search[list[Evaluation]]:
        if not networks:
            return []
        requests = []
        for network in networks:
            request = self._evaluations.evaluation(network, part, metrics, recalibrate_batch_norm)
            requests.append(request)
        outcomes = yield tuple(requests)
        return [outcome.evaluation for outcome in outcomes]

    def record(self, level: int, ticket: Ticket, trained: Trained, variant: str = "ticket") -> None:
        is_valid = isinstance(level, int) and isinstance(ticket, Ticket)
        if not is_valid or not isinstance(trained, Trained):
            types = ", ".join(type(value).__name__ for value in (level, ticket, trained))
            who = describe(self.context.specs["search"])
            raise ContractError(
                f"{who} called lab.record(level, ticket, trained) with {types}; "
                "an int, a Ticket and a Trained belong there"
            )
        if isinstance(trained.outcome, Untrained):
            who = describe(self.context.specs["search"])
            raise ContractError(
                f"{who} records level {level} with what lab.probe returned, which has no figures: "
                "record `yield from lab.train(lab.as_is(ticket))` for a ticket as it is"
            )
        self.records.append(Record(level, ticket, trained, variant))

    def _root(self, ticket: Ticket, trained: Trained) -> Trained:
        """Return the training that a pruned ticket goes back to.

        Raises UsageError where there is none, and the rewind policy points into one.
        """
        root, point = ticket.root or trained, self.context.point
        step = point.schedule if point.weights == LATEST else max(point.weights, point.schedule)
        if isinstance(root.outcome, Untrained) and step != 0:
            rewind, search = self.cell.rewind, self.cell.search
            raise UsageError(
                f"rewind '{rewind.use}' goes back to step {step} of a training, and the search "
                f"'{search.use}' prunes before any: use \"to_init\""
            )
        return root

    def _next_round(
        self, derivation: Derivation, ticket: Ticket, root: Trained, times: int
    ) -> Ticket:
        level = ticket.level + times
        return Ticket.derived(derivation, level, self.context.point, root=root, parent=ticket.level)

    def _checked_scores(self, what: str, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scores by layer. Raises ContractError for a missing layer, shape or dtype."""
        unknown = scores.keys() - {layer.name for layer in self.layers}
        if unknown:
            raise ContractError(f"{what} names no layer of the network: {', '.join(unknown)}")
        checked = {}
        for layer in self.layers:
            if layer.name not in scores:
                raise ContractError(f"{what} lacks layer {layer.name}")
            where = f"{what} for layer {layer.name}"
            checked[layer.name] = check_tensor(scores[layer.name], layer.shape, where).cpu()
        return checked

    def _check_density(self, density: float | None) -> None:
        """Raise UsageError if the parametrization lacks a density, or cannot use one."""
        parametrization, search = self.cell.parametrization, self.cell.search
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

    # The methods that only the runner calls

    def request(self, ticket: Ticket) -> JobRequest:
        """Return the request for the training of a ticket."""
        return self._jobs.training(ticket)

    def job(self, ticket: Ticket) -> Job:
        """Return the training of a ticket, with its tensors."""
        return self.request(ticket).job

    def evaluations(self, trained: Trained) -> dict[str, JobRequest]:
        """Return, by part of the data, the evaluations that the recipe wants after a training."""
        requests = {}
        for part in self.cell.evaluated_parts:
            requests[part] = self._evaluations.evaluation(trained, part, self.cell.metrics)
        return requests

    def control(self, control: Control, record: Record) -> Ticket:
        """Return a control of a recorded level (see `control_of`)."""
        spec = self._describe_component(control, self.clock)
        return control_of(self.context, control, spec, record.ticket)
