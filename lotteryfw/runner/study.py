"""A study from recipe to run folder: `run` is what the command line calls, and what a script can call."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from lotteryfw.api.component import Component
from lotteryfw.api.events import (
    CellFinished,
    Event,
    LevelFinished,
    RunFinished,
    RunStarted,
    event_name,
)
from lotteryfw.api.results import AnalysisResult, LevelResult
from lotteryfw.api.tickets import MaskStats, Ticket, TicketSource, TicketState
from lotteryfw.engine import Chooser, Workshop, exit_error, pick_device, settle_process
from lotteryfw.recipe import to_toml
from lotteryfw.runner.cells import Found, Level, SavedTicket, checked_findings
from lotteryfw.runner.desk import Desk
from lotteryfw.runner.drive import Driver
from lotteryfw.runner.executors import Executor, InProcess, Workers, WorkerSetup
from lotteryfw.runner.results import Run, level_row
from lotteryfw.runner.tables import Seals
from lotteryfw.search.cell import Cell
from lotteryfw.search.derivations import Loaded, without_state
from lotteryfw.search.jobs import Spec, digest, numerics
from lotteryfw.search.lab import CellLab
from lotteryfw.store import (
    EventLog,
    LevelRow,
    RunFolder,
    file_name,
    load_ticket,
    save_ticket,
    saved_stats,
    strict_json,
    ticket_name,
)

_REWRITE_SECONDS = 5.0
"""How often at most levels.csv and the manifest are written anew while a study runs."""
_REWRITE_SHARE = 20
"""The pause between two such writes is at least so many times what the last one took."""


class Listener(Protocol):
    """Who watches a run, such as the terminal. Called in the order in which things happen."""

    def event(self, event: Event) -> None:
        """Something happened."""
        ...

    def progress(self, key: str, done: int, of: int) -> None:
        """A training has done so many steps."""
        ...

    def trouble(self, message: str) -> None:
        """Something went wrong that does not end the run."""
        ...


class _Nobody:
    def event(self, event: Event) -> None: ...
    def progress(self, key: str, done: int, of: int) -> None: ...
    def trouble(self, message: str) -> None: ...


def run(
    source: Path | str | Mapping[str, Any],
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    out: Path | str | None = None,
    jobs: int | None = None,
    device: str = "auto",
    trust: Sequence[Path] = (),
    data: Path | None = None,
    store: Path | None = None,
    checkpoint_seconds: float = 60.0,
    listener: Listener | None = None,
    on_start: Callable[[Callable[[], None]], None] | None = None,
) -> Run:
    """Runs a recipe (a path, or a mapping of the same shape) and returns its run folder, read.

    Run it again after whatever ended it: what is in the store is not trained twice, and the results are the same bits.
    `jobs` worker processes of one thread each; None: as many as there are cores and cells (one on a GPU).
    `on_start` is given a function that asks the run to stop at a safe point, which then raises Interrupted.

    >>> run("recipes/quickstart.toml").levels.to_pandas()  # doctest: +SKIP
    """
    try:
        desk = Desk(source, profile=profile, sets=sets, trust=trust, data=data, store=store)
        kind = pick_device(device)
        settle_process()
        desk.refuse_impossible(kind)
        study = Study(desk, kind, Path(out) if out else desk.default_out(), listener or _Nobody())
        return study.run(
            jobs or _default_jobs(kind, len(desk.recipe.cells)), checkpoint_seconds, on_start
        )
    except SystemExit as error:
        raise exit_error(error) from error


def _default_jobs(device: str, cells: int) -> int:
    return 1 if device != "cpu" else max(1, min(cores(), cells))


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Physical cores that this process may use, as far as the system tells: two threads of one core do this work hardly
    faster than one."""

    def core(number: int) -> str:
        siblings = topology / f"cpu{number}" / "topology" / "thread_siblings_list"
        return siblings.read_text() if siblings.is_file() else str(number)

    allowed = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return len({core(number) for number in allowed})


