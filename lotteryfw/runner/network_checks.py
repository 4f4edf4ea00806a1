"""Checks before any training that the models of a recipe fit their data."""

from __future__ import annotations

from pathlib import Path

from lotteryfw.api.errors import Fault, PluginError, StoreError, UsageError
from lotteryfw.recipe import Recipe
from lotteryfw.search.built_optimizer import build_optimizer
from lotteryfw.search.cell import Cell
from lotteryfw.search.context import Describe
from lotteryfw.search.initial_state import InitialState, refuse_oversized
from lotteryfw.search.jobs import Spec
from lotteryfw.search.lab import CellLab
from lotteryfw.search.start_file import StartFile
from lotteryfw.search.targets import new_head

_NAMED = ("initialiser", "data", "objective", "rewind")
"""Slots whose name begins the text of an error about the component that stands there."""


def network_faults(
    recipe: Recipe, describe: Describe, data_folder: Path, device: str
) -> list[Fault]:
    """Return a fault for each model that cannot be built, or fits neither data nor memory.

    The fault stands at the model, or at the initialiser or start file that is to blame. Imports
    torch.
    """
    faults: dict[Fault, None] = {}
    checked: set[tuple[int, ...]] = set()
    for cell in recipe.cells:
        # The cells of a study share their components.
        parts = [cell.model, cell.data, cell.objective, cell.initialiser, cell.optimizer]
        for target in cell.targets:
            parts += [target.cell.data, target.cell.objective]
        identity = tuple(map(id, parts))
        if identity in checked:
            continue
        checked.add(identity)
        try:
            network = _network_of(cell, describe, data_folder, device)
        except (PluginError, UsageError, StoreError) as error:
            slot, text = _blamed(str(error), cell.start)
            faults[Fault(*recipe.place(cell.study, slot), text)] = None
            continue
        text = _optimizer_misfit(cell, network, describe(cell.optimizer, cell.clock))
        if text:
            faults[Fault(*recipe.place(cell.study, "optimizer"), text)] = None
        for target in cell.targets:
            try:
                new_head(network, _network_of(target.cell, describe, data_folder, device))
            except (PluginError, UsageError, StoreError) as error:
                faults[Fault(*target.written_at, str(error))] = None
    return list(faults)


def _network_of(cell: Cell, describe: Describe, data_folder: Path, device: str) -> InitialState:
    context = CellLab(cell, describe, data_folder, device).context
    # Before it takes any memory.
    refuse_oversized(cell, context.specs, cell.data.facts(data_folder))
    return context.initial


def _optimizer_misfit(cell: Cell, network: InitialState, spec: Spec) -> str:
    """Return why no optimizer is built over the network's parameters; empty if one is.

    A pattern of names that names nothing would otherwise end every training at its first step.
    """
    # a search that learns masks may train scores and no weights
    if cell.parametrization is not None:
        return ""
    parameters = {}
    for name, value in network.values.items():
        if name not in network.buffers:
            parameters[name] = value.clone().requires_grad_()
    try:
        build_optimizer(cell.optimizer, spec, parameters)
    except (PluginError, UsageError) as error:
        return str(error)
    return ""


def _blamed(text: str, start: StartFile | None) -> tuple[str, str]:
    """Return the slot that an error is about, and its text without a name for that slot."""
    for slot in _NAMED:
        if text.startswith(f"{slot} '"):
            return slot, text
    if text.startswith("start: "):
        return "start", text.removeprefix("start: ")
    if start is not None and text.startswith(str(start.path)):
        return "start", text
    return "model", text
