"""The lab of one cell: the tickets, jobs and records of its search."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from lotteryfw.api.kinds import Control
from lotteryfw.api.layers import LayerInfo
from lotteryfw.api.tickets import Ticket, Trained
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe, SearchContext
from lotteryfw.search.controls import control_of
from lotteryfw.search.evaluations import EvaluationFactory
from lotteryfw.search.jobs import Job
from lotteryfw.search.measurements import Measurements
from lotteryfw.search.records import LevelRecords, Record
from lotteryfw.search.requests import ChooseKernel, JobFactory, JobRequest, no_kernel
from lotteryfw.search.targets import transferred
from lotteryfw.search.ticket_factory import TicketFactory


class Compared(NamedTuple):
    """A network beside a recorded ticket: the variant of its row, and the lab that makes its jobs."""

    variant: str
    lab: CellLab
    ticket: Ticket


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
        self.context = context = SearchContext(
            cell, describe_component, data_folder, device, engine
        )
        self._describe_component = describe_component
        # The labs of targets differ in their cells alone.
        self._open = partial(
            CellLab,
            describe_component=describe_component,
            data_folder=data_folder,
            device=device,
            choose_kernel=choose_kernel,
            engine=engine,
        )
        self._jobs = JobFactory(context, choose_kernel, snapshots)
        self._evaluations = EvaluationFactory(context, describe_component)

        # The methods of `lotteryfw.Lab` are those of the three parts that a lab is made of.
        tickets = TicketFactory(context)
        self.dense = tickets.dense
        self.prune = tickets.prune
        self.prune_randomly = tickets.prune_randomly
        self.as_is = tickets.as_is
        self.learn_mask = tickets.learn_mask
        self.continue_mask = tickets.continue_mask
        self.update_mask = tickets.update_mask
        self.extract_ticket = tickets.extract_ticket
        self.load = tickets.load
        self.ticket = tickets.ticket
        self.at = tickets.at
        self.interpolate = tickets.interpolate
        self.again = tickets.again
        self.is_training_of = tickets.is_training_of

        # The list itself: the runner empties it while the search goes on, to let tensors go.
        levels = LevelRecords(context)
        self.records = levels.records
        self.record = levels.add

        measurements = Measurements(context, self._jobs, self._evaluations, levels)
        self.train = measurements.train
        self.train_all = measurements.train_all
        self.stop_when = measurements.stop_when
        self.probe = measurements.probe
        self.probe_all = measurements.probe_all
        self.evaluate = measurements.evaluate
        self.evaluate_all = measurements.evaluate_all

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        return self.context.layers

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

    def compared(self, record: Record) -> list[Compared]:
        """Return the networks that a recorded level is compared with: controls, then targets."""
        if record.variant != "ticket":
            return []
        compared = []
        # Nothing was removed from the dense network, so every control would be itself.
        has_controls = self.cell.has_controls(record.level) and not record.ticket.is_dense
        for control in self.cell.controls if has_controls else ():
            compared.append(Compared(control.use, self, self.control(control, record)))
        for target in self.cell.targets:
            if target.levels is None or record.level in target.levels:
                lab = self._target_labs[target.name]
                ticket = transferred(self.context, lab.context, record.ticket)
                compared.append(Compared(target.name, lab, ticket))
        return compared

    @cached_property
    def _target_labs(self) -> dict[str, CellLab]:
        return {target.name: self._open(target.cell) for target in self.cell.targets}

    def control(self, control: Control, record: Record) -> Ticket:
        """Return a control of a recorded level (see `control_of`)."""
        spec = self._describe_component(control, self.clock)
        return control_of(self.context, control, spec, record.ticket)
