"""The command `plan`: what a recipe asks for, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Data, Json, Profile, Recipe, Sets, StoreRoot, Studies, Trust

if TYPE_CHECKING:
    from lotteryfw.runner import NetworkTable, Plan

SHOWN_CELLS = 3
"""Cells that cannot run of which `plan` shows the reason; mostly it is the same for all."""
SHOWN_OTHERS = 6
"""Parameters that are not pruned of which the largest are named."""


@app.command()
def plan(
    file: Recipe,
    profile: Profile = None,
    sets: Sets = [],  # noqa: B006
    studies: Studies = [],  # noqa: B006
    trust: Trust = [],  # noqa: B006
    data: Data = None,
    store: StoreRoot = None,
    network: Annotated[
        bool,
        typer.Option(
            "--network", help="Show layers, parameters, densities of levels, and memory as well."
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Make a few steps of each kind of training, to estimate the time."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a recipe asks for, before anything is trained.

    No network is built, unless with --network or --measure: these, `check` and a run refuse one
    that does not fit into memory. Exits with 1 where a search cannot run.
    """
    if not show_plan(
        file, profile, sets, studies, trust, data, store, network, measure, as_json=as_json
    ):
        raise typer.Exit(1)


def show_plan(
    file: Path,
    profile: str | None,
    sets: list[str],
    studies: list[str],
    trust: list[Path],
    data: Path | None,
    store: Path | None,
    network: bool = False,
    measure: bool = False,
    *,
    as_json: bool,
) -> bool:
    """Print a plan as the command does, and return whether every search can run."""
    from lotteryfw.runner import StudyContext, likely_device

    context = StudyContext(
        file, profile=profile, sets=sets, studies=studies, trust=trust, data=data, store=store
    )
    context.validate_parts()
    device = likely_device()
    if network or measure:
        # these need torch, and the networks; a plain plan needs neither
        context.validate_models("cpu")
        context.validate_memory(device)
    if measure:
        context.validate_data()
    result = context.plan(device, measure)
    tables = context.networks() if network else []
    for warning in context.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        networks = {"networks": [table.plain() for table in tables]} if network else {}
        typer.echo(json.dumps(result.plain() | networks))
        return not result.broken
    name = f" ({context.recipe.profile})" if context.recipe.profile else ""
    typer.echo(f"{context.recipe.name}{name}")
    for line in [*_plan_lines(result, measure), *_network_lines(tables)]:
        typer.echo(line)
    return not result.broken


def _plan_lines(result: Plan, is_measured: bool) -> list[str]:
    """Return the figures of a plan, a line each."""
    # not an error: a first plan has nothing to go by
    unknown_time = "not known yet"
    rows = [
        ("cells", f"{result.cells:,}"),
        ("jobs asked for", f"{result.asked:,}"),
        ("different jobs", f"{result.unique:,}"),
        ("of them trainings", f"{result.trainings:,}"),
    ]
    for kind, count in (("probes", result.probes), ("evaluations", result.evaluations)):
        if count:
            rows.append((f"of them {kind}", f"{count:,}"))
    rows += [
        ("already stored", f"{result.stored:,}"),
        ("to do", f"{result.unique - result.stored:,}"),
        ("steps in all", f"{result.steps:,}"),
        ("steps to do", f"{result.steps_to_do:,}"),
        ("time, one process", duration(result.seconds) or unknown_time),
        ("disk", size(result.bytes) or unknown_time),
    ]
    lines = [f"  {name:<20} {value:>14}" for name, value in rows]
    if result.seconds is None and not is_measured:
        lines.append("  nothing like it was trained in this store: --measure estimates the time")
    elif is_measured:
        lines.append("  the time is that of steps of one training at a time; evaluations add to it")
    if result.unknown:
        cells = f"{len(result.unknown)} cells, such as {result.unknown[0]}"
        lines.append(f"  depend on results, planned up to there: {cells}")
    # mostly it is one reason for all cells
    for cell, fault in result.broken[:SHOWN_CELLS]:
        lines.append(f"  cannot run: {cell}: {fault}")
    if len(result.broken) > SHOWN_CELLS:
        lines.append(f"  cannot run: {len(result.broken) - SHOWN_CELLS} more cells")
    lines.append(
        "Jobs whose masks turn out equal are shared too; that shows only as the study runs."
    )
    return lines


def _network_lines(tables: list[NetworkTable]) -> list[str]:
    """Return the networks of a study as text."""
    lines: list[str] = []
    for table in tables:
        inputs = "×".join(map(str, table.inputs))
        lines += ["", f"{table.study}: network '{table.model}' for inputs {inputs}"]
        width = max(len(name) for name, _, _ in table.layers)
        for name, shape, count in table.layers:
            lines.append(f"  {name:<{width}}  {'×'.join(map(str, shape)):>16}  {count:>14,}")
        share = table.prunable / table.parameters
        lines.append(
            f"  prunable: {table.prunable:,} of {table.parameters:,} parameters ({share:.1%})"
        )
        if table.not_pruned:
            lines.append(f"  not pruned: {_others(table)}")
        if table.densities:
            # three digits tell levels apart, and a line holds twenty of them
            densities = ", ".join(f"{100 * density:.3g}" for density in table.densities)
            lines.append(f"  weights remaining, %: {densities}")
        else:
            lines.append("  weights remaining: known only as the study runs")
        lines.append(f"  memory of a training: {table.memory}")
    return lines


def _others(table: NetworkTable) -> str:
    """Return the parameters that are not pruned, the largest by name."""
    largest = sorted(table.not_pruned, key=lambda item: -item[1])
    named = []
    for name, count in largest[:SHOWN_OTHERS]:
        named.append(f"{name} ({count:,})")
    # mostly biases and norms, of which a deep network has hundreds
    rest = largest[SHOWN_OTHERS:]
    if rest:
        named.append(f"{len(rest)} more ({sum(count for _, count in rest):,})")
    return ", ".join(named)


def duration(seconds: float | None) -> str:
    """Return a time as people read it; "" where it is not known."""
    if seconds is None:
        return ""
    minutes = seconds / 60
    # an estimate is good to a digit or two
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size(count: int | None) -> str:
    """Return a number of bytes as people read it; "" where it is not known."""
    if count is None:
        return ""
    if count < 1e5:
        return f"{count / 1e3:,.1f} kB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:,.1f} MB"
