"""A study from recipe to run folder: `run_study` is what the command line and scripts call."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.api.errors import UsageError
from lotteryfw.api.events import RunFinished, RunStarted
from lotteryfw.api.kinds import Analysis
from lotteryfw.api.results import LevelResult
from lotteryfw.engine import (
    EngineContext,
    KernelDispatcher,
    configure_torch,
    exit_error,
    pick_device,
    use_gpu,
    visible_gpus,
)
from lotteryfw.engine.messages import Setup
from lotteryfw.engine.worker import patience
from lotteryfw.recipe import to_toml
from lotteryfw.runner.context import StudyContext
from lotteryfw.runner.device_slots import DeviceSlot, device_slots, gpu_groups
from lotteryfw.runner.executors import Executor, InProcess
from lotteryfw.runner.findings import checked_findings
from lotteryfw.runner.recorder import RunRecorder
from lotteryfw.runner.reporter import Listener, NoListener, Reporter
from lotteryfw.runner.results import Run, finding_line
from lotteryfw.runner.scheduler import Scheduler
from lotteryfw.runner.tables import Seals
from lotteryfw.runner.workers import Workers
from lotteryfw.search.cell import Cell
from lotteryfw.search.jobs import Spec, digest
from lotteryfw.search.lab import CellLab
from lotteryfw.store import RunFolder

OnStart = Callable[[Callable[[], None]], None]
"""Receives a function that asks the run to stop."""


def run_study(
    source: Path | str | Mapping[str, Any],
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    studies: Sequence[str] = (),
    out: Path | str | None = None,
    jobs: int | None = None,
    jobs_per_device: int | None = None,
    device: str = "auto",
    trust: Sequence[Path | str] = (),
    components: Sequence[type[Component]] = (),
    data: Path | str | None = None,
    store: Path | str | None = None,
    checkpoint_seconds: float = 60.0,
    listener: Listener | None = None,
    on_start: OnStart | None = None,
) -> Run:
    """Run a recipe into its folder, without display and report (see `lotteryfw.run`)."""
    try:
        context = StudyContext(
            source, profile=profile, sets=sets, studies=studies, trust=trust,
            components=components, data=data, store=store,
        )  # fmt: skip
        kind = pick_device(device)
        use_gpu(device)
        # Before the first tensor: torch reads its number of threads once.
        configure_torch()
        context.validate_precision(kind)
        context.validate(kind)
        context.require_store()
        # for a wrong setting: workers read it when the folder is there
        patience()
        gpus = gpu_groups(visible_gpus(device), context.devices)
        slots = _slots(context, jobs, jobs_per_device, kind, gpus)
        context.validate_memory(kind, max(slot.processes for slot in slots))
        folder = Path(out) if out else context.default_out()
        study = StudyRun(context, kind, slots, folder, listener or NoListener())
        return study.run(checkpoint_seconds, on_start)
    except SystemExit as error:
        raise exit_error(error) from error


def likely_device() -> str:
    """Return the kind of device that "auto" would pick, judged by the driver's device file."""
    # torch would know, and take seconds to import
    return "cuda" if Path("/dev/nvidia0").exists() else "cpu"


def _slots(
    context: StudyContext,
    jobs: int | None,
    jobs_per_device: int | None,
    device: str,
    gpus: Sequence[str],
) -> list[DeviceSlot]:
    """Return the devices of a run with the number of processes on each.

    Raises UsageError for numbers that cannot be.
    """
    for name, number in (("jobs", jobs), ("jobs_per_device", jobs_per_device)):
        if number is not None and (type(number) is not int or number < 1):
            raise UsageError(f"{name}: must be an integer of at least 1, not {number!r}")
    if jobs is not None and jobs_per_device is not None:
        raise UsageError(
            "jobs and jobs_per_device say the same in two ways: give jobs for all processes "
            "together, or jobs_per_device for those of each GPU"
        )
    if jobs_per_device is not None and not gpus:
        raise UsageError("jobs_per_device: is for GPUs, and this run is on the CPU; use jobs")

    wanted = jobs if jobs_per_device is None else jobs_per_device * len(gpus)
    session = context.registry.session_names
    if session and wanted not in (None, 1):
        raise UsageError(
            f"jobs = {wanted}: the components {', '.join(session)} are defined in this session, "
            "and worker processes cannot import them; use jobs=1, or a plugin file with trust=[…]"
        )
    if session:
        wanted = 1
    processes = wanted or _default_jobs(context, device, len(gpus))
    return device_slots(processes, gpus)


