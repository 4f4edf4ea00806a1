"""Tickets as a seed and a mask.

Weights that were only drawn, and never trained, can be drawn again: a file that says from what, and
which of them are alive, takes a bit for each weight.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.digests import tensors_digest
from lotteryfw.api.errors import LotteryError, StoreError, UsageError, nearest
from lotteryfw.api.rng import Stream, seed_of
from lotteryfw.registry import Registry
from lotteryfw.search.guard import blame
from lotteryfw.search.initial_state import (
    InitialState,
    initial_state,
    prunable_names,
    require_memory,
    supermask_values,
    without_memory,
)
from lotteryfw.search.jobs import Spec
from lotteryfw.store import tensors
from lotteryfw.store.tickets import DRAWN, LoadedTicket

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lotteryfw.api.component import Component
    from lotteryfw.search.cell import Cell

PARTS = ("model", "initialiser", "mask1", "objective")
"""The components of a cell that decide what its network starts from."""


class _Source(NamedTuple):
    """The seeds and the components that a network's first values are drawn from."""

    seed: int
    init_seed: int
    info: DatasetInfo
    specs: Mapping[str, Spec]

    def draw(self, parts: Mapping[str, Component]) -> tuple[InitialState, dict[str, Tensor]]:
        """Return the network's initial state, and the values that masks are learned over."""
        components: Any = SimpleNamespace(**parts)
        initial = initial_state(components, self.specs, self.info, self.init_seed)
        seeds = (self.seed, self.init_seed)
        return initial, supermask_values(components, self.specs, initial, *seeds)


def save_seed_ticket(
    path: Path, ticket: LoadedTicket, cell: Cell, specs: Mapping[str, Spec], facts: DatasetInfo
) -> None:
    """Write a ticket of a cell without its weights. `specs` names the cell's `PARTS` as jobs do.

    Buffers that training changed (batch norm's statistics) are kept as they are, and so is one
    factor for each layer that rescaling multiplied its weights with. Raises UsageError for a
    ticket whose weights are not those that the mask-1 action makes of the initialisation, 0 where
    they are dead; StoreError where the file cannot be written.
    """
    source = _Source(cell.seed, cell.seeds.init, facts, specs)
    # Drawn here as a reader will draw them: what differs cannot be told by a seed.
    start, drawn = source.draw({slot: getattr(cell, slot) for slot in PARTS})
    factors: dict[str, float] = {}
    for name, mask in ticket.mask.items():
        factors[name] = _factor(drawn[name][mask], ticket.values[name][mask])
    # Of the buffers only those that are not as they were drawn have to be in the file.
    rest: dict[str, Tensor] = {}
    for name in drawn:
        if name in start.buffers and _count_different(ticket.values[name], drawn[name]):
            rest[name] = ticket.values[name]

    values = _values(drawn, ticket.mask, factors, rest)
    changed: list[str] = []
    for name, value in values.items():
        count = _count_different(ticket.values[name], value)
        if count:
            changed.append(f"{count:,} of '{name}'")
    if changed:
        counts = ", ".join(changed)
        raise UsageError(
            "this ticket cannot be told by a seed: its weights are not the ones that were drawn at "
            f"the initialisation ({counts}). They were trained, or changed while the mask was "
            "learned; the ticket's own file has them"
        )
    recorded = {
        "seed": source.seed,
        "init_seed": source.init_seed,
        "shape": list(facts.shape),
        "classes": facts.classes,
        "vocabulary": facts.vocabulary,
        "parts": {slot: specs[slot].canonical() for slot in PARTS},
        "factors": {name: factor for name, factor in factors.items() if factor != 1},
        "torch": version("torch"),
        "sha256": tensors_digest(values),
    }
    tensors.save(
        path, rest, ticket.mask, {**ticket.meta, DRAWN: json.dumps(recorded)}, checksum=True
    )


