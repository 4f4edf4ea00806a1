"""Expands one study: its grid becomes checked cells; faults say where their value was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from lotteryfw.api.errors import Fault
from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.steps import Clock
from lotteryfw.recipe.axes import Axis, written_axes
from lotteryfw.recipe.compatibility import (
    check_analyses,
    check_batch_parts,
    check_compatible,
    check_levels,
    check_variants,
    misplaced_criteria,
    shared_slots,
    uses,
)
from lotteryfw.recipe.components import components_of
from lotteryfw.recipe.data_fit import check_data_fit
from lotteryfw.recipe.fault_collector import FaultCollector
from lotteryfw.recipe.grid_values import AUGMENT, entry_of, label_of_entry
from lotteryfw.recipe.grid_values import label as label
from lotteryfw.recipe.layered_table import Keys, LayeredTable, dotted
from lotteryfw.recipe.metrics import check_metrics
from lotteryfw.recipe.paths import is_below, value_at, with_value, without
from lotteryfw.recipe.pydantic_errors import MAX_PROBLEMS, Problem
from lotteryfw.recipe.replaced_values import lost_options, replaced_problems
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import (
    LEVEL_KEYS,
    OPTIONAL_SLOTS,
    SLOTS,
    TABLE_SLOTS,
    TRAIN_SLOTS,
    Engine,
    Evaluate,
    RandomnessTable,
    StudyTable,
    Table,
    Train,
)
from lotteryfw.recipe.start_files import read_network
from lotteryfw.recipe.targets import CHANGES_NOTHING, TargetSetup, target_setups
from lotteryfw.search.cell import Cell, ChosenLevels


@dataclass(frozen=True)
class Setup:
    """The parts of a cell except its coordinates, and the tables that they were made from."""

    parts: Mapping[str, Any]
    train: Train
    evaluate: Evaluate
    engine: Engine
    randomness: RandomnessTable
    targets: tuple[TargetSetup, ...]


class ExpandedStudy:
    """A study of a recipe, expanded: `cells` are its valid cells, `faults` its mistakes."""

    def __init__(self, name: str, tree: LayeredTable, resolver: ComponentResolver):
        self.name = name
        self.cells: list[Cell] = []
        # a dict is a set that keeps its order: a fault in many cells is reported once
        self.faults: dict[Fault, None] = {}
        self.axes: list[Axis] = []
        self._tree = tree
        self._resolver = resolver
        self._first_setup: Setup | None = None
        self._differing_targets: set[int] = set()
        self._study_table = StudyTable()
        _, problems = resolver.table(StudyTable, tree.table)
        self._report(problems)

        # The rest is checked without the faulty keys, so that all faults are reported at once.
        faulty = []
        for problem in problems:
            # one axis of a grid may be wrong and the others right
            length = 2 if problem.keys[:1] == ("grid",) else 1
            faulty.append(problem.keys[:length])
        self._table = without(tree.table, faulty)
        study_table, problems = resolver.table(StudyTable, self._table)
        if problems or study_table is None:
            # there are more faults than are reported one by one
            return
        self._study_table = study_table
        self.axes = self._checked_axes()
        self._shared_keys = self._shared_slot_keys()
        self._report(replaced_problems(self._table, self.axes, resolver))
        self._report(lost_options(self._table, self.axes, resolver))
        self._expand()
        self._check_targets()

    @property
    def tree(self) -> LayeredTable:
        """Its table, with the places where its values are written."""
        return self._tree

    @property
    def variants(self) -> list[str]:
        """The names that its searches record levels under, other than "ticket"."""
        # a dict, so that the order is that of the cells
        names: dict[str, None] = {}
        for cell in self.cells:
            names |= dict.fromkeys(cell.search.variants)
        return list(names)

    @property
    def controls(self) -> list[str]:
        """The names of its controls, under which their levels are recorded."""
        names: dict[str, None] = {}
        for cell in self.cells:
            names |= dict.fromkeys(control.use for control in cell.controls)
        return list(names)

    @property
    def targets(self) -> list[str]:
        """The names of its targets, under which their levels are recorded."""
        return [target.name for target in self.cells[0].targets] if self.cells else []

    @property
    def analyses(self) -> list[str]:
        """The names of its analyses."""
        names = []
        for entry in self._study_table.analyses:
            analysis, _ = self._resolver.component("analysis", entry)
            if analysis is not None:
                names.append(analysis.use)
        return names

    @property
    def metrics(self) -> list[str]:
        """The names of the figures that its metrics give (see `Cell.metric_units`)."""
        return list(self.cells[0].metric_units) if self.cells else []

    def locate(self, keys: Keys) -> tuple[str, str]:
        """Return the file and the key where something of the study is written."""
        where, written = self._tree.locate(keys)
        return where, dotted(written)

    def resolved(self) -> dict[str, Any]:
        """Return the study as a table with every default filled in. It loads to the same cells."""
        assert self._first_setup is not None, "a study with faults has nothing to resolve"
        parts = self._first_setup.parts
        train = self._first_setup.train
        full = self._resolver.full
        table: dict[str, Any] = {
            "name": self.name,
            "seeds": self._study_table.seeds,
            "controls": list(map(full, parts["controls"])),
            "analyses": list(map(full, parts["analyses"])),
        }
        # A run folder that was made before there were these keys stays the folder of its recipe.
        for key in LEVEL_KEYS:
            if (levels := getattr(self._study_table, key)) is not None:
                table[key] = levels
        for slot in (*TABLE_SLOTS, "parametrization", "scores"):
            # TOML has no null
            if parts[slot] is not None:
                table[slot] = full(parts[slot])

        table["train"] = {
            "length": str(train.length),
            "batch": train.batch,
            "precision": train.precision,
        }
        if train.accumulate > 1:
            table["train"]["accumulate"] = train.accumulate
        for slot in (*TRAIN_SLOTS, "mask_optimizer", "mask_update"):
            if parts[slot] is not None:
                table["train"][slot] = full(parts[slot])
        table["train"]["augment"] = list(map(full, parts["augment"]))

        table["evaluate"] = self._first_setup.evaluate.resolved()
        # A run folder that was made before there were metrics stays the folder of its recipe.
        if parts["metrics"]:
            table["evaluate"]["metrics"] = list(map(full, parts["metrics"]))
        table["engine"] = self._first_setup.engine.resolved()
        if parts["start"] is not None:
            # another folder may read it
            table["start"] = str(parts["start"].path.absolute())
        table["randomness"] = self._first_setup.randomness.model_dump(exclude_none=True)
        if self._first_setup.targets:
            targets = self._first_setup.targets
            table["target"] = [target.resolved(self._resolver) for target in targets]
        grid: dict[str, list[Any]] = {}
        for axis in self.axes:
            grid[axis.path] = []
            for value in axis.values:
                grid[axis.path].append(self._resolved_value(axis.keys, value))
        if grid:
            table["grid"] = grid
        return table

    def _resolved_value(self, keys: Keys, value: Any) -> Any:
        if keys == AUGMENT:
            return [self._resolved_entry("augmentation", entry) for entry in value]
        return self._resolved_entry(SLOTS[keys], value) if keys in SLOTS else value

    def _resolved_entry(self, kind: str, entry: Any) -> Any:
        # Without the other axes, an entry may lack a required option.
        component, _ = self._resolver.component(kind, entry)
        return entry if component is None else self._resolver.full(component)

    def _checked_axes(self) -> list[Axis]:
        """Return the axes of the grid whose path can vary, and report the others."""
        axes = []
        faults = FaultCollector()
        for keys, written, values in written_axes(self._study_table, faults):
            entries = [entry_of(keys, value, self._resolver) for value in values]
            labels = [label_of_entry(entry) for entry in entries]
            # two entries of one label would make two cells of one name
            for text, count in Counter(labels).items():
                if count > 1:
                    faults.at(*written).add(f"'{text}' is listed twice")
            axes.append(Axis(keys, values, entries, labels, written))
        self._report(faults.problems)
        return axes

    def _expand(self) -> None:
        """Make the cells of every combination of the grid, and report the faults of the others."""
        # A component is put before its options: "rewind" before "rewind.step".
        outside_in = sorted(range(len(self.axes)), key=lambda index: len(self.axes[index].keys))
        for chosen in product(*(range(len(axis.values)) for axis in self.axes)):
            table = self._table
            for index in outside_in:
                axis = self.axes[index]
                table = with_value(table, axis.keys, axis.values[chosen[index]])
            faults = FaultCollector()
            setup = self._setup(table, faults)
            self._report(faults.problems, chosen)
            if len(self.faults) > MAX_PROBLEMS:
                return  # nobody reads them all, and each takes a while to find
            if setup is not None:
                self._first_setup = self._first_setup or setup
                for target in setup.targets:
                    if target.differs:
                        self._differing_targets.add(target.index)
                self._add_cells(setup, chosen)

    def _check_targets(self) -> None:
        """Report targets that are the study itself in every cell: the grid may make some equal."""
        for target in self._first_setup.targets if self._first_setup else ():
            if target.index not in self._differing_targets:
                self._report([Problem(("target", target.index), *CHANGES_NOTHING)])

    def _add_cells(self, setup: Setup, chosen: Sequence[int]) -> None:
        """Add the cells of one combination: one for each seed."""
        parts = dict(setup.parts)
        for slot in OPTIONAL_SLOTS:
            # these keys are for other searches of the study
            if not uses(parts["search"], slot):
                parts[slot] = None
        labels = {}
        entries = {}
        stem = self.name
        for axis, index in zip(self.axes, chosen, strict=True):
            labels[axis.path] = axis.labels[index]
            entries[axis.path] = axis.entries[index]
            stem += f"/{axis.path}={axis.labels[index]}"
        for key in LEVEL_KEYS:
            if (levels := getattr(self._study_table, key)) is not None:
                parts[key] = ChosenLevels(frozenset(levels), self.locate((key,)))
        for seed in self._study_table.seeds:
            cell = Cell(
                study=self.name,
                id=f"{stem}/seed={seed}",
                axes=labels,
                axis_values=entries,
                seed=seed,
                read_file=read_network,
                **parts,
            )
            targets = tuple(target.of_cell(cell, self.locate) for target in setup.targets)
            self.cells.append(replace(cell, targets=targets) if targets else cell)

    def _setup(self, table: Mapping[str, Any], faults: FaultCollector) -> Setup | None:
        """Return the parts of the cells with this table, None if there are faults."""
        resolver = self._resolver
        parts = components_of(table, resolver, faults)

        def checked_table(model: type[Table], key: str) -> Any:
            return faults.at(key).value_of(resolver.table(model, table.get(key, {})))

        train: Train | None = checked_table(Train, "train")
        evaluate: Evaluate | None = checked_table(Evaluate, "evaluate")
        engine: Engine | None = checked_table(Engine, "engine")
        randomness: RandomnessTable | None = checked_table(RandomnessTable, "randomness")
        clock: Clock | None = None
        if train and engine:
            check_batch_parts(train, engine.devices, faults)
        if train and parts["data"]:
            clock = faults.value_of(resolver.clock(parts["data"], train.length, train.batch))
        if clock:
            self._check_lengths(parts, clock, faults)
            # a percentage of a short training may be less than a step
            if evaluate and evaluate.interval(clock) < 1:
                text = f"must be at least one step, got '{evaluate.every}'"
                faults.at("evaluate", "every").add(text)
        check_variants(parts, faults)
        check_analyses(parts, faults)
        check_levels(parts, table, faults)
        check_metrics(parts, resolver, faults)
        check_data_fit(parts, resolver, faults)
        start = faults.at("start").value_of(resolver.start_file(table.get("start")))

        # A faulty component is reported once, not also as one that others cannot use.
        faulty = {problem.keys[0] for problem in faults.problems}
        written = [keys for keys in SLOTS if value_at(table, keys) is not None]
        for problem in check_compatible(parts, written, resolver, self._shared_keys):
            if problem.keys[0] not in faulty:
                faults.add_all([problem])
        faults.add_all(misplaced_criteria(parts))
        if faults.problems or train is None or evaluate is None or engine is None or clock is None:
            return None
        if randomness is None:
            return None
        parts |= {"batch": train.batch, "clock": clock, "evaluate_every": evaluate.interval(clock)}
        parts |= {
            "kernel": engine.kernel,
            "sparse_below": engine.sparse_below,
            "precision": train.precision,
            "memory_format": engine.memory_format_for(train.precision),
            "accumulate": train.accumulate,
            "activation_checkpointing": engine.activation_checkpointing,
            "devices": engine.devices,
            "sync_batch_norm": engine.sync_batch_norm and engine.devices > 1,
            "deterministic": engine.deterministic,
            "compiled": engine.compile,
            "evaluate_train": evaluate.train,
        }
        parts |= {"randomness": randomness.randomness(), "start": start}
        formats = engine.memory_format_for
        targets = target_setups(table, parts, evaluate, formats, resolver, faults)
        if faults.problems:
            return None
        return Setup(parts, train, evaluate, engine, randomness, targets)

    def _check_lengths(
        self, parts: Mapping[str, Any], clock: Clock, faults: FaultCollector
    ) -> None:
        """Check that cycles, the rewind point and the schedule fit into the training."""
        resolver = self._resolver
        lengths: tuple[int, ...] | None = None
        if parts["search"]:
            lengths = faults.at("search").value_of(resolver.lengths(parts["search"], clock))
        if parts["rewind"]:
            # a search whose cycles are wrong is reported; its rewind point is held against the whole
            checked = resolver.rewind(parts["rewind"], clock, lengths or (clock.total,))
            faults.value_of(checked)
        if parts["mask_update"]:
            checked = resolver.mask_update(parts["mask_update"], clock)
            faults.at("train", "mask_update").value_of(checked)
        if parts["schedule"]:
            faults.at("train", "schedule").value_of(resolver.schedule(parts["schedule"], clock))

    def _shared_slot_keys(self) -> list[Keys]:
        """Return the keys of components that some search of the study uses.

        They are allowed beside its other searches.
        """
        entries: Sequence[Any] = [self._table.get("search")]
        for axis in self.axes:
            if axis.keys == ("search",):
                entries = axis.values
        searches: list[SearchAlgorithm | None] = []
        for entry in entries:
            # None: a search that is not complete without another axis
            search, _ = self._resolver.component("search", entry)
            searches.append(search if isinstance(search, SearchAlgorithm) else None)

        varied: set[Keys] = set()
        for axis in self.axes:
            # "train.mask_optimizer.lr" varies "train.mask_optimizer", which no longer is shared
            varied |= {axis.keys[:1], axis.keys[:2]}
        keys = [OPTIONAL_SLOTS[slot][0] for slot in shared_slots(searches)]
        return [key for key in keys if key not in varied]

    def _report(self, problems: Sequence[Problem], chosen: Sequence[int] = ()) -> None:
        """Add a fault for each problem; `chosen` has the index of each axis's value in these cells."""
        for problem in problems:
            where, keys = self._tree.locate(problem.keys)
            # If several axes set this key, the innermost is the one whose value counts.
            innermost = 0
            for axis, index in zip(self.axes, chosen, strict=False):
                if is_below(problem.keys, axis.keys) and len(axis.keys) > innermost:
                    innermost = len(axis.keys)
                    where, keys = self._tree.locate(axis.written)
                    keys = (*keys, index, *problem.keys[len(axis.keys) :])
            self.faults[Fault(where, dotted(keys), problem.text, problem.remedy)] = None
