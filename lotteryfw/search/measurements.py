"""The trainings, probes and evaluations of one cell, as generators that a search runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from lotteryfw.api.errors import TrainingDiverged, UsageError
from lotteryfw.api.kinds import DataSource, Metric
from lotteryfw.api.lab import Search
from lotteryfw.api.layers import LATEST, Need
from lotteryfw.api.metrics import Evaluation
from lotteryfw.api.steps import Step
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.context import SearchContext, digest_of
from lotteryfw.search.evaluations import EvaluationFactory
from lotteryfw.search.guard import describe
from lotteryfw.search.jobs import Spec
from lotteryfw.search.records import LevelRecords
from lotteryfw.search.requests import JobFactory
from lotteryfw.search.segments import first_segment, next_segment
from lotteryfw.search.untrained import Untrained


class Measurements:
    """Asks for the jobs of one cell. `lotteryfw.Lab` documents its methods.

    `records` takes a training that diverged, which its search does not come to record.
    """

    def __init__(
        self,
        context: SearchContext,
        jobs: JobFactory,
        evaluations: EvaluationFactory,
        records: LevelRecords,
    ):
        self._context = context
        self._jobs = jobs
        self._evaluations = evaluations
        self._records = records

    def train(
        self,
        ticket: Ticket,
        variant: str = "ticket",
        *,
        probe: bool = True,
        states: Collection[int] = (),
    ) -> Search[Trained]:
        # Most trainings keep no states and are not probed, and a plan has hundreds of thousands.
        if states or (probe and self._context.probe_specs):
            (trained,) = yield from self.train_all([ticket], probe=probe, states=states)
        else:
            request = self._jobs.training(ticket)
            (outcome,) = yield (request,)
            trained = Trained.of_job(ticket, outcome, request.origin)
        if trained.diverged_at is not None:
            # The level that it was to find a mask for has no other row.
            finds_mask = ticket.learns_mask or ticket.updates_mask
            level = ticket.level + 1 if finds_mask else ticket.level
            self._records.add(level, ticket, trained, variant)
            raise TrainingDiverged(trained.diverged_at, ticket.learns_mask)
        return trained

    def stop_when(
        self,
        ticket: Ticket,
        condition: Callable[[Sequence[Trained]], bool],
        every: str | int = "1ep",
    ) -> Search[Trained]:
        context = self._context
        self._check_stoppable(ticket)
        interval = context.clock.steps(Step.parse(every))
        if interval < 1:
            raise UsageError(f"{self._search}: lab.stop_when: every is at least one step")
        total = context.clock.total if ticket.length is None else ticket.length
        step = ticket.point.schedule
        segments: list[Trained] = []
        while step < total:
            steps = min(interval, total - step)
            if segments:
                segment = next_segment(ticket, segments[-1], step, steps)
            else:
                segment = first_segment(ticket, steps)
            trained = yield from self.train(segment)
            step += steps
            # Under the ticket itself, so that it can be pruned after any of its segments; it still
            # says that the training is one of several.
            segments.append(replace(trained, ticket=replace(ticket, keeps_end=True)))
            if condition(tuple(segments)):
                break
        return segments[-1]

    def _check_stoppable(self, ticket: Ticket) -> None:
        """Raise UsageError for a ticket whose training cannot be made in segments."""
        point, rewind = self._context.point, self._context.cell.rewind
        if ticket.learns_mask or ticket.updates_mask:
            raise UsageError(
                f"{self._search}: lab.stop_when: a training that learns or changes its mask has no "
                "segments; use lab.train"
            )
        if ticket.point.steps is not None:
            raise UsageError(
                f"{self._search}: lab.stop_when: the ticket's training has {ticket.point.steps} "
                "steps whatever a condition says; use lab.train"
            )
        if self._context.cell.objective.needs_teacher and not ticket.is_dense:
            # A segment's root is the segment before it, and no longer the dense training.
            raise UsageError(
                f"{self._search}: lab.stop_when: the training of a pruned ticket has a teacher; use "
                "lab.train"
            )
        if ticket.is_dense and point.weights not in (0, LATEST):
            raise UsageError(
                f"rewind '{rewind.use}' goes back to step {point.weights} of the dense training, "
                f"and the search '{self._context.cell.search.use}' may stop that before: use "
                '"to_init" or one that goes on from the latest weights'
            )

    @property
    def _search(self) -> str:
        return describe(self._context.specs["search"])

    def train_all(
        self, tickets: Sequence[Ticket], *, probe: bool = True, states: Collection[int] = ()
    ) -> Search[list[Trained]]:
        if not tickets:
            return []
        kept = frozenset(states)
        # All requests are yielded at once, so that they may run side by side or in a group.
        trainings = tuple(self._jobs.training(ticket, kept) for ticket in tickets)
        outcomes = yield trainings
        trained = []
        for request, outcome in zip(trainings, outcomes, strict=True):
            trained.append(Trained.of_job(request.ticket, outcome, request.origin, kept))
        return (yield from self._probed(trained)) if probe else trained

    def probe(self, network: Ticket | Trained) -> Search[Trained]:
        (probed,) = yield from self.probe_all([network])
        return probed

    def probe_all(self, networks: Sequence[Ticket | Trained]) -> Search[list[Trained]]:
        unprobed = []
        for network in networks:
            if isinstance(network, Ticket):
                # It must differ from the origin of the ticket's training, whose weights are others.
                origin = digest_of("untrained", network.origin)
                network = Trained(network, Untrained(network), origin=origin)
            unprobed.append(network)
        return (yield from self._probed(unprobed, self._context.all_probe_specs))

    def _probed(
        self, trained: list[Trained], specs: Mapping[Need, Spec] | None = None
    ) -> Search[list[Trained]]:
        """Ask for what is needed of each network that did not diverge, and add it.

        Without `specs` that is what the criterion and the search need.
        """
        needs = tuple(self._context.probe_specs if specs is None else specs)
        # The gradient of a network that diverged is as little a number as its loss.
        finite = [one for one in trained if one.diverged_at is None]
        if not needs or not finite:
            return trained
        requests = []
        for one in finite:
            for need in needs:
                requests.append(self._jobs.probe(one, need))
        # One after the other, in the order in which they were asked for.
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
        data: DataSource | None = None,
    ) -> Search[Evaluation]:
        (figures,) = yield from self.evaluate_all(
            [network], part, metrics, recalibrate_batch_norm, data
        )
        return figures

    def evaluate_all(
        self,
        networks: Sequence[Ticket | Trained],
        part: str = "test",
        metrics: Sequence[Metric] = (),
        recalibrate_batch_norm: int | None = None,
        data: DataSource | None = None,
    ) -> Search[list[Evaluation]]:
        if not networks:
            return []
        requests = []
        for network in networks:
            request = self._evaluations.evaluation(
                network, part, metrics, recalibrate_batch_norm, data
            )
            requests.append(request)
        outcomes = yield tuple(requests)
        return [outcome.evaluation for outcome in outcomes]
