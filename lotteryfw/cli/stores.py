"""Commands about the store: info, verify, gc."""

from __future__ import annotations

from typing import Annotated

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import StoreRoot

store_app = typer.Typer(no_args_is_help=True, help="The store of everything computed: look at it, check it, clean it.")
app.add_typer(store_app, name="store")


@store_app.command()
def info(store: StoreRoot = None) -> None:
    """Count what is in the store."""
    from lotteryfw.store import Store, default_root

    place = Store(store or default_root())
    found = place.info()
    typer.echo(f"{place.root}: {found.objects:,} objects, {found.bytes / 1e6:,.1f} MB, {found.roots} runs refer to it")
    if found.damaged:
        typer.echo(f"{found.damaged} damaged objects were set aside")


@store_app.command()
def verify(store: StoreRoot = None) -> None:
    """Check every object against its SHA-256; set damaged ones aside, so that they are computed again."""
    from lotteryfw.store import Store, default_root

    found = Store(store or default_root()).verify()
    typer.echo(f"{found.checked:,} objects checked, {len(found.damaged)} damaged")
    for key in found.damaged:
        typer.echo(f"  set aside: {key}")
    if found.damaged:
        raise typer.Exit(1)


@store_app.command()
def gc(
    store: StoreRoot = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
) -> None:
    """Remove what no run folder refers to any more, and unfinished work that nothing has touched for 14 days."""
    from lotteryfw.store import Store, default_root

    swept = Store(store or default_root()).gc(dry_run=dry_run)
    removed = f"{swept.objects} objects ({swept.bytes / 1e6:,.1f} MB), {swept.roots} runs that are gone"
    rest = f"{swept.aliases} aliases, {swept.leftovers} leftovers; {swept.kept} objects are kept"
    typer.echo(f"{'would remove' if dry_run else 'removed'} {removed}, {rest}")