class Study:
    """One run of one recipe into one folder."""

    def __init__(self, desk: Desk, device: str, out: Path, listener: Listener):
        self._desk, self._device, self._listener = desk, device, listener
        self._rows: dict[tuple[int, int, int], LevelRow] = {}
        self._curves: dict[
            tuple[int, int, int], str
        ] = {}  # lines of curves.jsonl: dicts take ten times the memory
        self._rows_before: dict[tuple[int, int, int], LevelRow] = {}
        self._curves_before: dict[tuple[int, int, int], str] = {}
        self._levels: dict[str, Sequence[LevelResult]] = {}
        self._findings: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._found_before: list[dict[str, Any]] = []
        self._next_write = 0.0
        self._places = {cell.id: number for number, cell in enumerate(desk.recipe.cells)}
        self._variants = {cell.id: cell.variants for cell in desk.recipe.cells}
        self._errors = 0
        self._save: Callable[[], None] = lambda: None
        self._shop = Workshop(desk.registry, desk.data_folder, device, desk.store)
        self._choose_kernel = Chooser(self._shop)
        self._plan = desk.plan(device)
        self._folder = RunFolder(out)
        self._event_log = EventLog(self._folder)
        self._seals = Seals(self._folder)
        self._events_before: set[str] = set()
        self._keys_before: set[str] = set()

    def run(
        self,
        jobs: int,
        checkpoint_seconds: float,
        on_start: Callable[[Callable[[], None]], None] | None,
    ) -> Run:
        """Every cell to its end, then the figures of the run. Raises Interrupted, StoreError, DataError."""
        recipe = self._desk.recipe
        resolved = to_toml(recipe.resolved())
        with RunFolder.claimed(self._folder.path, resolved):
            self._seals.begin(self._listener.trouble)
            RunFolder.create(self._folder.path, recipe.source_text, resolved)
            try:
                return self._run(jobs, checkpoint_seconds, on_start)
            finally:
                self._event_log.close()

    def _run(
        self,
        jobs: int,
        checkpoint_seconds: float,
        on_start: Callable[[Callable[[], None]], None] | None,
    ) -> Run:
        desk, recipe = self._desk, self._desk.recipe
        run_id = f"{recipe.name}-{digest(str(self._folder.path.resolve()))[:12]}"
        with desk.store.active(run_id), self._executor(jobs, checkpoint_seconds) as executor:
            driver = Driver(
                desk.store,
                executor,
                self._open_lab,
                self._emit,
                self._level,
                self._ticket,
                self._analysed,
                self._trouble,
                self._provider,
                self._plan.keys,
            )
            self._recall()
            if on_start:
                on_start(driver.stop)
            self._emit(
                RunStarted(
                    recipe.name, str(self._folder.path), len(recipe.cells), self._plan.unique
                )
            )
            self._save = lambda: self._write(driver, run_id)
            try:
                driver.run(recipe.cells)
                self._look_across()
                self._drop_stale(driver)
            finally:
                self._save()
                self._seals.end()
            counts = [
                list(driver.statuses.values()).count(status) for status in ("failed", "diverged")
            ]
            self._emit(RunFinished(str(self._folder.path), len(recipe.cells), *counts))
        for key in desk.store.damaged:
            self._listener.trouble(
                f"a damaged object of the store was set aside and computed again: {key}"
            )
        for notice in desk.store.notices:
            self._listener.trouble(notice)
        return Run(self._folder.path)

    @contextmanager
    def _executor(self, jobs: int, checkpoint_seconds: float) -> Iterator[Executor]:
        desk = self._desk
        pairs = {
            digest([spec.canonical() for spec in pair]): pair
            for pair in map(self._data_specs, desk.recipe.cells)
        }
        for data, objective in pairs.values():
            self._shop.feed(
                data, objective
            )  # absent or unusable data is refused here, before any training
        executor: Executor
        if jobs == 1:
            executor = InProcess(
                desk.store, self._shop, self._listener.progress, checkpoint_seconds
            )
        else:
            setup = WorkerSetup(
                desk.store.root, desk.data_folder, self._device, desk.trust, checkpoint_seconds
            )
            log = self._folder.path / "workers.log"
            executor = Workers(
                jobs, desk.store, setup, self._listener.progress, log, self._listener.trouble
            )
        try:
            yield executor
        finally:
            executor.close()

    def _data_specs(self, cell: Cell) -> tuple[Spec, Spec]:
        return self._desk.describe(cell.data, cell.clock), self._desk.describe(
            cell.objective, cell.clock
        )

    def _open_lab(self, cell: Cell) -> CellLab:
        desk = self._desk
        return CellLab(
            cell,
            desk.describe,
            desk.data_folder,
            self._device,
            self._choose_kernel,
            self._plan.snapshots,
            desk.engine,
        )

    # What happens on the way

    def _emit(self, event: Event) -> None:
        name = event_name(event)
        line = {"event": name, "time": round(time.time(), 3), **_plain_event(event)}
        if _identity(line) not in self._events_before:
            self._event_log.append(line)
        before = len(self._desk.registry.failures)
        self._desk.registry.notify(name, event)
        for failure in self._desk.registry.failures[before:]:
            self._listener.trouble(str(failure))
        self._listener.event(event)
        if isinstance(event, CellFinished) and event.status != "done":
            self._listener.trouble(f"cell {event.cell} {event.status}: {event.message}")

    def _trouble(self, message: str, trace: str) -> None:
        if trace:
            self._errors += 1
            self._folder.write_error(f"{self._errors:03}", trace)
        if message:
            self._listener.trouble(message)

    def _provider(self, component: Component) -> str:
        return self._desk.registry.offer_of(component).provider

    def _ticket(
        self, cell: Cell, variant: str, level: int, ticket: Ticket, key: str
    ) -> SavedTicket:
        """Write a ticket, unless an intact file of that ticket is there; it needs no tensors."""
        # A search may record a ticket at another level than its own.
        identity = {
            "study": cell.study,
            "cell": cell.id,
            "variant": variant,
            "recorded": str(level),
        }
        meta = {**identity, "key": key}
        path = self._folder.ticket_path(ticket_name(cell.id, variant, level))
        stats = saved_stats(path, ticket, meta) if self._seals.is_intact(path) else None
        if stats is None:
            save_ticket(path, ticket, meta)
            self._seals.changed(path)
            stats = ticket.cut
        else:
            self._seals.found_again(path)
        return SavedTicket(stats, reader_of(ticket, path, stats))

    def _analysed(self, cell: Cell, levels: Sequence[LevelResult], found: Found) -> None:
        self._levels[cell.id] = levels
        for analysis, findings in found:
            self._findings[(cell.id, analysis.use)] = [
                _plain_finding(analysis.use, each) for each in findings
            ]

    def _look_across(self) -> None:
        """Asks the analyses of each study about all its cells together."""
        cells = [cell for cell in self._desk.recipe.cells if cell.id in self._levels]
        for study in dict.fromkeys(cell.study for cell in cells):
            own = [cell for cell in cells if cell.study == study]
            levels = [level for cell in own for level in self._levels[cell.id]]
            for analysis in dict.fromkeys(analysis for cell in own for analysis in cell.analyses):
                try:
                    found = checked_findings(analysis.across(levels))
                    self._findings[(study, analysis.use)] = [
                        _plain_finding(analysis.use, each) for each in found
                    ]
                except (Exception, SystemExit) as error:
                    text = f"{type(error).__name__}: {error}"
                    if isinstance(error, SystemExit):
                        text = str(exit_error(error))
                    who = f"analysis '{analysis.use}' of {self._provider(analysis)}"
                    self._trouble(
                        f"{who} broke across the levels of study {study}: {text}",
                        traceback.format_exc(),
                    )

    def _level(self, level: Level) -> None:
        place = self._place(level.cell.id, level.variant, level.level)
        self._rows[place] = level_row(level)
        self._rows_before.pop(place, None)
        self._curves_before.pop(place, None)
        if level.metrics:
            named = {"cell": level.cell.id, "variant": level.variant, "level": level.level}
            self._curves[place] = strict_json(named | level.metrics.curve.plain())
        if time.monotonic() > self._next_write:
            started = time.monotonic()
            self._save()
            ended = time.monotonic()
            # the files of a large study take seconds to write
            self._next_write = ended + max(_REWRITE_SECONDS, _REWRITE_SHARE * (ended - started))

    def _place(self, cell: str, variant: str, level: int) -> tuple[int, int, int]:
        """Where a row belongs: rows stand in the order of the recipe, whatever finished first."""
        return self._places[cell], self._variants[cell].index(variant), level

    def _recall(self) -> None:
        """What an earlier run of the same study left in the folder stays until it is found again, and safe from gc.

        Only files that are as that run wrote them are read: everything else is found again in the store.
        """
        self._folder.clear_errors()
        self._keys_before = self._seals.keys_before()
        self._next_write = time.monotonic() + _REWRITE_SECONDS if self._keys_before else 0.0
        self._events_before = {_identity(event) for event in self._folder.each_event()}
        rows = self._folder.read_levels() if self._seals.intact("levels.csv") else []
        curves = self._folder.each_curve() if self._seals.intact("curves.jsonl") else ()
        for row in rows:
            if self._known(row.cell, row.variant):
                self._rows_before[self._place(row.cell, row.variant, row.level)] = row
        for curve in curves:
            if self._known(curve["cell"], curve["variant"]):
                place = self._place(curve["cell"], curve["variant"], curve["level"])
                self._curves_before[place] = strict_json(curve)
        if self._seals.intact("analyses.jsonl"):
            findings = self._folder.read_findings()
            self._found_before = [
                line for line in findings if self._known(line["cell"], line["variant"])
            ]

    def _known(self, cell: str, variant: str) -> bool:
        return variant in self._variants.get(cell, ())

    def _drop_stale(self, driver: Driver) -> None:
        """After the last cell, what an earlier run left and this one did not find again goes; a failed cell keeps its
        own, since it may have come further then."""
        failed = {cell for cell, status in driver.statuses.items() if status == "failed"}
        numbers = {self._places[cell] for cell in failed}
        self._rows_before = {
            place: row for place, row in self._rows_before.items() if place[0] in numbers
        }
        self._curves_before = {
            place: curve for place, curve in self._curves_before.items() if place[0] in numbers
        }
        self._found_before = [line for line in self._found_before if line["cell"] in failed]
        if not failed:
            self._keys_before = set()
        self._seals.drop_stale_tickets({file_name(cell) for cell in failed})

    def _write(self, driver: Driver, run_id: str) -> None:
        """Everything the folder says of the run so far; what it stands on is safe from gc from then on."""
        recipe = self._desk.recipe
        if not self._folder.exists():  # somebody deleted the folder during the run
            RunFolder.create(self._folder.path, recipe.source_text, to_toml(recipe.resolved()))
        rows, curves = self._rows_before | self._rows, self._curves_before | self._curves
        self._folder.write_levels([rows[place] for place in sorted(rows)])
        self._folder.write_curves(curves[place] for place in sorted(curves))
        found = [line for lines in self._findings.values() for line in lines]
        names = set(map(_name, found))
        found += [line for line in self._found_before if _name(line) not in names]
        # those of one row of levels.csv stand in the order of its cell's analyses already, which sorting keeps
        found.sort(key=lambda line: self._place(line["cell"], line["variant"], line["level"]))
        self._folder.write_findings(found)
        self._folder.write_manifest(self._manifest(driver))
        self._seals.write()
        self._desk.store.pin(
            run_id, self._folder.path, driver.keys | self._keys_before | self._shop.decoded
        )

    def _manifest(self, driver: Driver) -> dict[str, Any]:
        recipe, registry = self._desk.recipe, self._desk.registry
        return {
            "name": recipe.name,
            "title": recipe.title,
            "profile": recipe.profile,
            "recipe": str(recipe.path) if recipe.path else None,
            "digest": recipe.digest,
            "seeds": sorted({cell.seed for cell in recipe.cells}),
            "versions": _versions(),
            "plugins": {
                f"{plugin.distribution}/{plugin.name}": plugin.version
                for plugin in registry.plugins
            },
            "numerics": numerics(self._device),
            "machine": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
            },
            "store": str(self._desk.store.root),
            "cells": driver.statuses,
            "keys": sorted(driver.keys | self._keys_before),
        }


