"""The jobs of a study, known before anything is trained and without torch.

Every cell's search runs in its own lab, with outcomes that are not known yet. Jobs are told apart
by how they come about; sharing that depends on the masks shows only as a study runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lotteryfw.api.errors import (
    ContractError,
    LotteryError,
    NotKnownYet,
    PluginError,
    UsageError,
)
from lotteryfw.api.lab import Search
from lotteryfw.api.metrics import Evaluation
from lotteryfw.api.results import LevelResult
from lotteryfw.api.tickets import MaskStats, Ticket, Trained
from lotteryfw.engine.outcomes import StoredOutcome
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.guard import describe as describe_spec
from lotteryfw.search.jobs import like
from lotteryfw.search.lab import CellLab
from lotteryfw.search.records import nothing_recorded
from lotteryfw.search.requests import JobRequest
from lotteryfw.store import Store

_MOST_REQUESTS = 100_000
"""Jobs of one cell that are planned; a search that asks for more is planned up to there."""


class _UnknownEvaluation(Evaluation):
    """The figures of a network that nobody measured yet."""

    def __init__(self) -> None:
        """Do nothing: there are no figures."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise NotKnownYet("the figures of a network are not known before it is evaluated")


class _UnknownStats(MaskStats):
    """The counts of a mask that nobody made yet."""

    def __init__(self) -> None:
        """Do nothing: there are no counts."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise NotKnownYet("the counts of a mask are not known before it is made")


class _Unknown:
    """The outcome of a job that nobody ran yet. A plan assumes that no training diverges."""

    key = ""
    diverged_at: int | None = None

    @property
    def metrics(self) -> NoReturn:
        raise NotKnownYet("the figures of a training are not known before it is trained")

    @property
    def evaluation(self) -> _UnknownEvaluation:
        return _UnknownEvaluation()

    def tensors(self) -> NoReturn:
        raise NotKnownYet("the weights of a training are not known before it is trained")

    def mask(self) -> NoReturn:
        raise NotKnownYet("the mask of a training is not known before it is trained")

    def state(self, step: int) -> NoReturn:
        raise NotKnownYet("the state of a training is not known before it is trained")


_UNKNOWN = _Unknown()


@dataclass
class CellPlan:
    """The jobs that a cell asks for, as far as they are known.

    `of_targets` are those of its targets, with their labs. `fault` says why its search cannot run.
    """

    requests: list[JobRequest]
    of_targets: list[tuple[CellLab, JobRequest]] = field(default_factory=list)
    depends_on_results: bool = False
    fault: LotteryError | None = None


def plan_cell(lab: CellLab) -> CellPlan:
    """Run the search of a lab's cell without training anything."""
    planned = CellPlan([])
    try:
        _collect_requests(lab.cell.search.search(lab), lab.cell.search.use, planned)
    except NotKnownYet:
        planned.depends_on_results = True
    except LotteryError as error:
        planned.fault = error
    except (Exception, SystemExit) as error:
        who = describe_spec(lab.context.specs["search"])
        planned.fault = PluginError(f"{who} broke in search(): {type(error).__name__}: {error}")
    else:
        if not lab.records:
            planned.fault = UsageError(nothing_recorded(lab.context.specs["search"]))
    is_evaluated = bool(lab.cell.evaluated_parts)
    is_compared = bool(lab.cell.controls or lab.cell.targets)
    levels: list[LevelResult] = []
    controls: list[LevelResult] = []
    for record in lab.records:
        if lab.cell.is_analysed(record.level):
            levels.append(
                _level_result(
                    lab, record.variant, record.level, record.ticket, record.trained.origin
                )
            )
        if is_evaluated:
            planned.requests += lab.evaluations(record.trained).values()
        for name, own_lab, ticket in lab.compared(record) if is_compared else ():
            request = own_lab.request(ticket)
            trained = Trained(ticket, _UNKNOWN, origin=request.origin)
            jobs: list[JobRequest] = [request, *own_lab.evaluations(trained).values()]
            if own_lab is lab:
                planned.requests += jobs
                if lab.cell.is_analysed(record.level):
                    controls.append(_level_result(lab, name, record.level, ticket, request.origin))
            else:
                planned.of_targets += [(own_lab, job) for job in jobs]
    for analysis in lab.cell.analyses:
        # Whatever breaks here does so, with a message, when the study runs, and costs nothing
        # else. What an analysis asks for once it has seen results is not known.
        with suppress(Exception, SystemExit):
            _collect_requests(analysis.levels(lab, levels + controls), analysis.use, planned)
    return planned


