"""One study: its grid multiplied out into checked cells, its faults placed where they were said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from lotteryfw.api.errors import Fault, nearest
from lotteryfw.api.kinds import SearchAlgorithm
from lotteryfw.api.steps import Clock
from lotteryfw.recipe.compatibility import check_compatible, check_rewind_is_named
from lotteryfw.recipe.layered_table import Keys, LayeredTable, dotted
from lotteryfw.recipe.pydantic_errors import MAX_PROBLEMS, Problem
from lotteryfw.recipe.resolve import ComponentResolver, label_of
from lotteryfw.recipe.schema import (
    MASK_SLOTS,
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

AUGMENT = ("train", "augment")


@dataclass(frozen=True)
class Axis:
    """A path that a grid varies, its values as written, and a label for each."""

    keys: Keys
    values: Sequence[Any]
    labels: Sequence[str]

    @property
    def path(self) -> str:
        return dotted(self.keys)


@dataclass(frozen=True)
class Setup:
    """Everything of a cell but its coordinates, and the fixed parts it was made from."""

    parts: Mapping[str, Any]
    train: Train
    evaluate: Evaluate
    engine: Engine


class ExpandedStudy:
    """A study of a recipe. `faults` is what is wrong with it; `cells` are those that nothing is wrong with."""

    def __init__(self, name: str, tree: LayeredTable, resolver: ComponentResolver):
        self.name = name
        self.cells: list[Cell] = []
        self.faults: dict[Fault, None] = {}  # a set that keeps its order
        self.axes: list[Axis] = []
        self._tree = tree
        self._resolver = resolver
        self._first: Setup | None = None
        self._body = StudyTable()
        _, found = resolver.table(StudyTable, tree.table)
        self._report(found)
        # what is left without the faulty keys is looked at too, so that all faults come at once
        self._table = _without(
            tree.table,
            [each.keys[:2] if each.keys[:1] == ("grid",) else each.keys[:1] for each in found],
        )
        body, more = resolver.table(StudyTable, self._table)
        if more or body is None:  # there are more faults than are told one by one
            return
        self._body = body
        self.axes = list(self._checked_axes())
        self._shared_keys = self._shared_mask_keys()
        self._check_replaced()
        self._expand()

    @property
    def variants(self) -> list[str]:
        """What its searches record beside their tickets."""
        return list(
            dict.fromkeys(variant for cell in self.cells for variant in cell.search.variants)
        )

    @property
    def analyses(self) -> list[str]:
        """Those it asks for, by the names that their findings have."""
        made = [self._resolver.component("analysis", entry)[0] for entry in self._body.analyses]
        return [analysis.use for analysis in made if analysis]

    def resolved(self) -> dict[str, Any]:
        """The study as a table in which nothing is left to defaults. Loads to the same cells."""
        assert self._first is not None, "a study with faults has nothing to resolve"
        parts, train = self._first.parts, self._first.train
        full = self._resolver.full
        said = self._first.evaluate
        evaluate = {"every": str(said.every)} if said.every else {"points": said.points or POINTS}
        grid = {
            axis.path: [self._resolved_value(axis.keys, value) for value in axis.values]
            for axis in self.axes
        }
        return {
            "name": self.name,
            "seeds": self._body.seeds,
            "controls": [full(each) for each in parts["controls"]],
            "analyses": [full(each) for each in parts["analyses"]],
            **{slot: full(parts[slot]) for slot in TABLE_SLOTS},
            **{slot: full(parts[slot]) for slot in ("parametrization", "scores") if parts[slot]},
            "train": {
                "length": str(train.length),
                "batch": train.batch,
                **{slot: full(parts[slot]) for slot in TRAIN_SLOTS},
                **(
                    {"mask_optimizer": full(parts["mask_optimizer"])}
                    if parts["mask_optimizer"]
                    else {}
                ),
                "augment": [full(each) for each in parts["augment"]],
            },
            "evaluate": evaluate,
            "engine": self._first.engine.model_dump(exclude_none=True),
            **({"grid": grid} if grid else {}),
        }

    def _resolved_value(self, keys: Keys, value: Any) -> Any:
        if keys == AUGMENT:
            return [self._resolved_entry("augmentation", each) for each in value]
        return self._resolved_entry(SLOTS[keys], value) if keys in SLOTS else value

    def _resolved_entry(self, kind: str, entry: Any) -> Any:
        # alone it may lack an option that another axis gives
        component, _ = self._resolver.component(kind, entry)
        return entry if component is None else self._resolver.full(component)

    def _checked_axes(self) -> Iterator[Axis]:
        for path, values in self._body.grid.items():
            keys: Keys = tuple(path.split("."))
            if problem := check_grid_path(keys):
                self._report([Problem(("grid", path), *problem)])
                continue
            labels = [label(keys, value, self._resolver) for value in values]
            for twice in (text for text, count in Counter(labels).items() if count > 1):
                self._report([Problem(("grid", path), f"'{twice}' is listed twice")])
            yield Axis(keys, values, labels)

    def _check_replaced(self) -> None:
        """Reports what is wrong with components that the grid replaces: no cell has them, but somebody wrote them."""
        replaced = [axis for axis in self.axes if axis.keys in SLOTS or axis.keys == AUGMENT]
        _, found = self._components(self._table)
        # what is not said may be what an axis gives
        self._report(
            [
                each
                for each in found
                if any(_below(each.keys, axis) for axis in replaced)
                and _at(self._table, each.keys) is not None
            ]
        )

    def _expand(self) -> None:
        outside_in = sorted(range(len(self.axes)), key=lambda place: len(self.axes[place].keys))
        for chosen in product(*(range(len(axis.values)) for axis in self.axes)):
            table = self._table
            for place in outside_in:
                table = _put(table, self.axes[place].keys, self.axes[place].values[chosen[place]])
            setup, found = self._setup(table)
            self._report(found, chosen)
            if (
                len(self.faults) > MAX_PROBLEMS
            ):  # nobody reads them all, and each takes a while to find
                return
            if setup is None:
                continue
            self._first = self._first or setup
            parts = (
                setup.parts
                if setup.parts["search"].learns_masks
                else {**setup.parts, **dict.fromkeys(MASK_SLOTS)}
            )
            labels = {
                axis.path: axis.labels[index] for axis, index in zip(self.axes, chosen, strict=True)
            }
            stem = "/".join([self.name, *(f"{path}={label}" for path, label in labels.items())])
            for seed in self._body.seeds:
                self.cells.append(
                    Cell(
                        study=self.name,
                        id=f"{stem}/seed={seed}",
                        axes=labels,
                        seed=seed,
                        **parts,
                    )
                )

    def _components(self, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """The component of every slot, None for one that something is wrong with."""
        found: list[Problem] = []

        def made(keys: Keys, kind: str, entry: Any) -> Any:
            return _kept(found, keys, self._resolver.component(kind, entry))

        given = table.get("train", {})
        parts = {slot: made((slot,), slot, table.get(slot)) for slot in TABLE_SLOTS}
        parts |= {slot: made(("train", slot), slot, given.get(slot)) for slot in TRAIN_SLOTS}
        parts |= {
            slot: made(keys, kind, _at(table, keys)) if _at(table, keys) is not None else None
            for slot, (keys, kind) in MASK_SLOTS.items()
        }

        def listed(keys: Keys, kind: str, entries: Any) -> Any:
            given = entries if isinstance(entries, list) else []
            return tuple(made((*keys, place), kind, entry) for place, entry in enumerate(given))

        parts["augment"] = listed(AUGMENT, "augmentation", given.get("augment"))
        parts["controls"] = listed(("controls",), "control", table.get("controls"))
        parts["analyses"] = listed(("analyses",), "analysis", table.get("analyses"))
        return parts, found

    def _setup(self, table: Mapping[str, Any]) -> tuple[Setup | None, list[Problem]]:
        resolver = self._resolver
        parts, found = self._components(table)

        def checked(keys: Keys, answer: tuple[Any, list[Problem]]) -> Any:
            return _kept(found, keys, answer)

        given = table.get("train", {})
        train: Train | None = checked(("train",), resolver.table(Train, given))
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
            if "rewind" not in table:
                found += check_rewind_is_named(parts["search"], lengths or ())
        if clock and parts["rewind"]:
            checked((), resolver.rewind(parts["rewind"], clock, lengths or (clock.total,)))
        if clock and parts["schedule"]:
            checked(("train", "schedule"), resolver.schedule(parts["schedule"], clock))
        if clock and evaluate and evaluate.interval(clock) < 1:
            found.append(
                Problem(("evaluate", "every"), f"must be at least one step, got '{evaluate.every}'")
            )
        found += _ambiguous_variants(parts)
        faulty = {each.keys[0] for each in found}
        found += [
            each
            for each in check_compatible(parts, resolver, self._shared_keys)
            if each.keys[0] not in faulty
        ]
        if found or train is None or evaluate is None or engine is None or clock is None:
            return None, found
        parts |= {"batch": train.batch, "clock": clock, "evaluate_every": evaluate.interval(clock)}
        parts |= {"kernel": engine.kernel, "sparse_below": engine.sparse_below}
        return Setup(parts, train, evaluate, engine), found

    def _shared_mask_keys(self) -> list[Keys]:
        """What of learned masks is said once for the whole study, and so for those of its searches that learn masks."""
        entries = next(
            (axis.values for axis in self.axes if axis.keys == ("search",)),
            [self._table.get("search")],
        )
        searches = [self._resolver.component("search", entry)[0] for entry in entries]
        # one that another axis completes is given the benefit of the doubt
        if not any(
            not isinstance(search, SearchAlgorithm) or search.learns_masks for search in searches
        ):
            return []
        varied = {axis.keys[:length] for axis in self.axes for length in (1, 2)}
        return [keys for keys, _ in MASK_SLOTS.values() if keys not in varied]

    def _report(self, found: Sequence[Problem], chosen: Sequence[int] = ()) -> None:
        for problem in found:
            where, keys = self._tree.locate(problem.keys)
            # of the axes that set this, the innermost had the last word
            axes = [
                (axis, index)
                for axis, index in zip(self.axes, chosen, strict=False)
                if _below(problem.keys, axis)
            ]
            if axes:
                axis, index = max(axes, key=lambda pair: len(pair[0].keys))
                where, keys = self._tree.locate(("grid", axis.path))
                keys = (*keys, index, *problem.keys[len(axis.keys) :])
            self.faults[Fault(where, dotted(keys), problem.text, problem.remedy)] = None


def check_grid_path(keys: Keys) -> tuple[str, str] | None:
    """What is wrong with a path that a grid is to vary, and a remedy; None where nothing is."""
    if keys in SLOTS or (
        len(keys) > 1 and keys[0] in (*TABLE_SLOTS, *MASK_SLOTS, "train", "evaluate", "engine")
    ):
        return None
    inside = [f"train.{name}" for name in Train.model_fields] + [
        f"evaluate.{name}" for name in Evaluate.model_fields
    ]
    inside += [f"engine.{name}" for name in Engine.model_fields]
    return "is not a key that a grid can vary", nearest(dotted(keys), [*TABLE_SLOTS, *MASK_SLOTS, *inside])


def label(keys: Keys, value: Any, resolver: ComponentResolver) -> str:
    """The short name of a grid's value: by what it is, not by how it was written."""
    if keys == AUGMENT and isinstance(value, list):
        return "+".join(_entry_label("augmentation", each, resolver) for each in value) or "none"
    return _entry_label(SLOTS[keys], value, resolver) if keys in SLOTS else label_of(value)


def _entry_label(kind: str, entry: Any, resolver: ComponentResolver) -> str:
    component, _ = resolver.component(kind, entry)
    return label_of(entry) if component is None else resolver.label(component)


def _kept(found: list[Problem], keys: Keys, answer: tuple[Any, list[Problem]]) -> Any:
    """The answer's value; what is wrong with it goes to `found`, as of a table at `keys`."""
    value, wrong = answer
    found += [Problem((*keys, *each.keys), each.text, each.remedy) for each in wrong]
    return value


def _at(value: Any, keys: Keys) -> Any:
    """What a table says at this path; None where it says nothing."""
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
