"""The networks of a run: rows of levels.csv by level and cell, and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.api.errors import UsageError, nearest
from lotteryfw.engine.outcomes import StoredOutcome
from lotteryfw.store import REWOUND, LevelRow, RunFolder, Store, load_ticket, ticket_name

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 10
"""Cells that a message lists: of a large study nobody reads more."""


def find_row(
    folder: RunFolder, level: int | None, cell: str = "", variant: str = "ticket"
) -> LevelRow:
    """Return the one row of levels.csv that these select.

    `cell` is a cell's name or a part of it, such as "criterion=random/seed=0". Raises UsageError
    where no row or several rows match, with what there is.
    """
    rows = folder.read_levels()
    if not rows:
        raise UsageError(f"{folder.path}: no level is finished yet, so there is nothing to export")
    of_cell = _of_cell(folder, rows, cell)
    of_variant = [row for row in of_cell if row.variant == variant]
    if not of_variant:
        variants = nearest(variant, {row.variant for row in of_cell})
        raise UsageError(f"{folder.path}: these cells have no variant '{variant}'; {variants}")
    levels = sorted({row.level for row in of_variant})
    if level is None and len(levels) > 1:
        raise UsageError(f"{folder.path}: which level? Choose one with --level: {_listed(levels)}")
    # a study of single levels, such as learned masks, leaves no choice
    wanted = levels[0] if level is None else level
    matches = [row for row in of_variant if row.level == wanted]
    if not matches:
        raise UsageError(f"{folder.path}: there is no level {wanted}; there are {_listed(levels)}")
    if len(matches) > 1:
        cells = [row.cell for row in matches]
        raise UsageError(
            f"{folder.path}: {len(cells)} cells have level {wanted}; choose one with --cell, its "
            f"name or a part of it:\n  {_shown(cells)}"
        )
    return matches[0]


def _of_cell(folder: RunFolder, rows: Sequence[LevelRow], cell: str) -> list[LevelRow]:
    # a whole name first: it may be a part of another cell's name, as "seed=1" is of "seed=10"
    exact = [row for row in rows if row.cell == cell]
    matches = exact or [row for row in rows if cell in row.cell]
    if not matches:
        cells = list(dict.fromkeys(row.cell for row in rows))
        raise UsageError(
            f"{folder.path}: no cell's name contains '{cell}'; there are:\n  {_shown(cells)}"
        )
    return matches


def _listed(levels: Iterable[int]) -> str:
    return ", ".join(map(str, levels))


def _shown(cells: Sequence[str]) -> str:
    # A study may have thousands of cells, and the message is for a terminal.
    lines = list(cells[:_SHOWN])
    if len(cells) > _SHOWN:
        lines.append(f"and {len(cells) - _SHOWN} more, in levels.csv")
    return "\n  ".join(lines)


def ticket_path(folder: RunFolder, row: LevelRow) -> Path:
    """Return the path of a row's ticket."""
    return folder.ticket_path(ticket_name(row.cell, row.variant, row.level))


def ticket_values(folder: RunFolder, row: LevelRow) -> dict[str, Tensor]:
    """Return the parameters and buffers that a row's training starts from. Raises StoreError."""
    return dict(load_ticket(ticket_path(folder, row)).values)


def trained_values(
    folder: RunFolder, row: LevelRow, store: Path | None = None
) -> dict[str, Tensor]:
    """Return the parameters and buffers at the end of a row's training, from the run's store.

    Masked weights have the values at which they are frozen. Where the training learned a mask, the
    weights are those that the network computes with under it. Raises UsageError where nothing was
    trained, the store lacks it, or the mask was learned together with weights that were rewound
    then; StoreError where it is damaged.
    """
    where = f"{folder.path}: level {row.level} of {row.cell}"
    if row.variant != "ticket":
        where += f", variant '{row.variant}'"
    if row.status != "done":
        raise UsageError(f"{where}: the training diverged, so it has no weights")
    if row.steps == 0:
        raise UsageError(
            f"{where}: this network was not trained; its weights are those of its ticket "
            "(--as ticket)"
        )
    if row.learned:
        # The mask is known at the end of its training, and mostly its ticket has the weights of
        # that end.
        ticket = load_ticket(ticket_path(folder, row))
        if REWOUND in ticket.meta:
            raise UsageError(
                f"{where}: mask and weights were trained together, and then the ticket was "
                "rewound, so that no file has these weights under the mask; with retrain = true "
                "the search trains the ticket as well (--variant retrained)"
            )
        return dict(ticket.values)
    # A run's folder has no trained weights: they would be many times its size.
    opened = Store(store or _recorded_store(folder))
    if not opened.is_sealed(row.key):
        raise UsageError(
            f"{where}: its trained weights are not in the store {opened.root}; name the run's "
            "store with --store (store= in Python), or run the recipe again, which trains them"
        )
    return dict(StoredOutcome(opened, row.key).tensors().values)


def _recorded_store(folder: RunFolder) -> Path:
    recorded = folder.read_manifest().get("store")
    if not isinstance(recorded, str):
        raise UsageError(
            f"{folder.path}: its manifest names no store; name one with --store (store= in Python)"
        )
    return Path(recorded)


def initial_values(folder: RunFolder, row: LevelRow) -> dict[str, Tensor]:
    """Return the parameters and buffers at step 0 of the dense run of a row's cell.

    Raises UsageError where the search recorded no dense run.
    """
    for other in folder.read_levels():
        # The dense ticket has the values of step 0, so that nothing has to be drawn again.
        is_start = other.cell == row.cell and other.variant == "ticket" and other.level == 0
        if is_start and not other.learned:
            return ticket_values(folder, other)
    raise UsageError(
        f"{folder.path}: the search of {row.cell} recorded no dense run, whose ticket has the "
        "initial weights"
    )
