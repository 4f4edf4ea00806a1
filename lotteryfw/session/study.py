"""Studies from Python: `run`, `check` and `plan` do what the commands of these names do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lotteryfw.api.component import Component
from lotteryfw.runner import Listener, Plan, Run, StudyContext, likely_device, run_study
from lotteryfw.session.arrays import arrays_source
from lotteryfw.session.displays import display

Source = Path | str | Mapping[str, Any]
"""A recipe: a file's path, the name of a shipped recipe, or a mapping of the same shape."""
Data = Path | str | Mapping[str, Any]
"""The folder of the data sets, or examples in memory (see `run`)."""


def run(
    source: Source,
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
    data: Data | None = None,
    store: Path | str | None = None,
    checkpoint_seconds: float = 60.0,
    listener: Listener | None = None,
    on_start: Callable[[Callable[[], None]], None] | None = None,
    quiet: bool = False,
    report: bool = True,
) -> Run:
    """Run a recipe (a path, a shipped recipe's name, or a mapping), and return its run folder, read.

    Run it again after whatever ended it: what is in the store is not trained twice, and the results
    are the same to the bit. `jobs` is the number of worker processes, of one thread each; None: as
    many as there are cores and cells, or one for each GPU. `device` is "auto", "cpu", "cuda" for
    every GPU that is visible, or one of them, such as "cuda:1"; `jobs_per_device` is the number of
    processes on each, in the place of `jobs`. With `studies`, only those of these names run.

    `components` are classes that this script or notebook defines, for the recipe to name; they run
    in this process, since others cannot import them, and results are keyed by their source. `data`
    is the folder of the data sets, or examples in memory, which take the place of the recipe's:
    {"train": (x, y), "validation": (x, y), "test": (x, y)} of arrays or tensors.

    Progress is shown where the code runs, in a terminal, a notebook or a log, unless it is `quiet`
    or a `listener` of your own watches the run. With `report`, tables, figures and report.html are
    written into the run folder, as by the command line. `on_start` is given a function that asks the
    run to stop at a safe point, which then raises Interrupted.

    >>> run("quickstart").levels.to_pandas()  # doctest: +SKIP
    """
    arguments = _arguments(sets, components, data)
    with _listening(listener, quiet) as watch:
        done = run_study(
            source, profile=profile, studies=studies, out=out, jobs=jobs,
            jobs_per_device=jobs_per_device, device=device, trust=trust, store=store,
            checkpoint_seconds=checkpoint_seconds, listener=watch, on_start=on_start, **arguments,
        )  # fmt: skip
    if report:
        # plotly and matplotlib take seconds to import
        from lotteryfw.report import report as write_report

        write_report(done.path, show=False)
    return done


def check(
    source: Source,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    studies: Sequence[str] = (),
    trust: Sequence[Path | str] = (),
    components: Sequence[type[Component]] = (),
    data: Data | None = None,
) -> list[str]:
    """Check a recipe without training anything, and return warnings, mostly none.

    The arguments are those of `run`. Raises RecipeError with every fault, and UsageError.
    """
    context = StudyContext(
        source,
        profile=profile,
        studies=studies,
        trust=trust,
        **_arguments(sets, components, data),
    )
    context.validate("cpu")
    context.validate_searches("cpu")
    return context.warnings


def plan(
    source: Source,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    studies: Sequence[str] = (),
    trust: Sequence[Path | str] = (),
    components: Sequence[type[Component]] = (),
    data: Data | None = None,
    store: Path | str | None = None,
    measure: bool = False,
) -> Plan:
    """Return the jobs that a recipe asks for, and what they cost, before anything is trained.

    With `measure`, a few steps of each kind of training are made, where the store has none like it,
    to estimate the time. The other arguments are those of `run`. Raises RecipeError with every
    fault, and UsageError.
    """
    arguments = _arguments(sets, components, data)
    context = StudyContext(
        source, profile=profile, studies=studies, trust=trust, store=store, **arguments
    )
    # without torch, as the command: what only networks show is left to `check`
    context.validate_parts()
    return context.plan(likely_device(), measure)


def _arguments(
    sets: Sequence[str], components: Sequence[type[Component]], data: Data | None
) -> dict[str, Any]:
    """Return the arguments of `StudyContext` that examples in memory change."""
    if not isinstance(data, Mapping):
        return {"sets": sets, "components": components, "data": data}
    arrays = arrays_source(data)
    # first, so that what the caller sets counts
    return {"sets": ['data="session/arrays"', *sets], "components": [*components, arrays]}


@contextmanager
def _listening(listener: Listener | None, quiet: bool) -> Iterator[Listener]:
    # who listens decides what is shown
    if listener is not None:
        yield listener
        return
    with display(quiet) as view:
        yield view
