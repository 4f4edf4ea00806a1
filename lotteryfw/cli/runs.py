"""Commands about many runs: runs, runs rm."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Json, StoreRoot

if TYPE_CHECKING:
    from lotteryfw.report import RunSummary
    from lotteryfw.store import RunFolder


class _ListByDefault(TyperGroup):
    """Takes `runs FOLDER` for `runs list FOLDER`, which is the command that people mean."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_help = args and args[0] in ctx.help_option_names
        if not is_help and (not args or args[0] not in self.commands):
            args = ["list", *args]
        return super().parse_args(ctx, args)


runs_app = typer.Typer(
    cls=_ListByDefault,
    help="Runs: list them (the word list may be left out), delete them.",
)
app.add_typer(runs_app, name="runs")


class Order(StrEnum):
    """The orders of a list of runs."""

    NAME = "name"
    DATE = "date"
    DURATION = "duration"
    ACCURACY = "accuracy"


class Status(StrEnum):
    """The states of a run as a whole."""

    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    DAMAGED = "damaged"


@runs_app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"),
    recipe: Annotated[str, typer.Option(help="Only runs of the recipe of this name.")] = "",
    profile: Annotated[str, typer.Option(help="Only runs of this profile.")] = "",
    override: Annotated[
        str, typer.Option(metavar="TEXT", help="Only runs with a --set that contains this.")
    ] = "",
    status: Annotated[
        Status | None,
        typer.Option(help="Only runs with such a cell, unfinished runs, or damaged ones."),
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="DATE", help="Only runs of this day (YYYY-MM-DD) and later.")
    ] = "",
    at: Annotated[
        str,
        typer.Option(metavar="DENSITIES", help="Also the best accuracies there, as in 0.1,0.02."),
    ] = "",
    sort: Annotated[Order, typer.Option(help="By which figure.")] = Order.NAME,
    reverse: Annotated[bool, typer.Option("--reverse", help="Largest or latest first.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs in a folder: date, duration, overrides, best accuracy, verdicts on claims.

    The best accuracy is the test accuracy of the level and series that validation chooses.
    """
    from lotteryfw.api.errors import UsageError
    from lotteryfw.report.data.run_data import RunData
    from lotteryfw.report.verdicts.run_summary import summarise
    from lotteryfw.store import find_runs

    densities = _densities(at)
    first_day = _day(since)
    folders = find_runs(folder)
    if not folders:
        raise UsageError(f"{folder}: no runs here; `lotteryfw recipe FILE` makes one")
    summaries: list[RunSummary] = []
    damaged: list[RunFolder] = []
    for run in folders:
        if run.damage():
            damaged.append(run)
            continue
        data = RunData(run)
        summary = summarise(data, densities)
        cells = data.manifest.get("cells", {})
        statuses = {*cells.values()} or {Status.UNFINISHED}
        if _is_wanted(summary, recipe, profile, override, first_day, status, statuses):
            summaries.append(summary)
    summaries = _sorted(summaries, sort, reverse)
    # filters are about results, which a damaged run does not show
    if status not in (None, Status.DAMAGED):
        damaged = []
    _print_damaged(damaged, as_json)
    if as_json:
        for summary in summaries:
            typer.echo(json.dumps(summary.plain()))
    elif summaries:
        _print_table(summaries, densities)


def _densities(text: str) -> list[float]:
    from lotteryfw.api.errors import UsageError

    densities = []
    # one option with commas, as lists are written in --set
    for word in filter(None, text.split(",")):
        try:
            density = float(word)
        except ValueError:
            density = -1.0
        if not 0 < density <= 1:
            raise UsageError(
                f"--at: '{word}' is no density; write shares in (0, 1], as in 0.1,0.02"
            )
        densities.append(density)
    return densities


def _day(text: str) -> str:
    """Return a day as YYYY-MM-DD, "" for none. Raises UsageError."""
    from datetime import date

    from lotteryfw.api.errors import UsageError

    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise UsageError(f"--since: '{text}' is no day; write it as in 2026-01-31") from None


def _is_wanted(
    summary: RunSummary,
    recipe: str,
    profile: str,
    override: str,
    first_day: str,
    status: Status | None,
    statuses: Collection[str],
) -> bool:
    # an empty option chooses nothing
    if recipe and summary.name != recipe:
        return False
    if profile and summary.profile != profile:
        return False
    if override and not any(override in text for text in summary.overrides):
        return False
    # dates in this form are in order as texts; runs of older versions have none
    if first_day and (summary.date or "") < first_day:
        return False
    return status is None or status in statuses


def _sorted(summaries: Sequence[RunSummary], order: Order, reverse: bool) -> list[RunSummary]:
    """Return the runs in order; those without the figure come last in either direction."""

    def figure(summary: RunSummary) -> Any:
        figures = {
            Order.NAME: str(summary.path),
            Order.DATE: summary.date,
            Order.DURATION: summary.seconds,
            Order.ACCURACY: summary.best.spread.mean if summary.best else None,
        }
        return figures[order]

    present = [summary for summary in summaries if figure(summary) is not None]
    absent = [summary for summary in summaries if figure(summary) is None]
    return sorted(present, key=figure, reverse=reverse) + absent


def _print_damaged(damaged: Sequence[RunFolder], as_json: bool) -> None:
    from lotteryfw.store.checksums import describe
    from lotteryfw.store.folder import REBUILD

    for run in damaged:
        what = describe(run.damage())
        text = f"damaged: {what}; {REBUILD}"
        line = json.dumps({"run": str(run.path), "damaged": what})
        typer.echo(line if as_json else f"{run.path}  {text}")
        # Scripts that read the lines, and know nothing of damage, are to be noticed by people.
        if as_json:
            typer.echo(f"warning: {run.path}: {text}", err=True)


def _print_table(summaries: Sequence[RunSummary], densities: Sequence[float]) -> None:
    from rich.console import Console

    from lotteryfw.report.tables.run_list import run_list_table

    console = Console(markup=False, emoji=False, highlight=False)
    table = run_list_table(summaries, densities, console.width)
    # folders are whole even where a terminal has no room for them
    console.width = max(console.width, table.width or 0)
    console.print(table)


@runs_app.command("rm")
def remove(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be deleted.")
    ] = False,
    gc: Annotated[
        bool, typer.Option("--gc", help="Then clean the store, as `lotteryfw store gc` does.")
    ] = False,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Delete runs: what they and their reports wrote, and their claim on objects of the store.

    Files of yours in a run's folder stay. Objects that no other run needs stay in the store until
    it is cleaned; a run of the same recipe finds them there.
    """
    from lotteryfw.store import RunFolder, Store
    from lotteryfw.store.run_removal import remove_run, run_files

    # every one is looked at before the first is deleted
    folders = [RunFolder.existing(run) for run in runs]
    roots: dict[Path, None] = {}
    for folder in folders:
        root = store or _store_of(folder)
        counts = run_files(folder, root)
        text = f"{counts.files} files ({counts.bytes / 1e6:,.1f} MB)"
        needs = f"{counts.objects:,} objects ({counts.object_bytes / 1e6:,.1f} MB)"
        if not (yes or dry_run) and not typer.confirm(f"delete {folder.path}: {text}?"):
            typer.echo(f"{folder.path}: kept")
            continue
        # the folder first: killed in between, `gc` still finds that its run is gone
        if not dry_run:
            remove_run(folder, root)
        if root:
            roots[root] = None
        if as_json:
            line = {"run": str(folder.path), "deleted": not dry_run, **vars(counts)}
            typer.echo(json.dumps(line | {"store": str(root) if root else None}))
            continue
        typer.echo(f"{folder.path}: {'would delete' if dry_run else 'deleted'} {text}")
        if root and counts.objects:
            typer.echo(f"  {needs} in {root} are needed by no other run")
        if counts.others:
            typer.echo(f"  kept, as no run wrote them: {', '.join(counts.others)}")
    # once for each store, after all runs, as a sweep reads every object's name
    if gc and not dry_run:
        for root in roots:
            swept = Store(root).gc()
            if not as_json:
                typer.echo(f"{root}: removed {swept.objects} objects ({swept.bytes / 1e6:,.1f} MB)")


def _store_of(folder: RunFolder) -> Path | None:
    """Return the store that a run's manifest names, if it is there."""
    from lotteryfw.api.errors import StoreError

    try:
        recorded = folder.read_manifest().get("store")
    except StoreError:
        return None  # a damaged run is to be deleted, too
    return Path(recorded) if isinstance(recorded, str) and Path(recorded).is_dir() else None
