"""Networks and tickets of a run in forms that need neither the run nor its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lotteryfw.api.errors import StoreError, UsageError, nearest, printable
from lotteryfw.runner.context import StudyContext
from lotteryfw.runner.onnx_files import onnx_bytes
from lotteryfw.runner.run_networks import (
    find_row,
    initial_values,
    ticket_path,
    ticket_values,
    trained_values,
)
from lotteryfw.runner.seed_tickets import PARTS, save_seed_ticket
from lotteryfw.search.torchvision_weights import SAVED_BY_TORCH
from lotteryfw.store import (
    LevelRow,
    LoadedTicket,
    RunFolder,
    atomic_write,
    load_ticket,
    ticket_name,
)
from lotteryfw.store.tickets import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from lotteryfw.search.cell import Cell

Form = Literal["ticket", "trained", "initial", "prune", "seed"]
"""The weights to export: of the ticket, at the end of its training, at step 0 of the dense run; the
ticket with its masks in the form of torch.nn.utils.prune; or as a seed and a mask."""
_NEED_RUN = {
    "trained": "the trained weights are in the run's store",
    "initial": "the initial weights are in the run's ticket of level 0",
    "seed": "the run's resolved.toml says what the weights were drawn from",
}
_ONNX = ".onnx"


@dataclass(frozen=True)
class _Source:
    """A ticket, and the run and row that it belongs to; None for a lone ticket file."""

    ticket: LoadedTicket
    path: Path
    run: RunFolder | None
    row: LevelRow | None


def export(
    source: Path | str,
    out: Path | str,
    form: Form = "ticket",
    *,
    level: int | None = None,
    cell: str = "",
    variant: str = "ticket",
    trust: Sequence[Path] = (),
    data: Path | None = None,
    store: Path | None = None,
) -> None:
    """Write the network of a ticket to `out`, as a state dict in safetensors.

    `source` is a ticket's file, or a run's folder with the `level`, `cell` (its name or a part of
    it) and `variant` to select one. "ticket" has the values that training starts from, "trained"
    those at its end, "initial" those at step 0 of the dense run; masked weights have the values at
    which they are frozen. "prune" has the ticket's `weight_orig` and `weight_mask`, as
    `torch.nn.utils.prune` names them. "seed" is for tickets whose weights were never trained: see
    `load_seed_ticket`, which reads it.

    An `out` that ends in .onnx gets the network itself, with a batch of any size; this needs
    lotteryfw[onnx], the plugin files in `trust` and, for "seed" too, the data folder of the run.
    Raises UsageError for a source that is no ticket or not there, or that has no such form;
    StoreError for what cannot be read or written.
    """
    opened = _open(Path(source), level, cell, variant)
    path = Path(out)
    if path.suffix in SAVED_BY_TORCH:
        raise UsageError(
            f"{path}: a state dict is written as safetensors, and not as torch.save does it: name "
            f"the file {path.with_suffix('.safetensors').name}"
        )
    if path.suffix == _ONNX and form in ("prune", "seed"):
        raise UsageError(f"{path}: an ONNX file has weights only; form '{form}' is for safetensors")
    if form == "seed":
        _save_seed(opened, path, trust, data)
        return
    values = _values(opened, form, store)
    if path.suffix == _ONNX:
        run, row = _run_of(opened, "the run's resolved.toml says which network it is")
        context = StudyContext(run.path / "resolved.toml", trust=trust, data=data)
        # safetensors have no graph: the network is built again from the recipe
        atomic_write(path, onnx_bytes(context, _cell(context, run, row.cell, row.variant), values))
        return
    from safetensors.torch import save

    # safetensors refuses views, such as weights in the channels-last format
    plain = {name: value.contiguous() for name, value in values.items()}
    atomic_write(path, save(plain))


def _open(source: Path, level: int | None, cell: str, variant: str) -> _Source:
    """Return the ticket that a path and a selection name. Raises UsageError, StoreError."""
    run = RunFolder(source)
    if source.is_dir() and run.exists():
        row = find_row(run, level, cell, variant)
        path = ticket_path(run, row)
        return _Source(load_ticket(path), path, run, row)
    if not source.is_file():
        _refuse_absent(source)
    # ignoring a selection would export another ticket than was meant
    if level is not None or cell or variant != "ticket":
        raise UsageError(
            f"{source}: is one file; a level, cell or variant selects a ticket of a run's folder"
        )
    ticket = _load_ticket_file(source)
    _check_place(source, ticket)
    run_of_file = _run_folder(source)
    if run_of_file is None:
        return _Source(ticket, source, None, None)
    return _Source(ticket, source, run_of_file, _row_of(run_of_file, ticket.meta))


def _refuse_absent(path: Path) -> None:
    """Raise UsageError for a path that is no file."""
    folder = path if path.is_dir() else path.parent
    remedy = nearest(path.name, (file.name for file in folder.glob("*.safetensors")))
    if path.is_dir():
        raise UsageError(
            f"{path}: is neither a ticket's file nor the folder of a run"
            + (f" (tickets in it: {remedy.removeprefix('known: ')})" if remedy else "")
            + "; `lotteryfw runs` lists runs"
        )
    raise UsageError(f"{path}: no such ticket" + (f" ({remedy})" if remedy else ""))


def _load_ticket_file(path: Path) -> LoadedTicket:
    """Return the ticket in a file. Raises UsageError for a file that is something else."""
    try:
        return load_ticket(path)
    except StoreError as error:
        kind = _kind_of_file(path)
        if kind is None:
            raise  # a ticket, and damaged
        run = _run_folder(path)
        where = "tickets are below tickets/ in a run's folder; `lotteryfw runs` lists runs"
        if run is not None:
            where = (
                f"the tickets of this run are below {run.path / 'tickets'}, or name the run: "
                f"lotteryfw export {run.path} --level 1 --out FILE"
            )
        raise UsageError(f"{path}: is {kind}, not a ticket; {where}") from error


_NAMES = {
    "levels.csv": "a run's table of figures",
    "curves.jsonl": "a run's learning curves",
    "analyses.jsonl": "a run's results of analyses",
    "manifest.json": "a run's manifest",
    "resolved.toml": "a run's resolved recipe",
    "report.html": "a run's report",
}
_SUFFIXES = {
    ".toml": "a TOML file, such as a recipe",
    ".pt": "a file of torch.save, which may hold code and is never opened",
    ".pth": "a file of torch.save, which may hold code and is never opened",
    ".csv": "a table",
    ".json": "a JSON file",
    ".png": "a picture",
    _ONNX: "an ONNX file",
}


def _kind_of_file(path: Path) -> str | None:
    """Return what a file that is no readable ticket is; None for a damaged ticket."""
    if path.name in _NAMES:
        return _NAMES[path.name]
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]
    try:
        _, masks = read_tensors(path)
    except StoreError:
        # a name of that kind is a ticket that cannot be read; anything else is some other file
        return None if path.suffix == ".safetensors" else "some other file"
    return "a plain state dict, which needs no export" if not masks else None


def _run_folder(path: Path) -> RunFolder | None:
    """Return the run whose folder a file lies in; None where there is none."""
    # a ticket lies two folders below its run's, other files beside it
    for folder in path.resolve().parents:
        if RunFolder(folder).exists():
            return RunFolder(folder)
    return None


def _row_of(run: RunFolder, meta: Mapping[str, str]) -> LevelRow | None:
    """Return the row of levels.csv that a ticket belongs to; None where there is none."""
    # "recorded" and not "level": a search may record a ticket at another level than its own
    position = (meta.get("cell"), meta.get("variant"), meta.get("recorded"))
    for row in run.read_levels():
        if (row.cell, row.variant, str(row.level)) == position:
            return row
    return None


def _run_of(opened: _Source, reason: str) -> tuple[RunFolder, LevelRow]:
    """Return run and row of a ticket. Raises UsageError with the reason why they are needed."""
    if opened.run is None:
        raise UsageError(f"{opened.path}: is in no run's folder; {reason}")
    if opened.row is None:
        raise UsageError(f"{opened.path}: is of no row of levels.csv in {opened.run.path}")
    return opened.run, opened.row


def _values(opened: _Source, form: Form, store: Path | None) -> dict[str, Tensor]:
    if form == "ticket":
        return dict(opened.ticket.values)
    if form == "prune":
        return _prune_form(opened)
    run, row = _run_of(opened, _NEED_RUN[form])
    if form == "initial":
        return _initial(run, row, opened.ticket)
    return trained_values(run, row, store)


def _initial(run: RunFolder, row: LevelRow, ticket: LoadedTicket) -> dict[str, Tensor]:
    """Return the values at step 0 of the dense run, in the shapes of the ticket's network.

    Raises UsageError where the network of a target has other shapes than the dense run, and the
    level 0 of the target was not recorded.
    """
    dense = initial_values(run, row)
    if all(dense[name].shape == value.shape for name, value in ticket.values.items()):
        return dense
    # The ticket of a target's level 0 has the dense run's values, and the output layer of its own.
    for other in run.read_levels():
        if (other.cell, other.variant, other.level) == (row.cell, row.variant, 0):
            return ticket_values(run, other)
    raise UsageError(
        f"{run.path}: the target '{printable(row.variant, 200)}' has another output layer than the "
        "dense run, and its level 0, whose ticket has its initial weights, was not recorded; name "
        "level 0 among the target's `levels` and run the recipe again"
    )


def _prune_form(opened: _Source) -> dict[str, Tensor]:
    """Return the ticket as `torch.nn.utils.prune` keeps it in a state dict.

    Raises UsageError where it freezes weights at other values than 0, which that form cannot say.
    """
    values: dict[str, Tensor] = {}
    for name, value in opened.ticket.values.items():
        mask = opened.ticket.mask.get(name)
        if mask is None:
            values[name] = value
            continue
        if bool(value[~mask].any()):
            raise UsageError(
                f"{opened.path}: '{name}' has masked weights that are frozen at other values than "
                "0, which torch.nn.utils.prune cannot express; form 'ticket' has them as they are"
            )
        values[f"{name}_orig"] = value
        # a mask there has the dtype of its weights
        values[f"{name}_mask"] = mask.to(value.dtype)
    return values


def _save_seed(opened: _Source, out: Path, trust: Sequence[Path], data: Path | None) -> None:
    run = opened.run
    if run is None:
        raise UsageError(f"{opened.path}: is in no run's folder; {_NEED_RUN['seed']}")
    context = StudyContext(run.path / "resolved.toml", trust=trust, data=data)
    meta = opened.ticket.meta
    name, variant = meta.get("cell", ""), meta.get("variant", "ticket")
    cell = _cell(context, run, name, variant)
    if _outputs(context, cell) != _outputs(context, _cell(context, run, name)):
        raise UsageError(
            f"{opened.path}: the target '{printable(variant, 200)}' has an output layer of its "
            "own, whose weights are not drawn with those of the network, so one seed cannot tell "
            "this ticket; the ticket's own file has them"
        )
    specs = {slot: context.describe(getattr(cell, slot), cell.clock) for slot in PARTS}
    facts = cell.data.facts(context.data_folder)
    try:
        save_seed_ticket(out, opened.ticket, cell, specs, facts)
    except UsageError as error:
        raise UsageError(f"{opened.path}: {error}") from None


def _outputs(context: StudyContext, cell: Cell) -> int:
    """Return the number of outputs of a cell's network."""
    facts = cell.data.facts(context.data_folder)
    return cell.objective.output_size(facts.shape, facts.classes)


def _cell(context: StudyContext, run: RunFolder, name: str, variant: str = "ticket") -> Cell:
    """Return the cell of this name; for a variant that is one of its targets, the target's."""
    for cell in context.recipe.cells:
        if cell.id == name:
            targets = {target.name: target.cell for target in cell.targets}
            return targets.get(variant, cell)
    raise UsageError(f"{run.path}: its recipe has no cell '{printable(name, 200)}'")


def _check_place(path: Path, ticket: LoadedTicket) -> None:
    """Raise StoreError for a ticket that stands under another ticket's name in a run's folder."""
    meta = ticket.meta
    if path.parent.parent.name != "tickets" or not {"cell", "variant", "recorded"} <= meta.keys():
        return
    try:
        level = int(meta["recorded"])
    except ValueError:
        raise StoreError(
            f"{path}: damaged: '{printable(meta['recorded'], 200)}' is no level"
        ) from None
    expected = ticket_name(meta["cell"], meta["variant"], level)
    if expected != f"{path.parent.name}/{path.stem}":
        raise StoreError(
            f"{path}: holds the ticket of {printable(expected, 200)}: the run's files were "
            "exchanged; run the recipe again, which writes them anew"
        )