def load_seed_ticket(
    path: Path | str, trust: Sequence[Path] = ()
) -> tuple[nn.Module, LoadedTicket]:
    """Return the network and the ticket that `lotteryfw export` wrote as a seed, on the CPU.

    No data set is needed.

    The weights are drawn again and held against the SHA-256 of the ones that were exported: they
    are the same to the bit. A network whose code may compute otherwise, being of another version,
    brings a UserWarning. `trust` names plugin files that its components are in. Raises StoreError
    for a file that is damaged or no such ticket, whose network cannot be built or has other shapes
    than its masks, which is looked at before anything is drawn, and where other weights are drawn
    here; UsageError where a component is not here.
    """
    path = Path(path)
    rest, masks, meta = tensors.load_checked(path)
    if DRAWN not in meta:
        raise StoreError(f"{path}: no ticket without weights; load_ticket reads one that has them")
    recorded = _read_drawn(path, meta.pop(DRAWN))
    specs: dict[str, Spec] = {}
    for slot, part in recorded.parts.items():
        specs[slot] = Spec(part.kind, part.use, part.provider, part.options)
    shape, vocabulary = tuple(recorded.shape), recorded.vocabulary
    info = DatasetInfo(shape, recorded.classes, 0, 0, 0, vocabulary=vocabulary)
    source = _Source(recorded.seed, recorded.init_seed, info, specs)
    registry = Registry.load(trust)
    parts = {slot: _component(path, registry, spec) for slot, spec in specs.items()}
    try:
        _compare_shapes(source, parts, masks, rest)
        drawn = source.draw(parts)[1]
    except LotteryError as error:
        raise StoreError(f"{path}: its network cannot be built: {error}") from error
    # again, for a network that could not be built without memory
    _require_same_shapes(path, drawn, masks, rest)
    values = _values(drawn, masks, recorded.factors, rest)
    # Another version may draw the same weights, so a difference alone refuses nothing.
    differs = _differences(registry, specs, parts, recorded.torch)
    if tensors_digest(values) != recorded.sha256:
        why = (
            f"; here is another {', another '.join(differs)}"
            if differs
            else "; the machines draw differently"
        )
        raise StoreError(f"{path}: the weights drawn here are not the ones that were exported{why}")
    if differs:
        warnings.warn(
            f"{path}: same weights, but here is another {', another '.join(differs)}", stacklevel=2
        )
    # The digest matched: from here on it is a ticket like one that has its weights.
    ticket = LoadedTicket(masks, values, meta)
    return ticket.apply(_network(source, parts)), ticket


class _Part(BaseModel):
    """A component as a seed ticket names it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str
    use: str
    provider: str
    options: dict[str, Any]


class _Drawn(BaseModel):
    """The JSON entry in a seed ticket from which its weights are drawn again."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    # The limits are far above any network's: a file that exceeds them is damaged or hostile.
    seed: Annotated[int, Field(ge=0, le=2**64)]
    init_seed: Annotated[int, Field(ge=0, le=2**64)]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=2**40)]], Field(min_length=1, max_length=8)]
    classes: Annotated[int, Field(ge=1, le=2**40)]
    vocabulary: Annotated[int, Field(ge=0, le=2**40)] = 0
    parts: dict[str, _Part]
    factors: dict[str, float]
    torch: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _complete(self) -> _Drawn:
        if set(self.parts) != set(PARTS):
            raise ValueError(f"`parts` must be {', '.join(PARTS)}")
        for slot, part in self.parts.items():
            if part.kind != slot:
                raise ValueError(f"the {slot} is a {part.kind}")
        return self


def _read_drawn(path: Path, text: str) -> _Drawn:
    try:
        return _Drawn.model_validate(json.loads(text))
    except ValidationError as error:
        # One fault is enough: such a file was not written by hand, and cannot be mended.
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, (DRAWN, *first["loc"])))
        raise StoreError(
            f"{path}: damaged, or not a file of lotteryfw's ({key}: {first['msg']})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path}: damaged, or not a file of lotteryfw's ({DRAWN}: {error})"
        ) from None


def _compare_shapes(
    source: _Source,
    parts: Mapping[str, Any],
    masks: Mapping[str, Tensor],
    rest: Mapping[str, Tensor],
) -> None:
    """Raise StoreError where the network has other shapes than the file, before it takes memory.

    A file of a kilobyte can name a network of gigabytes. A network that only real memory can hold
    is not looked at.
    """
    specs = source.specs
    with blame(specs["objective"], "output_size"):
        outputs = parts["objective"].output_size(source.info.shape, source.info.classes)
    module = without_memory(parts["model"], specs["model"], source.info, outputs)
    if module is None:
        return
    require_memory(specs["model"], module)
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    names = prunable_names(parts["model"], specs["model"], module)
    _require_same_shapes(None, values, masks, rest)
    if set(names) != set(masks):
        raise StoreError("its masks are not those of the network's prunable parameters")


