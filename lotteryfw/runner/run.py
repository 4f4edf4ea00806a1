"""A study from recipe to run folder: `run` is what the command line calls, and what a script can call."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import tomli_w

from lotteryfw.cell import Cell
from lotteryfw.component import Component
from lotteryfw.engine import Workshop, pick_device, settle_process
from lotteryfw.jobs import Spec, digest, numerics
from lotteryfw.lab import Lab
from lotteryfw.recipe import Recipe, load_recipe
from lotteryfw.registry import Registry
from lotteryfw.runner.drive import Driver, Interrupted, Level
from lotteryfw.runner.executors import Executor, InProcess, Setup, Workers
from lotteryfw.runner.plan import DryLab, Plan, plan
from lotteryfw.steps import Clock
from lotteryfw.store import LevelRow, RunFolder, Store, default_root, find_runs, save_ticket
from lotteryfw.views import CellFinished, Event, LevelFinished, RunFinished, RunStarted

if TYPE_CHECKING:
    import pandas

_HOOKS = {
    "RunStarted": "run_started",
    "JobFinished": "job_finished",
    "LevelFinished": "level_finished",
    "LayerCollapsed": "layer_collapsed",
    "CellFinished": "cell_finished",
    "RunFinished": "run_finished",
}
_REWRITE_SECONDS = 2.0
"""How often at most levels.csv is written anew while a study runs."""


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


class Levels(list[LevelRow]):
    """The rows of levels.csv, in order."""

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a DataFrame, the grid's axes as columns. Needs pandas."""
        import pandas

        plain = [asdict(row) for row in self]
        return pandas.DataFrame([{**{k: v for k, v in row.items() if k != "axes"}, **row["axes"]} for row in plain])


