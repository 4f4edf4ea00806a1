"""Commands about recipes and their runs: recipe, plan, check, schema, runs, report, export."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lotteryfw.cli import signals
from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, Profile, Recipe, Sets, StoreRoot, Trust

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
            _tell(page, figures)
        typer.echo(f"{done.path}")
    signals.set_hint("")
    statuses = set(done.statuses.values())
    # Where every cell diverged there is no result, which a script has to notice as well.
    if "failed" in statuses or statuses == {"diverged"}:
        raise typer.Exit(1)


def _tell(page: Path, figures: Sequence[Path]) -> None:
    # each figure is drawn twice: one line for both files
    pictures = [str(figure) for figure in figures if figure.suffix == ".png"]
    if figures:
        typer.echo(f"figures: {', '.join(pictures)} (and .svg)")
    typer.echo(f"report: {page}")


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


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a folder."""
    from lotteryfw.api.errors import UsageError
    from lotteryfw.runner import runs as find
    from lotteryfw.store.checksums import describe
    from lotteryfw.store.folder import REBUILD

    folders = find(folder)
    if not folders:
        raise UsageError(f"{folder}: no runs here; `lotteryfw recipe FILE` makes one")
    for run in folders:
        damage = run.folder.damage()
        if damage:
            text = f"damaged: {describe(damage)}; {REBUILD}"
            line = json.dumps({"run": str(run.path), "damaged": describe(damage)})
            typer.echo(line if as_json else f"{run.path}  {text}")
            # Scripts that read the lines, and know nothing of damage, are to be noticed by people.
            if as_json:
                typer.echo(f"warning: {run.path}: {text}", err=True)
            continue
        # always in this order, and without those that are 0
        ended = Counter(run.statuses.values())
        counts = {}
        for status in ("done", "diverged", "failed"):
            if ended[status]:
                counts[status] = ended[status]
        if as_json:
            typer.echo(json.dumps({"run": str(run.path), "rows": len(run.levels), **counts}))
            continue
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        typer.echo(f"{run.path}  {len(run.levels)} rows; cells: {summary or 'not finished'}")


@app.command("report")
def report_run(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables as Markdown; write nothing.")
    ] = False,
) -> None:
    """Write a run's report.html, draw its figures, and print its tables, verdicts and claims again."""
    from lotteryfw.report import markdown as as_markdown
    from lotteryfw.report import report

    if markdown:
        typer.echo(as_markdown(run))
    else:
        page, *figures = report(run, show=True)
        _tell(page, figures)


class Form(StrEnum):
    """The forms that `lotteryfw.export` writes."""

    TICKET = "ticket"
    TRAINED = "trained"
    INITIAL = "initial"
    PRUNE = "prune"
    SEED = "seed"


@app.command("export")
def export_network(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|TICKET", help="A run's folder, or a file below its tickets/."),
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write: safetensors, or ONNX if it ends in .onnx.")
    ],
    form: Annotated[
        Form,
        typer.Option(
            "--as",
            help="ticket: what training starts from; trained: the weights at its end; initial: step 0 of the dense "
            "run; prune: the ticket in the form of torch.nn.utils.prune; seed: a mask, and what draws the weights.",
        ),
    ] = Form.TICKET,
    level: Annotated[int | None, typer.Option(min=0, help="The level of a run.")] = None,
    cell: Annotated[
        str, typer.Option(help="A cell of the run: its name, or a part that only it has.")
    ] = "",
    variant: Annotated[str, typer.Option(help="ticket, or the name of a control.")] = "ticket",
    trust: Trust = [],  # noqa: B006
    data: Data = None,
    store: StoreRoot = None,
) -> None:
    """Write a network of a run for use elsewhere, as a state dict (safetensors) or as ONNX.

    A ticket whose weights were never trained takes one bit for each weight as a seed.
    """
    from lotteryfw.runner import export

    # the library checks everything, so that scripts get the same messages
    export(
        source, out, form.value, level=level, cell=cell, variant=variant, trust=trust, data=data, store=store
    )  # fmt: skip
    typer.echo(f"{out}: {out.stat().st_size:,} bytes")
