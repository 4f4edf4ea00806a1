"""The command line's door: the commands there are, and how errors reach people."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lotteryfw.errors import LotteryError


class _WithPlugins(TyperGroup):
    """Finds the commands that plugins add, but loads plugins only when one of theirs may be meant."""

    def list_commands(self, ctx: Any) -> list[str]:
        others = [point for point in entry_points(group="lotteryfw") if point.value != "lotteryfw.std"]
        return [*super().list_commands(ctx), *(_plugin_commands() if others else {})]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_commands().get(cmd_name)


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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line. A user's mistake ends with a message on stderr and exit code 2, never a traceback."""
    from lotteryfw.cli import components, stores, studies  # noqa: F401  # importing them adds their commands

    try:
        app()
    except LotteryError as error:
        faults = getattr(error, "faults", ())
        many = f" ({len(faults)} faults)" if len(faults) > 1 else ""
        print(f"error{many}: {error}" if len(faults) < 2 else f"error{many}:\n{error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
