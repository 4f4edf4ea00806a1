"""Commands that show or write what runs found: report, compare, export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, StoreRoot, Trust


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Folders of runs.")],
    metric: Annotated[
        str, typer.Option(help="A column of levels.csv, such as early_stop_step.")
    ] = "test_accuracy",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with a chart and the tables.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare each other run with the first: differences paired by seed, with 95 % intervals.

    Series are matched by study and name, levels by density.
    """
    from rich.console import Console

    from lotteryfw.report import compare as compare_runs
    from lotteryfw.report import comparison_markdown, comparison_tables, write_comparison_page
    from lotteryfw.report.tables.text_table import rich_tables
    from lotteryfw.store import strict_json

    comparison = compare_runs(runs, metric)
    if as_json:
        for line in comparison.plain():
            typer.echo(strict_json(line))
    elif markdown:
        typer.echo(comparison_markdown(comparison))
    else:
        # names in a recipe may read like rich's markup, "[red]", or like ":emoji:"
        console = Console(markup=False, emoji=False)
        for table in comparison_tables(comparison):
            for part in rich_tables(table, console.width):
                console.print(part)
        for note in comparison.notes:
            typer.echo(f"note: {note}")
    # beside any of these forms: a page is for people, the forms are for other programs
    if html:
        path = write_comparison_page(comparison, html)
        typer.echo(f"page: {path}", err=as_json)


@app.command("report")
def report_run(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables as Markdown; write nothing.")
    ] = False,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Write paper/: figures as PDF, tables as LaTeX and CSV; nothing else."
        ),
    ] = False,
    every_level: Annotated[
        bool, typer.Option("--every-level", help="Print every level, in as many tables as needed.")
    ] = False,
    by_seed: Annotated[
        bool,
        typer.Option(
            "--by-seed", help="Also draw each study of its first seed, its first two, and so on."
        ),
    ] = False,
    font_size: Annotated[
        float, typer.Option(min=4, max=20, help="Points of the letters in figures for a paper.")
    ] = 8.0,
    as_json: Json = False,
) -> None:
    """Write a run's report.html, draw its figures, and print its tables, verdicts and claims again."""
    from lotteryfw.report import check_claims, endings, report
    from lotteryfw.report import markdown as as_markdown
    from lotteryfw.report import paper as write_paper
    from lotteryfw.store import RunFolder, failed_cells, strict_json

    if markdown:
        typer.echo(as_markdown(run))
        return
    if paper:
        paths = write_paper(run, font_size)
        if as_json:
            typer.echo(json.dumps({"run": str(run), "paper": list(map(str, paths))}))
        else:
            typer.echo("\n".join(map(str, paths)))
        return
    page, *figures = report(run, show=not as_json, every_level=every_level, by_seed=by_seed)
    if not as_json:
        print_paths(page, figures)
        for line in endings(run):
            typer.echo(line)
        return
    # the verdicts alone: figures are in levels.csv, which scripts read as well
    claims = []
    for verdict in check_claims(RunFolder(run)):
        entry = {"text": verdict.claim.text, "outcome": verdict.outcome}
        claims.append(entry | {"explanation": verdict.explanation})
    written: dict[str, Any] = {"report": str(page), "figures": list(map(str, figures))}
    failed = [vars(failure) for failure in failed_cells(RunFolder(run).read_manifest())]
    typer.echo(strict_json({"run": str(run), **written, "claims": claims, "failed": failed}))


def print_paths(page: Path, figures: Sequence[Path]) -> None:
    """Print where a report and its figures are."""
    # each figure is drawn twice: one line for both files
    pictures = [str(figure) for figure in figures if figure.suffix == ".png"]
    if figures:
        typer.echo(f"figures: {', '.join(pictures)} (and .svg)")
    typer.echo(f"report: {page}")


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
    as_json: Json = False,
) -> None:
    """Write a network of a run for use elsewhere, as a state dict (safetensors) or as ONNX.

    A ticket whose weights were never trained takes one bit for each weight as a seed.
    """
    from lotteryfw.runner import export

    # the library checks everything, so that scripts get the same messages
    export(
        source, out, form.value, level=level, cell=cell, variant=variant, trust=trust, data=data, store=store
    )  # fmt: skip
    size = out.stat().st_size
    typer.echo(
        json.dumps({"file": str(out), "bytes": size}) if as_json else f"{out}: {size:,} bytes"
    )