def _collect_requests(search: Search[Any], name: str, planned: CellPlan) -> None:
    """Add what a search or an analysis asks for, with outcomes that are not known.

    Raises NotKnownYet where it looks at one, ContractError where it asks for no job.
    """
    collected = planned.requests
    try:
        requests = next(search)
        while True:
            for request in requests:
                if not isinstance(request, JobRequest):
                    raise ContractError(f"'{name}' asks for other things than jobs")
                collected.append(request)
            # A search may go on for ever while it does not see its figures change.
            if len(collected) > _MOST_REQUESTS:
                raise NotKnownYet(f"more than {_MOST_REQUESTS:,} trainings")
            requests = search.send((_UNKNOWN,) * len(requests))
    except StopIteration:
        return


def _level_result(
    lab: CellLab, variant: str, level: int, ticket: Ticket, origin: str
) -> LevelResult:
    """Return a level as an analysis sees it; `origin` is that of its training."""
    cell = lab.cell
    return LevelResult(
        cell.study, cell.id, cell.axes, cell.seed, level, variant, _UnknownStats(), _UNKNOWN,
        lambda: ticket, origin,
    )  # fmt: skip


_Cost = tuple[str, int, str]
"""The kind of a job, its steps, and its cost class, which jobs of about the same cost a step share."""


class _CostClasses:
    """The cost classes of the trainings of a plan."""

    def __init__(self, device: str):
        self._device = device
        self._names: dict[tuple[object, ...], tuple[str, str]] = {}

    def of(self, lab: CellLab) -> tuple[str, str]:
        """Return the classes of the trainings of a lab's cell: of weights, and of masks."""
        specs, batch = lab.context.specs, lab.cell.batch
        optimizer, parametrization = specs["optimizer"], specs.get("parametrization")
        mask_optimizer = specs.get("mask_optimizer", optimizer)
        classed_by = (specs["model"], specs["data"], optimizer, mask_optimizer)
        learned = "" if parametrization is None else parametrization.digest
        digests = (*(spec.digest for spec in classed_by), batch, learned)
        # The seeds of a combination share the classes, and naming one takes longer than looking it up.
        if digests not in self._names:
            model, data, *_ = classed_by
            weights = like(model, data, optimizer, batch, self._device)
            masks = like(model, data, mask_optimizer, batch, self._device, parametrization)
            self._names[digests] = (weights, masks)
        return self._names[digests]


_NOT_PLAIN = ("snapshots", "keys")


@dataclass(frozen=True)
class Plan:
    """The jobs of a study, and what they cost.

    Of the unique jobs, `trainings` train a network, `probes` compute what a criterion needs of one,
    and `evaluations` only measure one. Steps are optimizer updates; `seconds` and `bytes` are None
    where nothing like it was trained in this store before. `unknown` names cells whose search
    depends on results, which are planned up to there, `broken` those whose search cannot run, with
    the reason. `snapshots` has, by the origin of a training, the states that cells will go back to,
    `keys` the key under which its result is stored.
    """

    cells: int
    asked: int
    unique: int
    stored: int
    trainings: int
    probes: int
    evaluations: int
    steps: int
    steps_to_do: int
    seconds: float | None
    bytes: int | None
    unknown: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    snapshots: Mapping[str, frozenset[int]] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_PLAIN}