def _default_jobs(context: StudyContext, device: str, gpus: int) -> int:
    if device == "cpu":
        # A training on several devices has a process for each.
        return max(1, min(cores() // context.devices, len(context.recipe.cells)))
    # Several processes on one GPU take turns, and each holds a context of several hundred MB.
    return max(1, gpus)


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how many physical cores this process may use, as far as the system says.

    Two threads of one core do this work hardly faster than one.
    """

    def core(number: int) -> str:
        siblings = topology / f"cpu{number}" / "topology" / "thread_siblings_list"
        return siblings.read_text() if siblings.is_file() else str(number)

    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    return len({core(number) for number in allowed})


class StudyRun:
    """One run of one recipe into one folder."""

    def __init__(
        self,
        context: StudyContext,
        device: str,
        slots: Sequence[DeviceSlot],
        out: Path,
        listener: Listener,
    ):
        """`device` is the kind of the devices of `slots`."""
        self._context = context
        self._device = device
        self._slots = slots
        self._in_process = sum(slot.processes for slot in slots) == 1
        # Beside workers this process trains nothing, and takes no memory on a GPU.
        own_device = device if self._in_process else "cpu"
        self._workshop = EngineContext(
            context.registry, context.data_folder, own_device, context.store
        )
        self._choose_kernel = KernelDispatcher(self._workshop)
        self._plan = context.plan(device)
        self._folder = RunFolder(out)
        # Of the folder, too: one recipe may run into two folders at once.
        self._id = f"{context.recipe.name}-{digest(str(out.resolve()))[:12]}"
        self._seals = Seals(self._folder)
        self._reporter = Reporter(self._folder, context.registry, listener)
        self._recorder = RunRecorder(
            context,
            device,
            self._id,
            self._folder,
            self._seals,
            self._reporter,
            self._workshop.decoded,
        )

    def run(self, checkpoint_seconds: float, on_start: OnStart | None) -> Run:
        """Run every cell to its end, then write the results.

        Raises Interrupted, StoreError, DataError.
        """
        recipe = self._context.recipe
        resolved = to_toml(recipe.resolved())
        store, folder = self._context.store, self._folder.path
        with store.active(self._id), _without_traces(folder), RunFolder.claimed(folder, resolved):
            # Before anything is written: a run that is refused leaves no folder.
            self._check_data()
            for warning in self._context.warnings:
                self._reporter.warning(warning)
            self._seals.begin(self._reporter.warning)
            RunFolder.create(folder, recipe.source_text, resolved)
            try:
                self._run(checkpoint_seconds, on_start)
            finally:
                self._reporter.close()
        self._report_store()
        return Run(self._folder.path)

    def _run(self, checkpoint_seconds: float, on_start: OnStart | None) -> None:
        context, recorder = self._context, self._recorder
        cells, folder = context.recipe.cells, str(self._folder.path)
        with self._executor(checkpoint_seconds) as executor:
            scheduler = Scheduler(context, executor, self._open_lab, recorder, self._plan.keys)
            self._reporter.begin()
            recorder.recall()
            if on_start:
                on_start(scheduler.stop)
            self._reporter.event(
                RunStarted(
                    context.recipe.name,
                    folder,
                    len(cells),
                    self._plan.unique,
                    self._plan.steps_to_do,
                    " or ".join(dict.fromkeys(cell.objective.figure_name for cell in cells)),
                )
            )
            try:
                scheduler.run(cells)
                self._analyse_across()
                recorder.drop_stale()
            finally:
                # Also where the run was stopped or ended by an error: nothing finished is lost.
                recorder.write()
                self._seals.end()
            statuses = list(recorder.statuses.values())
            failed, diverged = statuses.count("failed"), statuses.count("diverged")
            self._reporter.event(RunFinished(folder, len(cells), failed, diverged))

    def _report_store(self) -> None:
        """Report what the store found damaged, and its other notices."""
        store = self._context.store
        # After the run: an object shows its damage only when a cell reads it.
        for key in store.damaged:
            self._reporter.warning(
                f"a damaged object of the store was set aside and computed again: {key}"
            )
        for notice in store.notices:
            self._reporter.warning(notice)

    def _check_data(self) -> None:
        """Raise DataError where data is absent, or unusable with an objective."""
        context = self._context
        pairs: dict[str, tuple[Spec, Spec]] = {}
        for cell in context.recipe.cells:
            for own in (cell, *(target.cell for target in cell.targets)):
                data = context.describe(own.data, own.clock)
                objective = context.describe(own.objective, own.clock)
                # Cells share few pairs, and preparing a data set reads all of it.
                pairs[digest([data.canonical(), objective.canonical()])] = (data, objective)
        for data, objective in pairs.values():
            self._workshop.dataset(data, objective)

    @contextmanager
    def _executor(self, checkpoint_seconds: float) -> Iterator[Executor]:
        """Yield what runs the jobs."""
        context = self._context
        executor: Executor
        if self._in_process:
            executor = InProcess(
                context.store, self._workshop, self._reporter.progress, checkpoint_seconds
            )
        else:
            setup = Setup(
                context.store.root,
                context.data_folder,
                self._device,
                context.trust,
                checkpoint_seconds,
            )
            log = self._folder.path / "workers.log"
            executor = Workers(self._slots, context.store, setup, self._reporter, log)
        try:
            yield executor
        finally:
            executor.close()

    def _open_lab(self, cell: Cell) -> CellLab:
        context = self._context
        return CellLab(
            cell,
            context.describe,
            context.data_folder,
            self._device,
            self._choose_kernel,
            self._plan.snapshots,
            context.engine,
        )

    def _analyse_across(self) -> None:
        """Ask the analyses of each study about all its cells together."""
        levels: dict[str, list[LevelResult]] = {}
        analyses: dict[str, list[Analysis]] = {}
        for cell in self._context.recipe.cells:
            if cell.id in self._recorder.levels:
                levels.setdefault(cell.study, []).extend(self._recorder.levels[cell.id])
                # Compared and not hashed: an option that is a list cannot be hashed.
                known = analyses.setdefault(cell.study, [])
                known += [analysis for analysis in cell.analyses if analysis not in known]
        for study, results in levels.items():
            for analysis in analyses[study]:
                self._analyse_study(study, analysis, results)

    def _analyse_study(self, study: str, analysis: Analysis, levels: list[LevelResult]) -> None:
        """Ask one analysis about the levels of a study; where it breaks, report it and go on."""
        try:
            findings = checked_findings(analysis.across(levels))
            lines = [finding_line(analysis.use, finding) for finding in findings]
        except (Exception, SystemExit) as error:
            # Every cell is done by now, so the others' results are kept.
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, SystemExit):
                reason = str(exit_error(error))
            provider = self._context.provider(analysis)
            self._recorder.traceback(traceback.format_exc())
            self._recorder.warning(
                f"analysis '{analysis.use}' of {provider} broke across the levels of study "
                f"{study}: {reason}"
            )
        else:
            self._recorder.analysed_across(study, analysis.use, lines)
            for finding in findings:
                self._reporter.finding(analysis.use, finding)


@contextmanager
def _without_traces(path: Path) -> Iterator[None]:
    """Remove the folders made meanwhile for a run that was refused, where nothing is in them."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            if folder.is_dir() and all(entry.name.startswith(".") for entry in folder.iterdir()):
                for entry in folder.iterdir():
                    entry.unlink()
                folder.rmdir()
