"""Commands about recipes: recipe, check, schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lotteryfw.cli import completion, signals
from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, Profile, Recipes, Sets, StoreRoot, Studies, Trust
from lotteryfw.cli.plans import show_plan
from lotteryfw.cli.reports import print_paths

if TYPE_CHECKING:
    from lotteryfw.runner import Run, StudyContext


@app.command()
def recipe(
    files: Recipes,
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    studies: Studies = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The run's folder. [runs/NAME-DIGEST]")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Worker processes of one thread each. [one for each processor or GPU]"
        ),
    ] = None,
    jobs_per_device: Annotated[
        int | None, typer.Option(min=1, help="Worker processes on each GPU, instead of --jobs.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (every visible GPU), or one of them: cuda:1.")
    ] = "auto",
    trust: Trust = [],  # noqa: B006
    data: Data = None,
    store: StoreRoot = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the recipe and print its plan.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the run's folder and errors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run recipes. Run the same command again to go on after whatever ended it."""
    from lotteryfw.api.errors import UsageError

    if out is not None and len(files) > 1:
        raise UsageError("--out: is the folder of one run; leave it out for several recipes")
    if dry_run:
        # every plan is printed, whatever the one before says
        runnable = [
            show_plan(file, profile, sets, studies, trust, data, store, as_json=as_json)
            for file in files
        ]
        if not all(runnable):
            raise typer.Exit(1)
        return
    part: dict[str, Any] = {"profile": profile, "sets": sets, "studies": studies}
    if len(files) > 1:
        from lotteryfw.engine import pick_device

        kind = pick_device(device)
        # a mistake in the last one should not show after hours of the others
        for file in files:
            context = _checked(file, part, trust, data, store, kind)
            context.validate_precision(kind)
            context.validate_memory(kind)
    ended_well = True
    for file in files:
        # one after the other: each uses all processes
        where = {"out": out, "trust": trust, "data": data, "store": store}
        processes = {"jobs": jobs, "jobs_per_device": jobs_per_device, "device": device}
        done = _run(file, part, processes, where, quiet, as_json)
        statuses = set(done.statuses.values())
        # Where every cell diverged there is no result, which a script has to notice as well.
        if "failed" in statuses or statuses == {"diverged"}:
            ended_well = False
    if not ended_well:
        raise typer.Exit(1)


def _run(
    file: Path,
    part: dict[str, Any],
    processes: dict[str, Any],
    where: dict[str, Any],
    quiet: bool,
    as_json: bool,
) -> Run:
    """Run one recipe, and print its results."""
    from lotteryfw.report import endings, report
    from lotteryfw.session import JsonLines, display, run

    signals.set_hint(signals.GOES_ON)
    view = JsonLines() if as_json else display(quiet)
    with view, signals.safe_stop(view.stopping) as on_start:
        done = run(
            file, listener=view, on_start=on_start, report=False, **processes, **part, **where,
        )  # fmt: skip
    # drawing takes seconds: a Ctrl-C meanwhile must not look like a lost run
    signals.set_hint(f"the run is complete; its report is not: lotteryfw report {done.path}")
    page, *figures = report(done.path, show=not (quiet or as_json))
    if as_json:
        summary = {
            "run": str(done.path),
            "cells": done.statuses,
            "report": str(page),
            "figures": list(map(str, figures)),
        }
        typer.echo(json.dumps(summary))
    else:
        if not quiet:
            print_paths(page, figures)
        typer.echo(f"{done.path}")
    # on stderr: scripts read the folder from the last line of stdout
    for line in endings(done.path):
        typer.echo(line, err=True)
    signals.set_hint("")
    return done


def _checked(
    file: Path,
    part: dict[str, Any],
    trust: list[Path],
    data: Path | None,
    store: Path | None = None,
    device: str = "cpu",
) -> StudyContext:
    """Return the context of a recipe without faults. Raises RecipeError, UsageError, DataError."""
    from lotteryfw.runner import StudyContext

    context = StudyContext(file, trust=trust, data=data, store=store, **part)
    context.validate(device)
    return context


@app.command()
def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|PLUGIN",
            help="A recipe, a plugin file, or a plugin's name. "
            "A plugin file is run, as by --trust FILE.",
            autocompletion=completion.recipes,
        ),
    ],
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    studies: Studies = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Check a recipe, or put every component of a plugin through its kind's trial. Trains nothing."""
    if _is_recipe(what, trust):
        part: dict[str, Any] = {"profile": profile, "sets": sets, "studies": studies}
        context = _checked(Path(what), part, trust, data)
        context.validate_searches("cpu")
        cells = len(context.recipe.cells)
        if as_json:
            result = {"recipe": what, "cells": cells, "warnings": context.warnings}
            typer.echo(json.dumps(result))
            return
        for warning in context.warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(f"{what}: good; {cells} cell{'' if cells == 1 else 's'}")
        return
    from lotteryfw.testkit import check_plugin

    _refuse_with_plugin(
        what, {"--profile": profile, "--set": sets, "--study": studies, "--data": data}
    )
    results = check_plugin(what)
    for verdict in results:
        if as_json:
            line = {
                "component": verdict.component.full_name,
                "outcome": verdict.outcome,
                "reason": verdict.reason,
            }
            typer.echo(json.dumps(line))
        else:
            typer.echo(str(verdict))
    if any(verdict.failed for verdict in results):
        raise typer.Exit(1)


def _is_recipe(what: str, trust: list[Path]) -> bool:
    """Return whether `check` was given a recipe, and not a plugin. Raises UsageError for neither."""
    from packaging.utils import canonicalize_name

    from lotteryfw.api.errors import UsageError, nearest
    from lotteryfw.recipe.shipped import recipes_by_name
    from lotteryfw.registry import Registry, plugin_names

    # a plugin is a Python file, or a name
    if what.endswith(".py"):
        return False
    if what.endswith(".toml") or what == "-" or Path(what).is_file():
        return True
    registry = Registry.load(trust)
    recipes = recipes_by_name(registry)
    if what in recipes:
        return True
    plugins = [(plugin.name, plugin.distribution) for plugin in registry.plugins]
    # one that failed is a plugin, too: the check of it says why
    plugins += [(failure.plugin, failure.distribution) for failure in registry.failures]
    known = [*recipes]
    for name, distribution in plugins:
        if canonicalize_name(what) in plugin_names(name, distribution):
            return False
        known.append(distribution)
    raise UsageError(f"no recipe and no plugin is called '{what}'; {nearest(what, known)}")


def _refuse_with_plugin(what: str, options: Mapping[str, object]) -> None:
    """Raise UsageError for options about a recipe where a plugin is checked."""
    from lotteryfw.api.errors import UsageError

    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)}: for recipes alone, and {what} is a plugin")


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes with every component installed here, for editors."""
    from lotteryfw.recipe import json_schema
    from lotteryfw.registry import Registry

    typer.echo(json.dumps(json_schema(Registry.load()), indent=2))
