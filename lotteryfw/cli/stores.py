"""Commands about the store: info, verify, gc."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import StoreRoot

if TYPE_CHECKING:
    from lotteryfw.store import Store

store_app = typer.Typer(
    no_args_is_help=True, help="The store of everything computed: look at it, check it, clean it."
)
app.add_typer(store_app, name="store")


@store_app.command()
def info(store: StoreRoot = None) -> None:
    """Count what is in the store."""
    opened = _open(store)
    counts = opened.info()
    size = f"{counts.objects:,} objects, {counts.bytes / 1e6:,.1f} MB"
    typer.echo(f"{opened.root}: {size}, {counts.roots} runs refer to it")
    if counts.damaged:
        typer.echo(f"{counts.damaged} damaged objects were set aside")


@store_app.command()
def verify(store: StoreRoot = None) -> None:
    """Check everything in the store, and the run folders that use it, against their SHA-256.

    That is every object, alias, checkpoint and spooled job. Damaged objects are set aside, so that they
    are computed again.
    """
    opened = _open(store)
    report = opened.verify()
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
    if report.damaged or report.problems:
        raise typer.Exit(1)


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
) -> None:
    """Remove what no run folder refers to any more, and unfinished work untouched for 14 days."""
    swept = _open(store).gc(dry_run=dry_run, force=force)
    counts = (
        f"{swept.objects} objects ({swept.bytes / 1e6:,.1f} MB), {swept.roots} runs that are gone, "
        f"{swept.aliases} aliases, {swept.leftovers} leftovers, {swept.locks} lock files"
    )
    verb = "would remove" if dry_run else "removed"
    typer.echo(f"{verb} {counts}; {swept.kept} objects are kept")
    if not swept.unseen:
        return
    fate = "given up" if force else "kept: mount its disk, or give these runs up with --force"
    typer.echo(f"what these run folders need, which cannot be seen, is {fate}")
    for folder in swept.unseen:
        typer.echo(f"  {folder}")


def _open(root: Path | None) -> Store:
    """Return the store, or end the command with a line if there is none yet."""
    from lotteryfw.store import Store, default_root

    store = Store(root or default_root())
    if not store.root.exists():
        typer.echo(f"{store.root}: there is no store yet; the first run makes it")
        raise typer.Exit
    return store
