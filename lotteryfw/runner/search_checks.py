"""Checks before any training that searches can prune their networks, and kernels train them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import Fault, LotteryError, UsageError
from lotteryfw.api.words import counted
from lotteryfw.engine import KernelDispatcher
from lotteryfw.recipe import Recipe
from lotteryfw.runner.first_jobs import deciding_parts, first_jobs
from lotteryfw.runner.plan import CellPlan, plan_cell
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.jobs import digest
from lotteryfw.search.lab import CellLab

_TO_BLAME = ("scope", "rewind", "objective", "parametrization", "scores", "kernel")
"""Slots whose name begins the text of an error about what stands there. Others are the search's."""


def search_faults(
    recipe: Recipe, describe: Describe, data_folder: Path, device: str
) -> tuple[list[Fault], list[str]]:
    """Return a fault for each search that cannot run, and warnings of levels that prune nothing.

    A fault stands at the component to blame, such as a scope that leaves a network without weights
    or has a pattern that names no layer.
    """
    faults: dict[Fault, None] = {}
    warnings: dict[str, None] = {}
    for cell in _of_different_searches(recipe, describe):
        try:
            lab = CellLab(cell, describe, data_folder, device)
            planned = plan_cell(lab)
            if isinstance(planned.fault, UsageError):
                raise planned.fault
            text = _pruned_no_more(lab, _kept_at(planned))
            if text:
                warnings[text] = None
        except UsageError as error:
            slot, text = _blamed(str(error))
            faults[Fault(*recipe.place(cell.study, slot), text)] = None
        except (LotteryError, SystemExit):
            continue  # A component that breaks ends its own cells, when they run.
    return list(faults), list(warnings)


def broken_searches(recipe: Recipe, broken: Iterable[tuple[str, str]]) -> list[Fault]:
    """Return a fault for each reason why cells cannot run; `broken` has cells and reasons of a plan."""
    studies = {cell.id: cell.study for cell in recipe.cells}
    cells_by_reason: dict[tuple[str, str], list[str]] = {}
    for cell, reason in broken:
        cells_by_reason.setdefault((studies[cell], reason), []).append(cell)
    faults = []
    for (study, reason), cells in cells_by_reason.items():
        slot, text = _blamed(reason)
        more = f" and {counted(len(cells) - 1, 'more cell')}" if len(cells) > 1 else ""
        faults.append(Fault(*recipe.place(study, slot), f"{text} (in {cells[0]}{more})"))
    return faults


def _of_different_searches(recipe: Recipe, describe: Describe) -> list[Cell]:
    """Return a cell for each combination of the parts that a search works with."""
    different: dict[str, Cell] = {}
    for cell in recipe.cells:
        parts: list[Any] = [cell.study]
        searched_with = (
            cell.model, cell.data, cell.scope, cell.search, cell.rewind, cell.objective,
            cell.parametrization,
        )  # fmt: skip
        for part in searched_with:
            if part is not None:
                parts.append(describe(part, cell.clock).canonical())
        different.setdefault(digest(parts), cell)
    return list(different.values())


def _kept_at(planned: CellPlan) -> dict[int, Mapping[str, int]]:
    """Return, by level, the weights of each layer that budgets leave."""
    kept_at: dict[int, Mapping[str, int]] = {}
    for request in planned.requests:
        ticket = request.ticket
        kept = ticket.source.kept_by_budgets()
        # What a training keeps that finds its mask by itself is known after it.
        found = ticket if ticket.root is None else ticket.root.ticket
        if not found.learns_mask and not found.updates_mask:
            kept_at.setdefault(ticket.level, kept)
    return kept_at


def _pruned_no_more(lab: CellLab, kept_at: Mapping[int, Mapping[str, int]]) -> str:
    """Return a warning of the first level at which nothing is left to prune; "" if there is none."""
    pruner, scope = lab.context.pruner, lab.cell.scope
    for level in sorted(kept_at):
        kept, before = kept_at[level], kept_at.get(level - 1)
        if before is None or sum(before.values()) != sum(kept.values()):
            continue
        if pruner.is_exhausted(pruner.budgets_after(before, 1), before):
            return (
                f"study {lab.cell.study}: scope '{scope.use}' {scope.options()} prunes nothing at "
                f"level {level} and later, where {sum(kept.values()):,} weights are left; a search "
                "that prunes level by level ends there"
            )
    return ""


def _blamed(text: str) -> tuple[str, str]:
    """Return the slot that an error is about, and its text without a name for that slot."""
    for slot in _TO_BLAME:
        if text.startswith(f"{slot}: "):
            return slot, text.removeprefix(f"{slot}: ")
        if text.startswith(f"{slot} "):
            return slot, text
    return "search", text


def kernel_faults(
    recipe: Recipe, describe: Describe, data_folder: Path, device: str, choose: KernelDispatcher
) -> list[Fault]:
    """Return a fault for each kernel that a study names and that cannot train its networks.

    Imports torch.
    """
    faults: dict[Fault, None] = {}
    tried: set[tuple[object, ...]] = set()
    for cell in recipe.cells:
        # "auto" chooses among kernels that can, but for several devices there is one alone
        if cell.kernel == "auto" and cell.devices == 1:
            continue
        # Cells with the same of these parts have the same answer.
        arithmetic = (cell.precision, cell.memory_format, cell.compiled)
        sharing = (cell.batch, cell.accumulate, cell.activation_checkpointing, cell.devices)
        identity = (cell.study, cell.kernel, arithmetic, sharing, deciding_parts(cell))
        if identity in tried:
            continue
        tried.add(identity)
        lab = CellLab(cell, describe, data_folder, device, choose)
        try:
            first_jobs(lab)
        except UsageError as error:
            slot, text = _blamed(str(error))
            if slot == "kernel" and cell.kernel == "auto":
                slot = "devices"
            faults[Fault(*recipe.place(cell.study, slot), text)] = None
        except (LotteryError, SystemExit):
            continue  # A component that breaks ends its own cells, when they run.
    return list(faults)
