"""Tickets of a run in other forms, for those who have neither the run nor its store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lotteryfw.api.errors import UsageError, nearest
from lotteryfw.runner.desk import Desk
from lotteryfw.runner.seed_tickets import PARTS, save_seed_ticket
from lotteryfw.store import RunFolder, atomic_write, load_ticket

Form = Literal["values", "seed"]
"""values: every parameter and buffer as a plain safetensors file. seed: the mask and what draws the weights again."""


def export(
    ticket: Path | str,
    out: Path | str,
    form: Form = "values",
    *,
    trust: Sequence[Path] = (),
    data: Path | None = None,
) -> None:
    """Writes a ticket of a run, a file below its `tickets`, to `out` in another form.

    "seed" is for tickets whose weights were never trained: see `load_seed_ticket`, which reads it. It reads the run's
    resolved.toml, with the plugin files in `trust` and the data folder that the recipe was run with. Raises UsageError
    for a ticket that is not there, cannot be told that way, or is in no run's folder; StoreError for what cannot be
    read or written.
    """
    path = Path(ticket)
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        remedy = nearest(path.name, (each.name for each in folder.glob("*.safetensors")))
        raise UsageError(f"{path}: no such ticket" + (f" ({remedy})" if remedy else ""))
    found = load_ticket(path)
    if form == "values":
        from safetensors.torch import save

        plain = {name: value.contiguous() for name, value in found.values.items()}
        atomic_write(Path(out), save(plain))
        return
    run = next((folder for folder in path.resolve().parents if RunFolder(folder).exists()), None)
    if run is None:
        raise UsageError(
            f"{path}: is in no run's folder; form 'seed' has to know what the run's resolved.toml says"
        )
    desk = Desk(run / "resolved.toml", trust=trust, data=data)
    cell = next((cell for cell in desk.recipe.cells if cell.id == found.meta.get("cell")), None)
    if cell is None:
        raise UsageError(f"{path}: is of no cell of the run in {run}")
    specs = {slot: desk.describe(getattr(cell, slot), cell.clock) for slot in PARTS}
    try:
        save_seed_ticket(Path(out), found, cell, specs, cell.data.facts(desk.data_folder))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
