"""The results of a run on their way into its folder: rows, curves, findings, tickets, manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from lotteryfw.api.events import CellFinished, JobFailed, JobFinished, LayerCollapsed, LevelFinished
from lotteryfw.api.results import LevelResult
from lotteryfw.api.tickets import MaskStats, Ticket, TicketSource, TicketState
from lotteryfw.recipe import to_toml
from lotteryfw.runner.cell_states import UNFINISHED, cell_states, earlier_failures, ended_cells
from lotteryfw.runner.cells import Findings, SavedTicket, Status
from lotteryfw.runner.context import StudyContext
from lotteryfw.runner.levels import Level
from lotteryfw.runner.provenance import Invocation, listed, machine, versions
from lotteryfw.runner.reporter import Reporter
from lotteryfw.runner.results import curve_line, finding_identity, finding_line, level_row
from lotteryfw.runner.study_facts import figure_names, input_shapes, loss_units, metric_units
from lotteryfw.runner.tables import Seals, delete_files
from lotteryfw.search.cell import Cell
from lotteryfw.search.numerics import numerics
from lotteryfw.search.stored_tickets import Loaded, without_state
from lotteryfw.store import (
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
"""Seconds at least between two rewrites of levels.csv and the other tables during a run."""
_REWRITE_SHARE = 20
"""The pause between two rewrites is at least this many times as long as the last one took: the
tables of a large study take seconds to write."""

Position = tuple[int, int, int]
"""The numbers of a row's cell and variant, and its level: rows stand in the order of the recipe."""


