"""What a study will ask for, known before anything is trained and without torch.

Every cell's search runs in its own lab, with outcomes that are not known yet. Jobs are told apart by how they come
about; sharing that depends on what masks turn out to be shows up only as a study runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lotteryfw.api.errors import ContractError, LotteryError, NotKnownYet, PluginError, UsageError
from lotteryfw.engine.perform import StoredOutcome
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.guard import describe as describe_spec
from lotteryfw.search.initial_state import refuse_oversized
from lotteryfw.search.jobs import digest, like
from lotteryfw.search.lab import CellLab
from lotteryfw.search.requests import JobRequest
from lotteryfw.store import Store

_MOST_REQUESTS = 100_000
"""Jobs of one cell that are planned; a search that asks for more is planned up to there."""


class _Unknown:
    """The outcome of a job that nobody ran yet. A plan assumes that no training diverges."""

    key = ""
    diverged_at: int | None = None

    @property
    def metrics(self) -> NoReturn:
        raise NotKnownYet("the figures of a training are not known before it is trained")

    def tensors(self) -> NoReturn:
        raise NotKnownYet("the weights of a training are not known before it is trained")

    def mask(self) -> NoReturn:
        raise NotKnownYet("the mask of a training is not known before it is trained")

    def state(self, step: int) -> NoReturn:
        raise NotKnownYet("the state of a training is not known before it is trained")


_UNKNOWN = _Unknown()


@dataclass
class CellPlan:
    """The jobs that a cell asks for, as far as they are known; `fault` says why its search cannot run."""

    requests: list[JobRequest]
    depends_on_results: bool = False
    fault: LotteryError | None = None


def plan_cell(lab: CellLab) -> CellPlan:
    """Run the search of a lab's cell without training anything."""
    planned = CellPlan([])
    try:
        search = lab.cell.search.search(lab)
        asked = next(search)
        while True:
            for request in asked:
                if not isinstance(request, JobRequest):
                    raise ContractError(
                        f"search '{lab.cell.search.use}' asks for other things than jobs"
                    )
                planned.requests.append(request)
            if len(planned.requests) > _MOST_REQUESTS:
                raise NotKnownYet(f"more than {_MOST_REQUESTS:,} trainings")
            asked = search.send((_UNKNOWN,) * len(asked))
    except StopIteration:
        pass
    except NotKnownYet:
        planned.depends_on_results = True
    except LotteryError as error:
        planned.fault = error
    except (Exception, SystemExit) as error:
        who = describe_spec(lab.context.specs["search"])
        planned.fault = PluginError(f"{who} broke in search(): {type(error).__name__}: {error}")
    for record in lab.records:
        if record.variant == "ticket" and not record.ticket.is_dense:
            planned.requests += [
                lab.request(lab.control(control, record)) for control in lab.cell.controls
            ]
    return planned


def refuse_empty(cells: Iterable[Cell], describe: Describe, data_folder: Path, device: str) -> None:
    """Raises UsageError for a cell whose budgets would leave a network without weights, and what a scope raises."""
    different: dict[str, Cell] = {}
    for cell in cells:
        parts = [
            describe(part, cell.clock).canonical()
            for part in (cell.model, cell.data, cell.scope, cell.search, cell.parametrization)
            if part is not None
        ]
        different.setdefault(digest(parts), cell)
    for cell in different.values():
        try:
            lab = CellLab(cell, describe, data_folder, device)
            refuse_oversized(
                cell, lab.context.specs, cell.data.facts(data_folder)
            )  # before it takes any memory
            planned = plan_cell(lab)
            if isinstance(planned.fault, UsageError):
                raise planned.fault
            for request in planned.requests:
                request.ticket.source.kept_by_budgets()
        except UsageError:
            raise
        except (
            LotteryError,
            SystemExit,
        ):  # a component that breaks ends its own cells, when they run
            continue


_NOT_PLAIN = ("snapshots", "keys")


@dataclass(frozen=True)
class Plan:
    """What a study asks for. Steps are optimizer updates; `seconds` and `bytes` are None where nothing like it was
    trained in this store before. `unknown` names cells whose search depends on results, which are planned up to there,
    `broken` those whose search cannot run, with the reason. `snapshots` says, by the origin of a training, which of its
    states the cells will go back to, `keys` under which key its result is stored.
    """

    cells: int
    asked: int
    unique: int
    stored: int
    steps: int
    steps_to_do: int
    seconds: float | None
    bytes: int | None
    unknown: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    snapshots: Mapping[str, frozenset[int]] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """The figures as JSON-able data."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_PLAIN}


def plan(
    cells: Iterable[Cell],
    describe: Describe,
    store: Store,
    data_folder: Path,
    device: str,
    engine: str = "",
) -> Plan:
    """The plan of some cells against a store; `device` is the kind the study would run on.

    `engine` is as in `Lab`.
    """
    asked, count = 0, 0
    unknown: list[str] = []
    broken: list[tuple[str, str]] = []
    unique: dict[
        str, tuple[int, str]
    ] = {}  # origin → steps and cost class; plain tuples, which the collector skips
    snapshots: dict[str, frozenset[int]] = {}
    for cell in cells:
        count += 1
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
        asked += len(planned.requests)
        specs = lab.context.specs
        cost_class = like(specs["model"], specs["data"], specs["optimizer"], cell.batch, device)
        for request in planned.requests:
            unique[request.origin] = (request.steps, cost_class)
            if request.snapshots:
                snapshots[request.origin] = (
                    snapshots.get(request.origin, frozenset()) | request.snapshots
                )
    stored = {}
    for origin in store.aliases() & unique.keys():
        key = store.alias(origin)
        if key is not None and store.has(key):
            stored[origin] = key
    todo = [item for origin, item in unique.items() if origin not in stored]
    classes = {cost_class for _, cost_class in todo}
    known = {name: cost for name in classes if (cost := _cost(store, name))}
    complete = len(known) == len(classes)
    return Plan(
        cells=count,
        asked=asked,
        unique=len(unique),
        stored=len(stored),
        steps=sum(steps for steps, _ in unique.values()),
        steps_to_do=sum(steps for steps, _ in todo),
        seconds=sum(steps * known[name][0] for steps, name in todo) if complete else None,
        bytes=sum(known[name][1] for _, name in todo) if complete else None,
        unknown=tuple(unknown),
        broken=tuple(broken),
        snapshots=snapshots,
        keys=stored,
    )


def _cost(store: Store, likeness: str) -> tuple[float, int] | None:
    """(seconds a step, bytes) of a stored training of this cost class."""
    key = store.alias(likeness)
    folder = store.path(key) if key else None
    if key is None or folder is None:
        return None
    timing = StoredOutcome(store, key).record["timing"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    return (timing["seconds"] / timing["steps"], size) if timing["steps"] else None
