"""The typer app that commands are added to, and how plugins' commands get in."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _WithPlugins(TyperGroup):
    """Finds the commands that plugins add, but loads plugins only when one of theirs may be meant."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(_plugin_commands() if _has_others() else {})]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_commands().get(cmd_name)


def _has_others() -> bool:
    """Return whether a distribution other than this one has plugins: its own add no commands."""
    names = {point.dist.name if point.dist else "" for point in entry_points(group="lotteryfw")}
    return bool(names - {"lotteryfw"})


def _plugin_commands() -> dict[str, Any]:
    from lotteryfw.registry import Registry

    theirs = typer.Typer()
    Registry.load().notify("register_commands", theirs)
    if not theirs.registered_commands and not theirs.registered_groups:
        return {}
    theirs.callback()(lambda: None)  # keeps a single command from becoming the whole app
    return dict(typer.main.get_command(theirs).commands)  # type: ignore[attr-defined]


app = typer.Typer(
    name="lotteryfw",
    cls=_WithPlugins,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Lottery-ticket studies as recipes. Start with: lotteryfw recipe recipes/quickstart.toml",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lotteryfw {version('lotteryfw')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass
