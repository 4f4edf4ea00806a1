"""The typer app that commands are added to, and how plugins' commands get in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from importlib.metadata import EntryPoints, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lotteryfw.cli.examples import GROUPS, epilog


class _WithPlugins(TyperGroup):
    """Finds the commands of plugins, but loads plugins only if one of theirs may be meant.

    Its help lists commands in groups.
    """

    _of_plugins: dict[str, Any] | None = None

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
        return [*commands, *self._plugin_commands(ctx)] if _has_others() else commands

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or self._plugin_commands(ctx).get(cmd_name)

    def _plugin_commands(self, ctx: Any) -> dict[str, Any]:
        if self._of_plugins is None:
            self._of_plugins, problems = _plugin_commands(self.commands)
            # a shell that completes a word would show them in its line
            if not ctx.resilient_parsing:
                for problem in problems:
                    typer.echo(problem, err=True)
        return self._of_plugins


def _has_others() -> bool:
    """Return whether a distribution other than this one has plugins: its own add no commands."""
    names = {point.dist.name if point.dist else "" for point in _plugins()}
    return bool(names - {"lotteryfw"})


def _plugins() -> EntryPoints:
    return entry_points(group="lotteryfw")


def _plugin_commands(built_in: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the commands of plugins by name, and a line for each problem with them.

    A command that has the name of another one is called "distribution/name".
    """
    from lotteryfw.registry import Failure, Registry

    added: list[tuple[str, str, Any]] = []
    problems = []
    for plugin, register in Registry.load().implementations("register_commands"):
        commands = typer.Typer()
        try:
            register(commands)
            # typer reads the signatures here, and a plugin's may be wrong
            built = _built(commands)
        except (Exception, SystemExit) as error:
            problems.append(str(Failure.of(plugin, "register_commands", error)))
            continue
        for name, command in built.items():
            added.append((plugin.distribution, name, command))

    by_name = {}
    counts = Counter(name for _, name, _ in added)
    for distribution, name, command in added:
        key = name
        if name in built_in or counts[name] > 1:
            key = f"{distribution}/{name}"
            problems.append(
                f"the command '{name}' of {distribution} is called '{key}': another has its name"
            )
        by_name[key] = command
    return by_name, problems


def _built(commands: typer.Typer) -> dict[str, Any]:
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
