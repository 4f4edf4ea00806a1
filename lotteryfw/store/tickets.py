"""Tickets in files, and how they are put to use on any nn.Module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lotteryfw.api.errors import StoreError, UsageError, nearest
from lotteryfw.api.tickets import MaskStats
from lotteryfw.store import tensors
from lotteryfw.store.strict_json import parse_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lotteryfw.api.tickets import Ticket

STATS = "stats"
"""What `meta` has of how much a ticket keeps: as JSON what was requested, the weights kept in each
layer, and the layers' sizes."""
REWOUND = "rewound"
"""What `meta` has of a ticket whose values are of an earlier step than its mask."""
DRAWN = "drawn"
"""What `meta` has of a ticket whose values are not in its file but are to be drawn again."""


@dataclass(frozen=True)
class LoadedTicket:
    """A ticket read from a file.

    `mask` holds a bool tensor for each pruned parameter (True = alive), `values` every parameter
    and buffer that training starts from (dead weights at the values they are frozen at), `meta`
    what is told about them.
    """

    mask: Mapping[str, Tensor] = field(repr=False)
    values: Mapping[str, Tensor] = field(repr=False)
    meta: Mapping[str, str]

    @property
    def density(self) -> float:
        """Kept over all, of the weights that have a mask, in [0, 1]."""
        kept = sum(int(mask.sum()) for mask in self.mask.values())
        return kept / sum(mask.numel() for mask in self.mask.values()) if self.mask else 1.0

    def apply(
        self, module: nn.Module, *, masks_as: Literal["values", "prune"] = "values"
    ) -> nn.Module:
        """Copy the values into `module`, keeping its dtypes and devices, and return it.

        "prune" also registers the masks in the form of `torch.nn.utils.prune`, so that training
        leaves the dead at 0. Raises UsageError, before anything is changed, where names or shapes
        do not match; and for "prune" where the ticket freezes dead weights at other values than 0,
        which that form cannot express.
        """
        import torch
        from torch.nn.utils import prune

        # with duplicates: a tied weight has several names, and the ticket may use any of them
        targets = dict(module.named_parameters(remove_duplicate=False)) | dict(
            module.named_buffers()
        )
        parameters = dict(module.named_parameters(remove_duplicate=False))
        faults = self._mismatches(targets, {name for name, _ in module.named_parameters()})
        if masks_as == "prune":
            faults += self._not_prunable(set(parameters))
        if faults:
            raise UsageError(
                f"this ticket does not fit {type(module).__name__}:\n  " + "\n  ".join(faults)
            )
        with torch.no_grad():
            for name, value in self.values.items():
                targets[name].copy_(value)
        if masks_as == "prune":
            for name, mask in self.mask.items():
                owner, _, parameter = name.rpartition(".")
                prune.custom_from_mask(
                    module.get_submodule(owner), parameter, mask.to(targets[name].device)
                )  # type: ignore[no-untyped-call]
        return module

    def _not_prunable(self, parameters: set[str]) -> list[str]:
        """Return a line for everything that `torch.nn.utils.prune` cannot express of this ticket."""
        faults = []
        for name, mask in self.mask.items():
            value = self.values.get(name)
            if value is None:
                faults.append(
                    f"'{name}' has a mask in the ticket, and no value; {nearest(name, self.values)}"
                )
            elif value.shape != mask.shape:
                faults.append(f"'{name}' is {list(value.shape)}, and its mask {list(mask.shape)}")
            elif name not in parameters:
                faults.append(
                    f"'{name}' has a mask in the ticket, and is no parameter of the module"
                )
            elif value[~mask].any():
                faults.append(
                    f"'{name}': its dead weights are frozen at other values than 0, which "
                    'torch.nn.utils.prune cannot express; use masks_as="values"'
                )
        return faults

    def _mismatches(self, targets: Mapping[str, Tensor], parameters: set[str]) -> list[str]:
        faults = []
        for name, value in self.values.items():
            if name not in targets:
                faults.append(
                    f"'{name}' {list(value.shape)} is not in the module; {nearest(name, targets)}"
                )
            elif targets[name].shape != value.shape:
                faults.append(
                    f"'{name}' is {list(value.shape)} here "
                    f"and {list(targets[name].shape)} in the module"
                )
        missing = sorted(parameters - set(self.values))
        return faults + [
            f"the module's '{name}' is not in the ticket; {nearest(name, self.values)}"
            for name in missing
        ]


def save_ticket(path: Path, ticket: Ticket, meta: Mapping[str, str] | None = None) -> None:
    """Writes a ticket's mask and values, with its origin, level, statistics and `meta` as text.

    Raises StoreError.
    """
    stats = ticket.cut
    about = _identity(ticket, meta)
    about[STATS] = json.dumps([stats.requested, dict(stats.kept), dict(stats.sizes)])
    # not flushed: a rerun writes it again from the store
    tensors.save(path, ticket.values, ticket.mask, about, flush=False, checksum=True)


def saved_stats(
    path: Path, ticket: Ticket, meta: Mapping[str, str] | None = None
) -> MaskStats | None:
    """Return the statistics in the file that `save_ticket` would write, without reading a tensor.

    None where the file is absent, or is that of another ticket or of other `meta`. That its content
    is intact is for the caller to know.
    """
    try:
        about = tensors.load_meta(path)
        requested, kept, sizes = parse_json(about.pop(STATS))
    except (StoreError, KeyError, ValueError, TypeError):
        return None  # whatever is wrong with the file: it is written again
    return MaskStats(requested, kept, sizes) if about == _identity(ticket, meta) else None


def _identity(ticket: Ticket, meta: Mapping[str, str] | None) -> dict[str, str]:
    about = {**(meta or {}), "origin": ticket.origin, "level": str(ticket.level)}
    if ticket.root is not None:
        about[REWOUND] = "true"
    return about


def read_tensors(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Return the values and masks of a ticket, or of a plain state dict as safetensors.

    A state dict has no masks. Raises StoreError for any other file.
    """
    plain = tensors.load_plain(path)
    if plain is not None:
        return plain, {}
    ticket = load_ticket(path)
    return ticket.values, ticket.mask


def load_ticket(path: Path | str) -> LoadedTicket:
    """Read a ticket, and check it against its checksum.

    Raises StoreError where the file is absent, damaged or something else. A file of an older
    version, which has no checksum, brings a UserWarning.
    """
    path = Path(path)
    values, masks, meta = tensors.load_checked(path)
    if DRAWN in meta:
        raise StoreError(
            f"{path}: has a seed in the place of its values; load_seed_ticket draws them again"
        )
    return LoadedTicket(mask=masks, values=values, meta=meta)
