"""Tickets of a run in other forms, for those who have neither the run nor its store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lotteryfw.api.errors import StoreError, UsageError, nearest, printable
from lotteryfw.runner.context import StudyContext
from lotteryfw.runner.seed_tickets import PARTS, save_seed_ticket
from lotteryfw.store import LoadedTicket, RunFolder, atomic_write, load_ticket, ticket_name

Form = Literal["values", "seed"]
"""values: every parameter and buffer, as plain safetensors. seed: the mask, and the seeds."""


def export(
    ticket: Path | str,
    out: Path | str,
    form: Form = "values",
    *,
    trust: Sequence[Path] = (),
    data: Path | None = None,
) -> None:
    """Write a ticket of a run, a file below its `tickets`, to `out` in another form.

    "seed" is for tickets whose weights were never trained: see `load_seed_ticket`, which reads it.
    It reads the run's resolved.toml, with the plugin files in `trust` and the data folder that the
    recipe was run with. Raises UsageError for a ticket that is not there, cannot be told that way,
    or is in no run's folder; StoreError for what cannot be read or written.
    """
    path = Path(ticket)
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        remedy = nearest(path.name, (path.name for path in folder.glob("*.safetensors")))
        raise UsageError(f"{path}: no such ticket" + (f" ({remedy})" if remedy else ""))
    loaded = load_ticket(path)
    _check_place(path, loaded)
    if form == "values":
        from safetensors.torch import save

        plain = {name: value.contiguous() for name, value in loaded.values.items()}
        atomic_write(Path(out), save(plain))
        return
    run = _run_folder(path)
    context = StudyContext(run / "resolved.toml", trust=trust, data=data)
    cells = {cell.id: cell for cell in context.recipe.cells}
    cell = cells.get(loaded.meta.get("cell", ""))
    if cell is None:
        raise UsageError(f"{path}: is of no cell of the run in {run}")
    specs = {slot: context.describe(getattr(cell, slot), cell.clock) for slot in PARTS}
    try:
        save_seed_ticket(Path(out), loaded, cell, specs, cell.data.facts(context.data_folder))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _run_folder(ticket: Path) -> Path:
    """Return the folder of the run that a ticket is in. Raises UsageError where there is none."""
    for folder in ticket.resolve().parents:
        if RunFolder(folder).exists():
            return folder
    raise UsageError(f"{ticket}: is in no run's folder; form 'seed' needs the run's resolved.toml")


def _check_place(path: Path, ticket: LoadedTicket) -> None:
    """Raise StoreError for a ticket that stands under another ticket's name in a run's folder."""
    meta = ticket.meta
    if path.parent.parent.name != "tickets" or not {"cell", "variant", "recorded"} <= meta.keys():
        return
    expected = ticket_name(meta["cell"], meta["variant"], int(meta["recorded"]))
    if expected != f"{path.parent.name}/{path.stem}":
        raise StoreError(
            f"{path}: holds the ticket of {printable(expected, 200)}: the run's files were exchanged; "
            "run the recipe again, which writes them anew"
        )
