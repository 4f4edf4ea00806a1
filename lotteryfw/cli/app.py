"""The typer app that commands are added to, and how plugins' commands get in."""

from __future__ import annotations

from importlib.metadata import EntryPoints, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lotteryfw.cli.examples import GROUPS, epilog


class _WithPlugins(TyperGroup):
    """Finds the commands of plugins, but loads plugins only if one of theirs may be meant.

    Its help lists commands in groups.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                commands[name] = command.get_short_help_str(limit=200)
        # a plugin's commands stand at the end, with what no group has
        others = list(commands)
        for names in GROUPS.values():
            others = [name for name in others if name not in names]
        for title, names in {**GROUPS, "Others": tuple(others)}.items():
            rows = []
            for name in names:
                if name in commands:
                    rows.append((name, commands[name]))
            # click writes an empty section's title, too
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def list_commands(self, ctx: Any) -> list[str]:
        commands = super().list_commands(ctx)
        # loading plugins takes a second
        return [*commands, *_plugin_commands()] if _has_others() else commands

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_commands().get(cmd_name)


def _has_others() -> bool:
    """Return whether a distribution other than this one has plugins: its own add no commands."""
    names = {point.dist.name if point.dist else "" for point in _plugins()}
    return bool(names - {"lotteryfw"})


def _plugins() -> EntryPoints:
    return entry_points(group="lotteryfw")


def _plugin_commands() -> dict[str, Any]:
    from lotteryfw.registry import Registry

    commands = typer.Typer()
    Registry.load().notify("register_commands", commands)
    if not commands.registered_commands and not commands.registered_groups:
        return {}
    # a callback keeps a single command from becoming the whole app
    commands.callback()(lambda: None)
    return dict(typer.main.get_command(commands).commands)  # type: ignore[attr-defined]


app = typer.Typer(
    name="lotteryfw",
    cls=_WithPlugins,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Lottery-ticket studies as recipes. Start with: lotteryfw recipe quickstart",
)


def add_examples() -> None:
    """End the help of every command with examples."""
    _add_examples(app, "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _add_examples(group.typer_instance, f"{group.name} ")


def _add_examples(commands: typer.Typer, prefix: str) -> None:
    for command in commands.registered_commands:
        # typer calls a command without a name like its function
        name = command.name or getattr(command.callback, "__name__", "")
        command.epilog = epilog(f"{prefix}{name}")


def _version(is_wanted: bool) -> None:
    if is_wanted:
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
