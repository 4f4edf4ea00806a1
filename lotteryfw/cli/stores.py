"""Commands about the store: info, verify, gc."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Json, StoreRoot

if TYPE_CHECKING:
    from lotteryfw.store import Info, Store, Swept, Verified

store_app = typer.Typer(
    no_args_is_help=True, help="The store of everything computed: look at it, check it, clean it."
)
app.add_typer(store_app, name="store")


@store_app.command()
def info(store: StoreRoot = None, as_json: Json = False) -> None:
    """Count what is in the store."""
    opened = _open(store, as_json)
    counts = opened.info()
    if as_json:
        _print_json(opened, counts)
        return
    size = f"{counts.objects:,} objects, {counts.bytes / 1e6:,.1f} MB"
    typer.echo(f"{opened.root}: {size}, {counts.roots} runs refer to it")
    if counts.damaged:
        typer.echo(f"{counts.damaged} damaged objects were set aside")


@store_app.command()
def verify(store: StoreRoot = None, as_json: Json = False) -> None:
    """Check everything in the store, and the run folders that use it, against their SHA-256.

    That is every object, alias, checkpoint and spooled job. Damaged objects are set aside, so that they
    are computed again.
    """
    opened = _open(store, as_json)
    report = opened.verify()
    if as_json:
        _print_json(opened, report)
    else:
        _print_verified(report)
    if report.damaged or report.problems:
        raise typer.Exit(1)


def _print_verified(report: Verified) -> None:
    typer.echo(f"{report.checked:,} objects checked, {len(report.damaged)} damaged")
    for key in report.damaged:
        typer.echo(f"  set aside: {key}")
    others = (
        f"{report.aliases:,} aliases, {report.checkpoints:,} checkpoints, "
        f"{report.spooled:,} spooled jobs"
    )
    runs = (
        f"{report.runs:,} run folders ({report.run_files:,} files with checksums, "
        f"{report.tickets:,} tickets)"
    )
    typer.echo(f"{others} and {runs} checked, {len(report.problems):,} damaged")
    for problem in report.problems:
        typer.echo(f"  {problem}")
    for remark in report.remarks:
        typer.echo(f"note: {remark}")


@store_app.command()
def gc(
    store: StoreRoot = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would be removed.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Give up runs whose folder cannot be seen, as on a disk not mounted."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove what no run folder refers to any more, and unfinished work untouched for 14 days."""
    opened = _open(store, as_json)
    swept = opened.gc(dry_run=dry_run, force=force)
    if as_json:
        _print_json(opened, swept)
        return
    counts = (
        f"{swept.objects} objects ({swept.bytes / 1e6:,.1f} MB), {swept.roots} runs that are gone, "
        f"{swept.aliases} aliases, {swept.leftovers} leftovers, {swept.locks} lock files"
    )
    verb = "would remove" if dry_run else "removed"
    typer.echo(f"{verb} {counts}; {swept.kept} objects are kept")
    if not swept.unseen:
        return
    fate = "given up"
    if not force:
        fate = (
            "kept: mount its disk, clean the store on the run's own machine, or give these runs up "
            "with --force"
        )
    typer.echo(f"what these run folders need, which cannot be seen, is {fate}")
    for folder in swept.unseen:
        typer.echo(f"  {folder}")


def _print_json(store: Store, counts: Info | Swept | Verified) -> None:
    figures = asdict(counts)
    # the same key in every command
    figures.pop("root", None)
    typer.echo(json.dumps({"store": str(store.root), **figures}))


def _open(root: Path | None, as_json: bool) -> Store:
    """Return the store, or end the command with a line if there is none yet."""
    from lotteryfw.store import Store, default_root

    store = Store(root or default_root())
    if not store.root.exists():
        text = f"{store.root}: there is no store yet; the first run makes it"
        typer.echo(json.dumps({"store": str(store.root), "absent": True}) if as_json else text)
        raise typer.Exit
    return store