def plan(
    cells: Iterable[Cell],
    describe: Describe,
    store: Store,
    data_folder: Path,
    device: str,
    engine: str = "",
    costs: Mapping[str, tuple[float, int]] | None = None,
) -> Plan:
    """Return the plan of some cells against a store; `device` is the kind the study would run on.

    `engine` is as in `Lab`. `costs` has the seconds a step and the bytes of trainings, by cost
    class, for those of which the store has none.
    """
    cell_count, job_count = 0, 0
    unknown: list[str] = []
    broken: list[tuple[str, str]] = []
    # By origin. Plain tuples, which the garbage collector skips.
    unique: dict[str, _Cost] = {}
    snapshots: dict[str, frozenset[int]] = {}
    classes = _CostClasses(device)
    for cell in cells:
        cell_count += 1
        try:
            lab = CellLab(cell, describe, data_folder, device, engine=engine)
        except LotteryError as error:
            broken.append((cell.id, str(error)))
            continue
        planned = plan_cell(lab)
        if planned.depends_on_results:
            unknown.append(cell.id)
        if planned.fault is not None:
            broken.append((cell.id, str(planned.fault)))
        job_count += len(planned.requests) + len(planned.of_targets)
        for own_lab, request in planned.of_targets:
            of_weights, _ = classes.of(own_lab)
            unique[request.origin] = (request.kind, request.steps, of_weights)
        cost_classes = classes.of(lab)
        for request in planned.requests:
            origin, learns_mask = request.origin, request.ticket.learns_mask
            unique[origin] = (request.kind, request.steps, cost_classes[learns_mask])
            if request.snapshots:
                snapshots[origin] = snapshots.get(origin, frozenset()) | request.snapshots

    keys = _stored_keys(store, unique)
    # Few lengths and classes, many jobs: what follows goes through the few.
    jobs = Counter(unique.values())
    jobs_to_do = jobs - Counter(unique[origin] for origin in keys)
    kinds: Counter[str] = Counter()
    for (kind, _, _), count in jobs.items():
        kinds[kind] += count
    seconds, size = _estimate(store, jobs_to_do, costs or {})
    return Plan(
        cells=cell_count,
        asked=job_count,
        unique=len(unique),
        stored=len(keys),
        trainings=kinds["training"],
        probes=kinds["probe"],
        evaluations=kinds["evaluation"],
        steps=_steps(jobs),
        steps_to_do=_steps(jobs_to_do),
        seconds=seconds,
        bytes=size,
        unknown=tuple(unknown),
        broken=tuple(broken),
        snapshots=snapshots,
        keys=keys,
    )


def _stored_keys(store: Store, origins: Mapping[str, object]) -> dict[str, str]:
    """Return, by origin, the keys of the results that are stored."""
    keys: dict[str, str] = {}
    # The names first: most origins of a new study have no alias, and opening files takes long.
    for origin in store.aliases() & origins.keys():
        key = store.alias(origin)
        if key is not None and store.has(key):
            keys[origin] = key
    return keys


def _steps(jobs: Mapping[_Cost, int]) -> int:
    return sum(steps * count for (_, steps, _), count in jobs.items())


def _estimate(
    store: Store, jobs: Mapping[_Cost, int], measured: Mapping[str, tuple[float, int]]
) -> tuple[float | None, int | None]:
    """Return the seconds and bytes of numbers of jobs; those that take no steps cost nothing.

    Both are None where no job of one of the classes is stored, or was measured.
    """
    costs: dict[str, tuple[float, int] | None] = {}
    seconds, size = 0.0, 0
    for (kind, steps, cost_class), count in jobs.items():
        # A forward pass takes next to no time, and its result next to no room.
        if kind == "evaluation" or (kind == "training" and steps == 0):
            continue
        # Most jobs of a study are of one class, whose object has to be read once.
        if cost_class not in costs:
            costs[cost_class] = measured.get(cost_class) or _stored_cost(store, cost_class)
        cost = costs[cost_class]
        if cost is None:
            return None, None
        seconds += count * steps * cost[0]
        size += count * cost[1]
    return seconds, size


def timed_steps(store: Store, cost_class: str) -> int:
    """Return the length of the stored training that estimates of this cost class are made of.

    It is 0 where there is none.
    """
    key = store.alias(cost_class)
    if key is None or not store.has(key):
        return 0
    return int(StoredOutcome(store, key).record["timing"]["steps"])


def _stored_cost(store: Store, cost_class: str) -> tuple[float, int] | None:
    """Return the seconds a step and the bytes of a stored training of this cost class."""
    key = store.alias(cost_class)
    folder = store.path(key) if key else None
    if key is None or folder is None:
        return None
    timing = StoredOutcome(store, key).record["timing"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return (timing["seconds"] / timing["steps"], size) if timing["steps"] else None
