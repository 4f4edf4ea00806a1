"""Expands one study: its grid becomes checked cells, its faults get the place they were written at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lotteryfw.api.errors import Fault, nearest
from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.steps import Clock
from lotteryfw.recipe.compatibility import check_compatible, shared_slots, uses
from lotteryfw.recipe.grid_values import AUGMENT, entry_of, label_of_entry
from lotteryfw.recipe.grid_values import label as label
from lotteryfw.recipe.layered_table import Keys, LayeredTable, dotted
from lotteryfw.recipe.pydantic_errors import MAX_PROBLEMS, Problem
from lotteryfw.recipe.resolve import ComponentResolver
from lotteryfw.recipe.schema import (
    OPTIONAL_SLOTS,
    POINTS,
    SLOTS,
    TABLE_SLOTS,
    TRAIN_SLOTS,
    Engine,
    Evaluate,
    StudyTable,
    Train,
)
from lotteryfw.search.cell import Cell


@dataclass(frozen=True)
class Axis:
    """A path that a grid varies, its values as written, and an entry and a label for each.

    An entry is plain data: of a component its name, and the options that differ from defaults.
    """

    keys: Keys
    values: Sequence[Any]
    entries: Sequence[Any]
    labels: Sequence[str]

    @property
    def path(self) -> str:
        return dotted(self.keys)


@dataclass(frozen=True)
class Setup:
    """The parts of a cell except its coordinates, and the tables that they were made from."""

    parts: Mapping[str, Any]
    train: Train
    evaluate: Evaluate
    engine: Engine


class ExpandedStudy:
    """A study of a recipe, expanded: `cells` are its valid cells, `faults` its mistakes."""

    def __init__(self, name: str, tree: LayeredTable, resolver: ComponentResolver):
        self.name = name
        self.cells: list[Cell] = []
        self.faults: dict[Fault, None] = {}  # a set that keeps its order
        self.axes: list[Axis] = []
        self._tree = tree
        self._resolver = resolver
        self._first: Setup | None = None
        self._body = StudyTable()
        _, problems = resolver.table(StudyTable, tree.table)
        self._report(problems)

        # The rest is checked without the faulty keys, so that all faults are reported at once.
        faulty = []
        for problem in problems:
            length = 2 if problem.keys[:1] == ("grid",) else 1
            faulty.append(problem.keys[:length])
        self._table = _without(tree.table, faulty)
        body, problems = resolver.table(StudyTable, self._table)
        if problems or body is None:  # there are more faults than are reported one by one
            return
        self._body = body
        self.axes = list(self._checked_axes())
        self._shared_keys = self._shared_slot_keys()
        self._check_replaced()
        self._expand()

    @property
    def variants(self) -> list[str]:
        """The names that its searches record levels under, other than "ticket"."""
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
    def analyses(self) -> list[str]:
        """The names of its analyses."""
        names = []
        for entry in self._body.analyses:
            analysis, _ = self._resolver.component("analysis", entry)
            if analysis is not None:
                names.append(analysis.use)
        return names

    def resolved(self) -> dict[str, Any]:
        """Return the study as a table with every default filled in. It loads to the same cells."""
        assert self._first is not None, "a study with faults has nothing to resolve"
        parts, train = self._first.parts, self._first.train
        full = self._resolver.full
        table: dict[str, Any] = {
            "name": self.name,
            "seeds": self._body.seeds,
            "controls": list(map(full, parts["controls"])),
            "analyses": list(map(full, parts["analyses"])),
        }
        for slot in (*TABLE_SLOTS, "parametrization", "scores"):
            if parts[slot] is not None:
                table[slot] = full(parts[slot])

        table["train"] = {"length": str(train.length), "batch": train.batch}
        for slot in (*TRAIN_SLOTS, "mask_optimizer"):
            if parts[slot] is not None:
                table["train"][slot] = full(parts[slot])
        table["train"]["augment"] = list(map(full, parts["augment"]))

        evaluate = self._first.evaluate
        if evaluate.every:
            table["evaluate"] = {"every": str(evaluate.every)}
        else:
            table["evaluate"] = {"points": evaluate.points or POINTS}
        table["engine"] = self._first.engine.model_dump(exclude_none=True)
        grid = {}
        for axis in self.axes:
            grid[axis.path] = [self._resolved_value(axis.keys, value) for value in axis.values]
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

    def _checked_axes(self) -> Iterator[Axis]:
        for path, values in self._body.grid.items():
            keys: Keys = tuple(path.split("."))
            if problem := check_grid_path(keys):
                self._report([Problem(("grid", path), *problem)])
                continue
            entries = [entry_of(keys, value, self._resolver) for value in values]
            labels = [label_of_entry(entry) for entry in entries]
            for text, count in Counter(labels).items():
                if count > 1:
                    self._report([Problem(("grid", path), f"'{text}' is listed twice")])
            yield Axis(keys, values, entries, labels)

    def _check_replaced(self) -> None:
        """Report mistakes in components that the grid replaces, and which no cell therefore has."""
        replaced = [axis for axis in self.axes if axis.keys in SLOTS or axis.keys == AUGMENT]
        _, problems = self._components(self._table)
        for problem in problems:
            # A missing key is no mistake: an axis may give it.
            is_written = _at(self._table, problem.keys) is not None
            if is_written and any(_below(problem.keys, axis) for axis in replaced):
                self._report([problem])

    def _expand(self) -> None:
        outside_in = sorted(range(len(self.axes)), key=lambda index: len(self.axes[index].keys))
        for chosen in product(*(range(len(axis.values)) for axis in self.axes)):
            table = self._table
            for index in outside_in:
                axis = self.axes[index]
                table = _put(table, axis.keys, axis.values[chosen[index]])
            setup, problems = self._setup(table)
            self._report(problems, chosen)
            if len(self.faults) > MAX_PROBLEMS:
                return  # nobody reads them all, and each takes a while to find
            if setup is None:
                continue
            self._first = self._first or setup

            parts = dict(setup.parts)
            for slot in OPTIONAL_SLOTS:
                if not uses(parts["search"], slot):
                    parts[slot] = None
            labels = {}
            entries = {}
            stem = self.name
            for axis, index in zip(self.axes, chosen, strict=True):
                labels[axis.path] = axis.labels[index]
                entries[axis.path] = axis.entries[index]
                stem += f"/{axis.path}={axis.labels[index]}"
            for seed in self._body.seeds:
                self.cells.append(
                    Cell(
                        study=self.name,
                        id=f"{stem}/seed={seed}",
                        axes=labels,
                        axis_values=entries,
                        seed=seed,
                        **parts,
                    )
                )

    def _components(self, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """Return the component of every slot, None for an invalid one, and the problems."""
        problems: list[Problem] = []

        def resolve(keys: Keys, kind: str, entry: Any) -> Any:
            return _kept(problems, keys, self._resolver.component(kind, entry))

        def resolve_list(keys: Keys, kind: str) -> tuple[Any, ...]:
            entries = _at(table, keys)
            if not isinstance(entries, list):
                return ()
            return tuple(
                resolve((*keys, index), kind, entry) for index, entry in enumerate(entries)
            )

        parts: dict[str, Any] = {}
        for slot in TABLE_SLOTS:
            parts[slot] = resolve((slot,), slot, table.get(slot))
        for slot in TRAIN_SLOTS:
            keys: Keys = ("train", slot)
            parts[slot] = resolve(keys, slot, _at(table, keys))
        for slot, (keys, kind) in OPTIONAL_SLOTS.items():
            entry = _at(table, keys)
            parts[slot] = None if entry is None else resolve(keys, kind, entry)
        parts["augment"] = resolve_list(AUGMENT, "augmentation")
        parts["controls"] = resolve_list(("controls",), "control")
        parts["analyses"] = resolve_list(("analyses",), "analysis")
        return parts, problems

    def _setup(self, table: Mapping[str, Any]) -> tuple[Setup | None, list[Problem]]:
        resolver = self._resolver
        parts, problems = self._components(table)

        def checked(keys: Keys, answer: tuple[Any, list[Problem]]) -> Any:
            return _kept(problems, keys, answer)

        train: Train | None = checked(("train",), resolver.table(Train, table.get("train", {})))
        evaluate: Evaluate | None = checked(
            ("evaluate",), resolver.table(Evaluate, table.get("evaluate", {}))
        )
        engine: Engine | None = checked(
            ("engine",), resolver.table(Engine, table.get("engine", {}))
        )
        clock: Clock | None = None
        if train and parts["data"]:
            clock = checked((), resolver.clock(parts["data"], train.length, train.batch))
        lengths: tuple[int, ...] | None = None
        if clock and parts["search"]:
            lengths = checked(("search",), resolver.lengths(parts["search"], clock))
        if clock and parts["rewind"]:
            checked((), resolver.rewind(parts["rewind"], clock, lengths or (clock.total,)))
        if clock and parts["schedule"]:
            checked(("train", "schedule"), resolver.schedule(parts["schedule"], clock))
        if clock and evaluate and evaluate.interval(clock) < 1:
            text = f"must be at least one step, got '{evaluate.every}'"
            problems.append(Problem(("evaluate", "every"), text))
        problems += _ambiguous_variants(parts)
        faulty = {problem.keys[0] for problem in problems}
        written = [keys for keys in SLOTS if _at(table, keys) is not None]
        for problem in check_compatible(parts, written, resolver, self._shared_keys):
            if problem.keys[0] not in faulty:
                problems.append(problem)
        if problems or train is None or evaluate is None or engine is None or clock is None:
            return None, problems
        parts |= {"batch": train.batch, "clock": clock, "evaluate_every": evaluate.interval(clock)}
        parts |= {"kernel": engine.kernel, "sparse_below": engine.sparse_below}
        return Setup(parts, train, evaluate, engine), problems

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

        varied = {axis.keys[:length] for axis in self.axes for length in (1, 2)}
        keys = [OPTIONAL_SLOTS[slot][0] for slot in shared_slots(searches)]
        return [key for key in keys if key not in varied]

    def _report(self, problems: Sequence[Problem], chosen: Sequence[int] = ()) -> None:
        for problem in problems:
            where, keys = self._tree.locate(problem.keys)
            # If several axes set this key, the innermost is the one whose value counts.
            innermost = 0
            for axis, index in zip(self.axes, chosen, strict=False):
                if _below(problem.keys, axis) and len(axis.keys) > innermost:
                    innermost = len(axis.keys)
                    where, keys = self._tree.locate(("grid", axis.path))
                    keys = (*keys, index, *problem.keys[len(axis.keys) :])
            self.faults[Fault(where, dotted(keys), problem.text, problem.remedy)] = None


def check_grid_path(keys: Keys) -> tuple[str, str] | None:
    """Return why a grid cannot vary this path, and a remedy; None if it can."""
    if keys in SLOTS or (
        len(keys) > 1 and keys[0] in (*TABLE_SLOTS, *OPTIONAL_SLOTS, "train", "evaluate", "engine")
    ):
        return None
    inside = [f"train.{name}" for name in Train.model_fields] + [
        f"evaluate.{name}" for name in Evaluate.model_fields
    ]
    inside += [f"engine.{name}" for name in Engine.model_fields]
    return "is not a key that a grid can vary", nearest(
        dotted(keys), [*TABLE_SLOTS, *OPTIONAL_SLOTS, *inside]
    )


def _kept(problems: list[Problem], keys: Keys, answer: tuple[Any, list[Problem]]) -> Any:
    """Return the answer's value, and add its problems to `problems`, as those of a table at `keys`."""
    value, below = answer
    for problem in below:
        problems.append(Problem((*keys, *problem.keys), problem.text, problem.remedy))
    return value