@cache  # importlib reads it from the disk anew, 3 ms a name, and the manifest is written again and again
def _versions() -> dict[str, str]:
    packages = ("lotteryfw", "torch", "torchvision", "numpy", "pydantic", "pluggy", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _plain_event(event: Event) -> dict[str, Any]:
    """An event's fields as plain data, without the curve, which the store has."""
    plain = dict(vars(event))
    if isinstance(event, LevelFinished):
        plain["metrics"] = {
            name: value for name, value in vars(event.metrics).items() if name != "curve"
        }
    return plain


def _plain_finding(analysis: str, finding: AnalysisResult) -> dict[str, Any]:
    """A finding as a line of analyses.jsonl."""
    level = finding.level
    placed = {
        "study": level.study,
        "cell": level.cell,
        "axes": dict(level.axes),
        "seed": level.seed,
    }
    placed |= {
        "variant": level.variant,
        "level": level.level,
        "density": level.cut.density,
        "analysis": analysis,
    }
    said = {name: getattr(finding, name) for name in ("figure", "layer", "against", "unit")}
    if finding.role:
        said["role"] = finding.role
    value = finding.value
    numbers = (
        [_plain_number(number) for number in value]
        if isinstance(value, list | tuple)
        else _plain_number(value)
    )
    return placed | said | {"value": numbers}


def _plain_number(number: Any) -> int | float:
    """A number that JSON has: some of numpy's are none of Python's."""
    return number if isinstance(number, int | float) else float(number)


def _identity(event: Mapping[str, Any]) -> str:
    """What makes two lines of events.jsonl the same event; runs begin and end anew each time."""
    name = event.get("event")
    if name == "job_finished":
        return f"job_finished {event.get('key')}"
    if name in ("run_started", "run_finished"):
        return f"{name} {event.get('time')}"
    return strict_json({key: event[key] for key in sorted(event) if key != "time"})


def reader_of(ticket: Ticket, path: Path, stats: MaskStats) -> Callable[[], Ticket]:
    """Return a function that gives the ticket with its tensors read from its file, which holds none of them itself."""
    light = without_state(ticket)

    def load() -> TicketState:
        stored = load_ticket(path)
        return TicketState(stored.mask, stored.values, stats)

    def read() -> Ticket:
        return replace(light, source=TicketSource(Loaded(light.origin, load)))

    return read


def _name(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a finding from all others, whatever was found."""
    return tuple(
        line[key] for key in ("cell", "variant", "level", "analysis", "figure", "layer", "against")
    )