def _require_same_shapes(
    path: Path | None,
    values: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    rest: Mapping[str, Tensor],
) -> None:
    where = f"{path}: " if path else ""
    for name, kept in [*masks.items(), *rest.items()]:
        value = values.get(name)
        if value is None:
            raise StoreError(f"{where}the network has no '{name}'; {nearest(name, values)}")
        if value.shape != kept.shape:
            shapes = f"{list(kept.shape)} in the file and {list(value.shape)} in the network"
            raise StoreError(f"{where}'{name}' is {shapes}")
    for name, kept in rest.items():
        if values[name].dtype != kept.dtype:
            raise StoreError(
                f"{where}'{name}' is {kept.dtype} in the file "
                f"and {values[name].dtype} in the network"
            )


def _component(path: Path, registry: Registry, spec: Spec) -> Any:
    try:
        # In the version that is here: what differs is found by the checksum, and named.
        return registry.from_job(spec.kind, spec.use, None, spec.options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # a component or a function among the options that is not here
        if first["type"] == "component":
            raise _missing(path, spec, first["msg"]) from None
        raise StoreError(
            f"{path}: the {spec.kind} '{spec.use}' cannot have these options: {error}"
        ) from None
    except UsageError as error:
        raise _missing(path, spec, error) from None


def _missing(path: Path, spec: Spec, reason: object) -> UsageError:
    return UsageError(f"{path}: needs the {spec.kind} '{spec.use}' of {spec.provider}: {reason}")


def _differences(
    registry: Registry, specs: Mapping[str, Spec], parts: Mapping[str, Any], torch_then: str
) -> list[str]:
    """Return what has another version here than at the export."""
    differences: list[str] = []
    if version("torch") != torch_then:
        differences.append(f"torch ({version('torch')}, not {torch_then})")
    for slot, spec in specs.items():
        provider = registry.provider_of(parts[slot])
        if provider != spec.provider:
            differences.append(f"{spec.kind} '{spec.use}' ({provider}, not {spec.provider})")
    return differences


def _network(source: _Source, parts: Mapping[str, Any]) -> nn.Module:
    """Build the network as a training does: with the same seed for all that is not in its state."""
    import torch

    outputs = parts["objective"].output_size(source.info.shape, source.info.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(Stream.NETWORK, source.specs["model"].digest))
        module: nn.Module = parts["model"].build_for(source.info, outputs)
    return module


def _values(
    drawn: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    factors: Mapping[str, float],
    rest: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return a ticket's values: drawn weights times factors, 0 where masked, and `rest`."""
    import torch

    kept: dict[str, Tensor] = {}
    for name, mask in masks.items():
        factor = torch.tensor(factors.get(name, 1.0))
        kept[name] = torch.where(mask, drawn[name] * factor, torch.zeros(()))
    return {**drawn, **kept, **rest}


def _factor(drawn: Tensor, held: Tensor) -> float:
    """Return the float32 whose product with `drawn` [n] is `held` [n] to the bit; 1 if none is."""
    import torch

    if not len(drawn) or torch.equal(drawn, held):
        return 1.0
    largest = drawn.abs().argmax()
    about = (held[largest] / drawn[largest]).view(torch.int32)
    # The quotient is rounded, and so was the product: they are two steps away at most.
    for ulps in (0, -1, 1, -2, 2):
        factor = (about + ulps).view(torch.float32)
        if torch.equal(drawn * factor, held):
            return float(factor)
    return 1.0


def _count_different(one: Tensor, other: Tensor) -> int:
    """Return in how many elements two tensors of one shape differ in any bit."""
    import torch

    # As bytes, a row for each element: -0.0 equals 0.0, and a NaN equals nothing.
    first = one.reshape(-1, 1).contiguous().view(torch.uint8)
    second = other.reshape(-1, 1).contiguous().view(torch.uint8)
    return int((first != second).any(1).sum())
