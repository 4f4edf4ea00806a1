"""Commands about recipes: recipe, plan, check, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lotteryfw.cli import signals
from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, Profile, Recipe, Sets, StoreRoot, Trust
from lotteryfw.cli.reports import print_paths

SHOWN_CELLS = 3
"""Cells that cannot run of which `plan` shows the reason; mostly it is the same for all."""


@app.command()
def recipe(
    file: Recipe,
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The run's folder. [runs/NAME-DIGEST]")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes of one thread each. [one for each processor]"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
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
    """Run a recipe. Run the same command again to go on after whatever ended it."""
    if dry_run:
        plan(file, profile, sets, trust, data, store, as_json)
        return
    from lotteryfw.cli.progress import JsonLines, Quiet, Terminal
    from lotteryfw.report import report
    from lotteryfw.runner import run

    signals.set_hint(signals.GOES_ON)
    view = JsonLines() if as_json else Quiet() if quiet else Terminal()
    with view, signals.safe_stop(view.stopping) as on_start:
        done = run(
            file, profile=profile, sets=sets, out=out, jobs=jobs, device=device, trust=trust, data=data, store=store,
            listener=view, on_start=on_start,
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
    signals.set_hint("")
    statuses = set(done.statuses.values())
    # Where every cell diverged there is no result, which a script has to notice as well.
    if "failed" in statuses or statuses == {"diverged"}:
        raise typer.Exit(1)


@app.command()
def plan(
    file: Recipe,
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    data: Data = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Show what a recipe asks for, before anything is trained."""
    from lotteryfw.runner import StudyContext

    context = StudyContext(file, profile=profile, sets=sets, trust=trust, data=data, store=store)
    context.validate_parts()
    result = context.plan(_likely_device())
    if as_json:
        typer.echo(json.dumps(result.plain()))
        return
    rows = [
        ("cells", f"{result.cells:,}"),
        ("jobs asked for", f"{result.asked:,}"),
        ("different jobs", f"{result.unique:,}"),
        ("of them trainings", f"{result.unique - result.evaluations:,}"),
        ("of them evaluations", f"{result.evaluations:,}"),
        ("already stored", f"{result.stored:,}"),
        ("to do", f"{result.unique - result.stored:,}"),
        ("steps in all", f"{result.steps:,}"),
        ("steps to do", f"{result.steps_to_do:,}"),
        ("time, one process", _duration(result.seconds)),
        ("disk", _size(result.bytes)),
    ]
    for warning in context.warnings:
        typer.echo(f"warning: {warning}", err=True)
    profile_name = f" ({context.recipe.profile})" if context.recipe.profile else ""
    typer.echo(f"{context.recipe.name}{profile_name}")
    for name, value in rows:
        typer.echo(f"  {name:<20} {value:>14}")
    if result.unknown:
        cells = f"{len(result.unknown)} cells, such as {result.unknown[0]}"
        typer.echo(f"  depend on results, planned up to there: {cells}")
    for cell, fault in result.broken[:SHOWN_CELLS]:
        typer.echo(f"  cannot run: {cell}: {fault}")
    if len(result.broken) > SHOWN_CELLS:
        typer.echo(f"  cannot run: {len(result.broken) - SHOWN_CELLS} more cells")
    typer.echo("Jobs whose masks turn out equal are shared too; that shows only as the study runs.")


def _likely_device() -> str:
    """Return the kind of device that "auto" would pick, judged by the driver's device file."""
    # torch would know, and take seconds to import
    return "cuda" if Path("/dev/nvidia0").exists() else "cpu"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        # nothing like it was trained in this store
        return "not known yet"
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _size(count: int | None) -> str:
    return "not known yet" if count is None else f"{count / 1e6:,.0f} MB"


@app.command()
def check(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|PLUGIN", help="A recipe, a plugin file, or a plugin's name."),
    ],
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    data: Data = None,
) -> None:
    """Check a recipe, or put every component of a plugin through its kind's trial. Trains nothing."""
    # a plugin is a file of another suffix, or a name
    if what.endswith(".toml") or what == "-":
        from lotteryfw.runner import StudyContext

        context = StudyContext(Path(what), profile=profile, sets=sets, trust=trust, data=data)
        context.validate_parts()
        context.validate_models("cpu")
        context.validate_data()
        for warning in context.warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(f"{what}: good; {len(context.recipe.cells)} cells")
        return
    from lotteryfw.testkit import check_plugin

    results = check_plugin(what)
    for result in results:
        typer.echo(str(result))
    if any(result.failed for result in results):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes with every component installed here, for editors."""
    from lotteryfw.recipe import json_schema
    from lotteryfw.registry import Registry

    typer.echo(json.dumps(json_schema(Registry.load()), indent=2))