def _at(value: Any, keys: Keys) -> Any:
    """Return the value at this path of a table, or None."""
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _ambiguous_variants(parts: Mapping[str, Any]) -> list[Problem]:
    """Controls that would be recorded under a name that is already in use in their cell."""
    search = parts["search"]
    used = {"ticket": "what a search finds is"}
    for variant in search.variants if search else ():
        used[variant] = f"a network of the search '{search.use}' is"

    problems = []
    for index, control in enumerate(parts["controls"]):
        if control is None:
            continue
        if control.use in used:
            text = f"{used[control.use]} recorded under the name '{control.use}' already"
            problems.append(Problem(("controls", index), text, "each name can be used once"))
        used[control.use] = "another control is"
    return problems


def _below(keys: Keys, axis: Axis) -> bool:
    return keys[: len(axis.keys)] == axis.keys


def _without(table: Mapping[str, Any], faulty: Sequence[Keys]) -> dict[str, Any]:
    """The table without what stands at these paths, one or two keys long."""
    left = {key: each for key, each in table.items() if (key,) not in faulty}
    if isinstance(grid := left.get("grid"), Mapping):
        left["grid"] = {
            path: values for path, values in grid.items() if ("grid", path) not in faulty
        }
    return left


def _put(table: Mapping[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    key, *rest = keys
    if not rest:
        return {**table, str(key): value}
    below = table.get(str(key))
    if not isinstance(below, Mapping):
        below = {"use": below} if isinstance(below, str) else {}
    return {**table, str(key): _put(below, tuple(rest), value)}
