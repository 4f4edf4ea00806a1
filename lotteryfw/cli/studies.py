"""Commands about recipes and their runs: recipe, check, schema, runs, report, export."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lotteryfw.cli import completion, signals
from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, Profile, Recipes, Sets, StoreRoot, Trust
from lotteryfw.cli.plans import plan

if TYPE_CHECKING:
    from lotteryfw.runner import Run, StudyContext


@app.command()
def recipe(
    files: Recipes,
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
    """Run recipes. Run the same command again to go on after whatever ended it."""
    from lotteryfw.api.errors import UsageError

    if out is not None and len(files) > 1:
        raise UsageError("--out: is the folder of one run; leave it out for several recipes")
    if dry_run:
        for file in files:
            plan(file, profile, sets, trust, data, store, as_json=as_json)
        return
    if len(files) > 1:
        # a mistake in the last one should not show after hours of the others
        for file in files:
            _checked(file, profile, sets, trust, data)
    ended_well = True
    for file in files:
        # one after the other: each uses all processes
        where = {"out": out, "trust": trust, "data": data, "store": store}
        done = _run(file, profile, sets, jobs, device, where, quiet, as_json)
        statuses = set(done.statuses.values())
        # Where every cell diverged there is no result, which a script has to notice as well.
        if "failed" in statuses or statuses == {"diverged"}:
            ended_well = False
    if not ended_well:
        raise typer.Exit(1)


def _run(
    file: Path,
    profile: str | None,
    sets: list[str],
    jobs: int | None,
    device: str,
    where: dict[str, Any],
    quiet: bool,
    as_json: bool,
) -> Run:
    """Run one recipe, and print its results."""
    from lotteryfw.report import report
    from lotteryfw.session import JsonLines, display, run

    signals.set_hint(signals.GOES_ON)
    view = JsonLines() if as_json else display(quiet)
    with view, signals.safe_stop(view.stopping) as on_start:
        done = run(
            file, profile=profile, sets=sets, jobs=jobs, device=device, listener=view,
            on_start=on_start, report=False, **where,
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
    return done


def _checked(
    file: Path, profile: str | None, sets: list[str], trust: list[Path], data: Path | None
) -> StudyContext:
    """Return the context of a recipe without faults. Raises RecipeError, UsageError, DataError."""
    from lotteryfw.runner import StudyContext

    context = StudyContext(file, profile=profile, sets=sets, trust=trust, data=data)
    context.validate("cpu")
    return context


def _tell(page: Path, figures: Sequence[Path]) -> None:
    # each figure is drawn twice: one line for both files
    pictures = [str(figure) for figure in figures if figure.suffix == ".png"]
    if figures:
        typer.echo(f"figures: {', '.join(pictures)} (and .svg)")
    typer.echo(f"report: {page}")


@app.command()
def check(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|PLUGIN",
            help="A recipe, a plugin file, or a plugin's name.",
            autocompletion=completion.recipes,
        ),
    ],
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Check a recipe, or put every component of a plugin through its kind's trial. Trains nothing."""
    from lotteryfw.recipe.shipped import shipped_recipes

    # a plugin is a file of another suffix, or a name
    if what.endswith(".toml") or what == "-" or what in shipped_recipes():
        context = _checked(Path(what), profile, sets, trust, data)
        cells = len(context.recipe.cells)
        if as_json:
            result = {"recipe": what, "cells": cells, "warnings": context.warnings}
            typer.echo(json.dumps(result))
            return
        for warning in context.warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(f"{what}: good; {cells} cells")
        return
    from lotteryfw.testkit import check_plugin

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