class Run:
    """A run folder, read: `levels`, `manifest`, `statuses` of the cells."""

    def __init__(self, path: Path | str):
        self.folder = RunFolder(Path(path))
        self.path = self.folder.path

    @property
    def levels(self) -> Levels:
        """The typed rows of levels.csv."""
        return Levels(self.folder.read_levels())

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, machine, seeds and keys."""
        return self.folder.read_manifest()

    @property
    def statuses(self) -> dict[str, str]:
        """How each cell ended: done, diverged or failed."""
        found: dict[str, str] = self.manifest.get("cells", {})
        return found

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def default_data_folder() -> Path:
    """Where data sets are looked for unless a command says otherwise: $LOTTERYFW_DATA, or the user's cache folder."""
    if named := os.environ.get("LOTTERYFW_DATA"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("lotteryfw") / "data"


class Desk:
    """What the commands about one recipe share: registry, recipe, store, folders, device. Nothing is trained by it.

    Raises RecipeError with all faults, UsageError, StoreError, PluginError.
    """

    def __init__(
        self,
        source: Path | str | Mapping[str, Any],
        *,
        profile: str | None = None,
        sets: Sequence[str] = (),
        trust: Sequence[Path] = (),
        data: Path | None = None,
        store: Path | None = None,
    ):
        self.registry = Registry.load(list(trust))
        self.trust = tuple(trust)
        self.data_folder = data or default_data_folder()
        self.store = Store(store or default_root())
        self.recipe: Recipe = load_recipe(
            source, self.registry, data_folder=self.data_folder, profile=profile, sets=sets
        )
        self._specs: dict[tuple[int, int, int], tuple[Component, Spec]] = {}

    def describe(self, component: Component, clock: Clock) -> Spec:
        """A component as jobs name it."""
        place = (id(component), clock.total, clock.steps_per_epoch)
        if place not in self._specs:  # the component is kept with its spec, so its id stays its own
            offer = self.registry.offer_of(component)
            spec = Spec(offer.kind, offer.full_name, offer.provider, component.options(clock))
            self._specs[place] = (component, spec)
        return self._specs[place][1]

    def plan(self, device: str = "cpu") -> Plan:
        """What the recipe asks for. Does not import torch."""
        return plan(self.recipe.cells, self.describe, self.store, self.data_folder, device)

    def default_out(self) -> Path:
        """runs/NAME-DIGEST: one folder for one resolved recipe, so the same command finds its own run again."""
        parts = [self.recipe.name, *([self.recipe.profile] if self.recipe.profile else []), self.recipe.digest[:8]]
        return Path("runs") / "-".join(parts)


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
    `jobs` worker processes of one thread each; None: as many as there are processors and cells (one on a GPU).
    `on_start` is given a function that asks the run to stop at a safe point, which then raises Interrupted.

    >>> run("recipes/quickstart.toml").levels.to_pandas()  # doctest: +SKIP
    """
    desk = Desk(source, profile=profile, sets=sets, trust=trust, data=data, store=store)
    kind = pick_device(device)
    settle_process()
    return Study(desk, kind, Path(out) if out else desk.default_out(), listener or _Nobody()).run(
        jobs or _default_jobs(kind, len(desk.recipe.cells)), checkpoint_seconds, on_start
    )


def _default_jobs(device: str, cells: int) -> int:
    return 1 if device != "cpu" else max(1, min(len(os.sched_getaffinity(0)), cells))


class Study:
    """One run of one recipe into one folder."""

    def __init__(self, desk: Desk, device: str, out: Path, listener: Listener):
        self._desk, self._device, self._listener = desk, device, listener
        self._rows: dict[tuple[int, int, int], LevelRow] = {}
        self._written = 0.0
        self._places = {cell.id: number for number, cell in enumerate(desk.recipe.cells)}
        self._errors = 0
        recipe = desk.recipe
        self._folder = RunFolder.create(out, recipe.source_text, tomli_w.dumps(recipe.resolved()))

    def run(self, jobs: int, checkpoint_seconds: float, on_start: Callable[[Callable[[], None]], None] | None) -> Run:
        """Every cell to its end, then the figures of the run. Raises Interrupted, StoreError, DataError."""
        desk, recipe = self._desk, self._desk.recipe
        run_id = f"{recipe.name}-{digest(str(self._folder.path.resolve()))[:12]}"
        with desk.store.active(run_id), self._executor(jobs, checkpoint_seconds) as executor:
            driver = Driver(
                desk.store, executor, self._open_lab, self._emit, self._level, self._trouble, self._snapshots()
            )
            if on_start:
                on_start(driver.stop)
            trainings = desk.plan(self._device).unique
            self._emit(RunStarted(recipe.name, str(self._folder.path), len(recipe.cells), trainings))
            try:
                driver.run(recipe.cells)
            finally:
                self._folder.write_levels(self._ordered())
                self._folder.write_manifest(self._manifest(driver))
                desk.store.pin(run_id, self._folder.path, driver.keys)
            counts = [list(driver.statuses.values()).count(status) for status in ("failed", "diverged")]
            self._emit(RunFinished(str(self._folder.path), len(recipe.cells), *counts))
        for key in desk.store.damaged:
            self._listener.trouble(f"a damaged object of the store was set aside and computed again: {key}")
        return Run(self._folder.path)

    @contextmanager
    def _executor(self, jobs: int, checkpoint_seconds: float) -> Iterator[Executor]:
        desk = self._desk
        shop = Workshop(desk.registry, desk.data_folder, self._device)
        for spec in {digest(spec.canonical()): spec for spec in map(self._data_spec, desk.recipe.cells)}.values():
            shop.feed(spec)  # absent or unusable data is refused here, before any training
        executor: Executor
        if jobs == 1:
            executor = InProcess(desk.store, shop, self._listener.progress, checkpoint_seconds)
        else:
            setup = Setup(desk.store.root, desk.data_folder, self._device, desk.trust, checkpoint_seconds)
            log = self._folder.path / "workers.log"
            executor = Workers(jobs, desk.store, setup, self._listener.progress, log)
        try:
            yield executor
        finally:
            executor.close()

    def _data_spec(self, cell: Cell) -> Spec:
        return self._desk.describe(cell.data, cell.clock)

    def _open_lab(self, cell: Cell) -> Lab:
        return Lab(cell, self._desk.describe, self._desk.data_folder, self._device)

    def _snapshots(self) -> dict[str, frozenset[int]]:
        """Which states each dense training (by origin) will be asked for, over all cells."""
        wanted: dict[str, frozenset[int]] = {}
        for cell in self._desk.recipe.cells:
            lab = DryLab(cell, self._desk.describe, self._desk.data_folder, self._device)
            dense = lab.job(lab.dense())
            if dense.snapshots:
                wanted[dense.origin] = wanted.get(dense.origin, frozenset()) | dense.snapshots
        return wanted

    # What happens on the way

    def _emit(self, event: Event) -> None:
        name = _HOOKS[type(event).__name__]
        told = asdict(event)
        if isinstance(event, LevelFinished):
            del told["metrics"]["curve"]  # the store has it
        self._folder.append_event({"event": name, "time": round(time.time(), 3), **told})
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
        self._listener.trouble(message)

    def _level(self, level: Level) -> None:
        arms = ("ticket", *level.cell.controls)
        place = (self._places[level.cell.id], arms.index(level.arm), level.level)
        self._rows[place] = level_row(level)
        name = f"{level.cell.id.replace('/', '__')}/level-{level.level:02}"
        suffix = "" if level.arm == "ticket" else f"-{level.arm}"
        meta = {"study": level.cell.study, "cell": level.cell.id, "arm": level.arm, "key": level.key}
        save_ticket(self._folder.ticket_path(name + suffix), level.ticket, meta)
        if time.monotonic() - self._written > _REWRITE_SECONDS:
            self._folder.write_levels(self._ordered())
            self._written = time.monotonic()

    def _ordered(self) -> list[LevelRow]:
        return [self._rows[place] for place in sorted(self._rows)]

    def _manifest(self, driver: Driver) -> dict[str, Any]:
        recipe, registry = self._desk.recipe, self._desk.registry
        packages = ("lotteryfw", "torch", "torchvision", "numpy", "pydantic", "pluggy", "safetensors")
        return {
            "name": recipe.name,
            "title": recipe.title,
            "profile": recipe.profile,
            "recipe": str(recipe.path) if recipe.path else None,
            "digest": recipe.digest,
            "seeds": sorted({cell.seed for cell in recipe.cells}),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "plugins": {f"{plugin.distribution}/{plugin.name}": plugin.version for plugin in registry.plugins},
            "numerics": numerics(self._device),
            "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
            "store": str(self._desk.store.root),
            "cells": driver.statuses,
            "keys": sorted(driver.keys),
        }


def level_row(level: Level) -> LevelRow:
    """A level as a row of levels.csv."""
    ticket, metrics, cell = level.ticket, level.metrics, level.cell
    cut = ticket.cut
    kept = dict(cut.kept) if cut else {name: mask.numel() for name, mask in ticket.mask.items()}
    sizes = {name: mask.numel() for name, mask in ticket.mask.items()}

    def figure(name: str) -> Any:
        return None if metrics is None else getattr(metrics, name)

    return LevelRow(
        study=cell.study,
        cell=cell.id,
        arm=level.arm,
        seed=cell.seed,
        level=level.level,
        status="diverged" if metrics is None else "done",
        density=sum(kept.values()) / sum(sizes.values()),
        requested_density=cut.requested_density if cut else 1.0,
        weights_kept=sum(kept.values()),
        weights_total=sum(sizes.values()),
        steps=metrics.steps if metrics else 0,
        early_stop_step=metrics.early_stop_step if metrics else 0,
        validation_loss=figure("validation_loss"),
        validation_accuracy=figure("validation_accuracy"),
        test_loss=figure("test_loss"),
        test_accuracy=figure("test_accuracy"),
        early_validation_loss=figure("early_validation_loss"),
        early_validation_accuracy=figure("early_validation_accuracy"),
        early_test_loss=figure("early_test_loss"),
        early_test_accuracy=figure("early_test_accuracy"),
        layer_densities=";".join(f"{name}={kept[name] / sizes[name]:.6g}" for name in kept),
        key=level.key,
        axes=dict(cell.axes),
    )


def runs(folder: Path) -> list[Run]:
    """The runs in a folder, by name."""
    return [Run(found.path) for found in find_runs(folder)]


__all__ = ["Desk", "Interrupted", "Levels", "Listener", "Run", "default_data_folder", "run", "runs"]