class RunRecorder:
    """Collects the results of a run, and writes them into its folder.

    `keys` are those of all objects that the results stand on, `statuses` how the cells ended. What
    an earlier run of the same study left in the folder stays until this run finds it again, or
    until `drop_stale`. What it left of cells that other code, data or another version of torch
    decided stays until this run records something of such a cell: no table has results of both.
    """

    def __init__(
        self,
        context: StudyContext,
        device: str,
        run_id: str,
        folder: RunFolder,
        seals: Seals,
        reporter: Reporter,
        data_keys: Set[str] = frozenset(),
    ):
        """`data_keys` are objects with decoded data sets, which are to be kept with the results."""
        self._context = context
        self._data_keys = data_keys
        self._device = device
        self._run_id = run_id
        self._folder = folder
        self._seals = seals
        self._reporter = reporter
        self.keys: set[str] = set()
        self.statuses: dict[str, Status] = {}
        self.levels: dict[str, Sequence[LevelResult]] = {}
        self._cell_numbers: dict[str, int] = {}
        self._variants: dict[str, tuple[str, ...]] = {}
        for number, cell in enumerate(context.recipe.cells):
            self._cell_numbers[cell.id] = number
            self._variants[cell.id] = tuple(cell.variants)
        self._rows: dict[Position, LevelRow] = {}
        # As lines of curves.jsonl, since dictionaries take ten times the memory.
        self._curves: dict[Position, str] = {}
        self._findings: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._rows_before: dict[Position, LevelRow] = {}
        self._curves_before: dict[Position, str] = {}
        self._findings_before: list[dict[str, Any]] = []
        self._keys_before: set[str] = set()
        self._inputs = input_shapes(context.recipe.cells, context.data_folder)
        self._invocations_before: list[Any] = []
        self._folder_id = uuid4().hex
        self._statuses_before: dict[str, Status] = {}
        self._failures: dict[str, dict[str, str]] = {}
        self._states = cell_states(context, device)
        self._states_before: dict[str, str] = {}
        # The cells whose results in the folder were decided by something else than `_states` say.
        self._outdated: set[str] = set()
        self._has_outdated = False
        path = context.recipe.path
        # of a trusted module there is no file to look for
        trusted = [file for file in context.trust if file.is_file()]
        sources = [*([path] if path else []), *trusted]
        self._invocation = Invocation(sources, context.overrides, device)
        self._next_write = 0.0

    # What an earlier run left

    def recall(self) -> None:
        """Read what an earlier run of the same study left, as far as it is undamaged.

        Everything else is found again in the store. The earlier run's objects stay safe from gc.
        """
        self._keys_before = self._seals.keys_before()
        self._invocations_before = self._seals.invocations_before()
        self._folder_id = self._seals.folder_id_before() or self._folder_id
        if self._keys_before:
            self._next_write = time.monotonic() + _REWRITE_SECONDS
        if self._seals.intact("manifest.json"):
            manifest = self._folder.read_manifest()
            self._statuses_before = ended_cells(manifest.get("cells"))
            self._failures = earlier_failures(manifest)
            # A manifest of an earlier version has none, and nobody knows what decided its results.
            states = manifest.get("cell_states")
            self._states_before = states if isinstance(states, dict) else {}
        for cell, state in self._states.items():
            if self._states_before.get(cell) != state:
                self._outdated.add(cell)
        self._has_outdated = bool(self._outdated)
        if self._seals.intact("levels.csv"):
            for row in self._folder.read_levels():
                if self._is_known(row.cell, row.variant):
                    self._rows_before[self._position(row.cell, row.variant, row.level)] = row
        if self._seals.intact("curves.jsonl"):
            for curve in self._folder.each_curve():
                if self._is_known(curve["cell"], curve["variant"]):
                    position = self._position(curve["cell"], curve["variant"], curve["level"])
                    self._curves_before[position] = strict_json(curve)
        if self._seals.intact("analyses.jsonl"):
            for line in self._folder.each_finding():
                if self._is_known(line["cell"], line["variant"]):
                    self._findings_before.append(line)

    def drop_stale(self) -> None:
        """Drop what an earlier run left and this one, whose cells all ended, did not find again.

        A failed cell keeps its own, since it may have come further then, unless other code decided
        it.
        """
        failed: set[str] = set()
        numbers: set[int] = set()
        folders: set[str] = set()
        for cell, status in self.statuses.items():
            if status == "failed" and cell not in self._outdated:
                failed.add(cell)
                numbers.add(self._cell_numbers[cell])
                folders.add(file_name(cell))
        self._rows_before = _of_cells(self._rows_before, numbers)
        self._curves_before = _of_cells(self._curves_before, numbers)
        self._findings_before = [line for line in self._findings_before if line["cell"] in failed]
        if "failed" not in self.statuses.values():
            self._keys_before = set()
        delete_files(self._seals.forget_stale_tickets(folders))

    def _drop_outdated(self, cell: str) -> None:
        """Drop what is outdated, as this run is about to record something of such a cell.

        Not before: a run that is stopped at its start loses nothing.
        """
        if not self._has_outdated or cell not in self._outdated:
            return
        self._has_outdated = False
        outdated = self._outdated
        numbers = {number for name, number in self._cell_numbers.items() if name not in outdated}
        self._rows_before = _of_cells(self._rows_before, numbers)
        self._curves_before = _of_cells(self._curves_before, numbers)
        findings = []
        for line in self._findings_before:
            if line["cell"] not in outdated and line["against"] not in outdated:
                findings.append(line)
        self._findings_before = findings
        for name in outdated:
            self._statuses_before.pop(name, None)
            self._failures.pop(name, None)
        stale = self._seals.forget_stale_tickets(
            {file_name(name) for name in self._cell_numbers if name not in outdated}
        )
        # A run that is killed here leaves files that no table names, and none that is missing.
        self.write()
        delete_files(stale)

    # What happens during a run

    def job_finished(self, key: str, steps: int, stored: bool, seconds: float) -> None:
        """Report that a job was computed, or (`stored`) found in the store."""
        if not stored:
            self._invocation.computed += 1
        self._reporter.event(JobFinished(key, steps, stored=stored, seconds=seconds))

    def job_failed(self, key: str, message: str) -> None:
        """Report that a job broke off with an error."""
        self._reporter.event(JobFailed(key, message))

    def cell_finished(self, cell: Cell, status: Status, message: str, trace: str = "") -> None:
        """Record how a cell ended; `trace` is the path of its traceback in the run's folder."""
        self._drop_outdated(cell.id)
        self._failures.pop(cell.id, None)
        if status == "failed":
            self._failures[cell.id] = {"reason": message, "traceback": trace}
        self.statuses[cell.id] = status
        self._reporter.event(CellFinished(cell.id, status, message))

    def level(self, level: Level) -> None:
        """Record the figures of a level, and from time to time write the tables."""
        cell, stats = level.cell.id, level.cut
        self._drop_outdated(cell)
        if level.variant == "ticket":
            for layer in stats.collapsed:
                self._reporter.event(LayerCollapsed(cell, level.level, layer))
        # What an earlier run left of this level gives way, whether or not it has figures.
        position = self._position(cell, level.variant, level.level)
        self._rows[position] = level_row(level)
        self._rows_before.pop(position, None)
        self._curves_before.pop(position, None)
        if level.metrics is not None:
            self._curves[position] = curve_line(level, level.metrics.curve)
        if time.monotonic() > self._next_write:
            started = time.monotonic()
            self.write()
            ended = time.monotonic()
            # Writing takes time in proportion to the rows: the share bounds it in long studies.
            pause = max(_REWRITE_SECONDS, _REWRITE_SHARE * (ended - started))
            self._next_write = ended + pause
        if level.metrics is not None:
            event = LevelFinished(cell, level.variant, level.level, stats.density, level.metrics)
            self._reporter.evaluated(event)
            self._reporter.event(event)

    def ticket(self, cell: Cell, variant: str, level: int, ticket: Ticket, key: str) -> SavedTicket:
        """Write a ticket, unless an intact file of that ticket is there; then no tensor is read."""
        # A search may record a ticket at another level than its own.
        meta = {
            "study": cell.study,
            "cell": cell.id,
            "variant": variant,
            "recorded": str(level),
            "key": key,
        }
        path = self._folder.ticket_path(ticket_name(cell.id, variant, level))
        # A ticket of a finished run is recognised by its header: a rerun reads no tensor.
        stats = saved_stats(path, ticket, meta) if self._seals.is_intact(path) else None
        if stats is None:
            save_ticket(path, ticket, meta)
            self._seals.changed(path)
            stats = ticket.cut
        else:
            self._seals.found_again(path)
        return SavedTicket(stats, reader_of(ticket, path, stats))

    def analysed(self, cell: Cell, levels: Sequence[LevelResult], findings: Findings) -> None:
        """Record the results of each of a cell's analyses of the levels of its search."""
        self.levels[cell.id] = levels
        for analysis, results in findings:
            lines = [finding_line(analysis.use, result) for result in results]
            self._findings[(cell.id, analysis.use)] = lines
            for result in results:
                self._reporter.finding(analysis.use, result)

    def analysed_across(self, study: str, analysis: str, lines: list[dict[str, Any]]) -> None:
        """Record what an analysis found across the cells of a study, as `finding_line` writes it."""
        self._findings[(study, analysis)] = lines

    def warning(self, message: str) -> None:
        """Report something that went wrong and does not end the run."""
        self._reporter.warning(message)

    def traceback(self, text: str) -> str:
        """Keep a traceback in `errors/`, and return its path in the run's folder."""
        return self._reporter.traceback(text)

    # The folder

    def write(self) -> None:
        """Write every table of the run so far, and protect the objects it stands on from gc."""
        recipe = self._context.recipe
        if not self._folder.exists():  # somebody deleted the folder during the run
            RunFolder.create(self._folder.path, recipe.source_text, to_toml(recipe.resolved()))
        rows = self._rows_before | self._rows
        curves = self._curves_before | self._curves
        self._folder.write_levels([rows[position] for position in sorted(rows)])
        self._folder.write_curves(curves[position] for position in sorted(curves))
        self._folder.write_findings(self._all_findings())
        self._folder.write_manifest(self._manifest())
        self._seals.write()
        pinned = self.keys | self._keys_before | self._data_keys
        self._context.store.pin(self._run_id, self._folder.path, pinned, self._folder_id)

    def _all_findings(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for findings in self._findings.values():
            lines += findings
        names = set(map(finding_identity, lines))
        for line in self._findings_before:
            if finding_identity(line) not in names:
                lines.append(line)
        # Sorting keeps the order of the cell's analyses among those of one row of levels.csv.
        lines.sort(key=lambda line: self._position(line["cell"], line["variant"], line["level"]))
        return lines

    def _manifest(self) -> dict[str, Any]:
        recipe = self._context.recipe
        cells: dict[str, str] = {}
        for cell in recipe.cells:
            before = self._statuses_before.get(cell.id, UNFINISHED)
            cells[cell.id] = self.statuses.get(cell.id, before)
        states = dict(self._states)
        # the next run must see what decided the rows that are in the folder
        if self._has_outdated:
            for name in self._outdated:
                del states[name]
                if name in self._states_before:
                    states[name] = self._states_before[name]
        plugins: dict[str, str] = {}
        for plugin in self._context.registry.plugins:
            plugins[f"{plugin.distribution}/{plugin.name}"] = plugin.version
        return {
            "name": recipe.name,
            "title": recipe.title,
            "profile": recipe.profile,
            "recipe": str(recipe.path) if recipe.path else None,
            "digest": recipe.digest,
            "id": self._folder_id,
            "seeds": sorted({cell.seed for cell in recipe.cells}),
            "versions": versions(),
            "plugins": plugins,
            "numerics": numerics(self._device),
            "machine": machine(self._device),
            "invocations": listed(self._invocations_before, self._invocation),
            # from any folder, for whoever opens the run from another one
            "store": str(self._context.store.root.absolute()),
            "cells": cells,
            "failures": self._failures,
            "cell_states": states,
            "inputs": self._inputs,
            "metrics": metric_units(recipe.cells),
            "figures": figure_names(recipe.cells),
            "loss_units": loss_units(recipe.cells),
            "keys": sorted(self.keys | self._keys_before),
        }

    def _position(self, cell: str, variant: str, level: int) -> Position:
        return self._cell_numbers[cell], self._variants[cell].index(variant), level

    def _is_known(self, cell: str, variant: str) -> bool:
        return variant in self._variants.get(cell, ())


def _of_cells(entries: Mapping[Position, Any], numbers: Set[int]) -> dict[Position, Any]:
    return {position: entry for position, entry in entries.items() if position[0] in numbers}


def reader_of(ticket: Ticket, path: Path, stats: MaskStats) -> Callable[[], Ticket]:
    """Return a function that reads the ticket from its file; until then no tensor is kept."""
    light = without_state(ticket)

    def load() -> TicketState:
        stored = load_ticket(path)
        return TicketState(stored.mask, stored.values, stats)

    def read() -> Ticket:
        return replace(light, source=TicketSource(Loaded(light.origin, load)))

    return read
