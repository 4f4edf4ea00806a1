"""Pictures of masks: which weights of each layer a ticket keeps."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lotteryfw.report.data.best_level import best_rows
from lotteryfw.report.data.choice import partly_chosen
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import TICKET, Series, StudySeries
from lotteryfw.report.data.units import percent
from lotteryfw.store import LevelRow, load_ticket, ticket_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_TICKETS = 6
_MOST_LAYERS = 6  # with the tickets: some 36 pictures of at most 6 kB
_LONGEST_SIDE = 96
"""Pixels: larger masks are shown by the share that is kept in each block."""
_GREYS = 16  # as many as four bits hold, which halves the page


@dataclass(frozen=True)
class MaskPicture:
    """One picture as an address that holds its data, with its size in pixels and its caption."""

    source: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class TicketPictures:
    """The pictures of one ticket."""

    title: str
    pictures: tuple[MaskPicture, ...]


def mask_pictures(study: StudySeries, data: RunData) -> tuple[list[TicketPictures], str]:
    """Return pictures of one ticket of each series, and a note on what is left out.

    It is the ticket of the first seed, at the level that validation chooses. One whose file is gone
    has no picture. Raises StoreError for a damaged file.
    """
    shape = tuple(data.manifest.get("inputs", {}).get(study.name, ()))
    rows: list[tuple[Series, LevelRow, Path]] = []
    for series in study.series:
        row = _shown_row(series.rows) if series.variant == TICKET else None
        if row is not None:
            path = data.folder.ticket_path(ticket_name(row.cell, row.variant, row.level))
            if path.is_file():
                rows.append((series, row, path))

    tickets: list[TicketPictures] = []
    most_layers = 0
    for series, row, path in rows[:_MOST_TICKETS]:
        masks = {name: mask.numpy() for name, mask in load_ticket(path).mask.items()}
        title = f"{series.label}, seed {row.seed}, {percent(row.density)} % of the weights"
        pictures = tuple(_pictures(masks, shape))
        if pictures:
            most_layers = max(most_layers, len(masks))
            tickets.append(TicketPictures(title, pictures))
    if not tickets:
        return [], ""
    notes = (
        partly_chosen(_MOST_TICKETS, len(rows), "series"),
        partly_chosen(_MOST_LAYERS, most_layers, "layers"),
    )
    return tickets, " ".join(filter(None, notes))


def _shown_row(rows: Sequence[LevelRow]) -> LevelRow | None:
    chosen = best_rows(rows)
    return min(chosen, key=lambda row: row.seed, default=None)


def _pictures(masks: dict[str, NDArray[Any]], shape: Sequence[int]) -> Iterator[MaskPicture]:
    for index, (name, mask) in enumerate(masks.items()):
        if index == _MOST_LAYERS:
            return
        if index == 0 and mask.ndim == 2 and len(shape) == 3 and mask.shape[1] == prod(shape):
            yield _pixel_picture(name, mask, shape)
        if mask.ndim >= 2 and mask.size:
            # a row for each output, as torch stores weights
            flat = mask.reshape(mask.shape[0], -1)
            columns = "inputs" if mask.ndim == 2 else "inputs × kernel"
            text = f"{name}: {flat.shape[0]} outputs × {flat.shape[1]} {columns}"
            kept = f"{percent(float(mask.mean()))} % kept"
            yield _picture(_shares(flat), f"{text}, {kept}")


def _pixel_picture(name: str, mask: NDArray[Any], shape: Sequence[int]) -> MaskPicture:
    """Return how many of the first layer's weights each pixel of the input keeps."""
    counts = mask.sum(axis=0).reshape(shape).sum(axis=0)
    most = int(counts.max())
    text = f"{name} over the pixels of the input: white keeps {most} weights, black none"
    return _picture(counts / max(1, most), text)


def _shares(mask: NDArray[Any]) -> NDArray[Any]:
    """Return the share kept in blocks, of which there are at most 96 in either direction."""
    rows, columns = (ceil(length / _LONGEST_SIDE) for length in mask.shape)
    # blocks at the edge may be smaller, so each is divided by its own size
    starts = np.arange(0, mask.shape[0], rows), np.arange(0, mask.shape[1], columns)
    sums = np.add.reduceat(mask.astype(np.int64), starts[0], axis=0)
    sums = np.add.reduceat(sums, starts[1], axis=1)
    heights = np.diff([*starts[0], mask.shape[0]])
    widths = np.diff([*starts[1], mask.shape[1]])
    shares: NDArray[Any] = sums / np.outer(heights, widths)
    return shares


def _picture(shares: NDArray[Any], caption: str) -> MaskPicture:
    content = base64.b64encode(grey_png(shares)).decode()
    height, width = shares.shape
    return MaskPicture(f"data:image/png;base64,{content}", width, height, caption)


def grey_png(shares: NDArray[Any]) -> bytes:
    """Return a picture as PNG with four bits a pixel: 0 is black, 1 is white."""
    greys = np.rint(np.asarray(shares, dtype=np.float64) * (_GREYS - 1)).astype(np.uint8)
    if greys.shape[1] % 2:
        greys = np.pad(greys, ((0, 0), (0, 1)))
    packed = (greys[:, 0::2] << 4) | greys[:, 1::2]
    # every line begins with its filter: 0, none
    lines = np.pad(packed, ((0, 0), (1, 0))).tobytes()
    height, width = shares.shape
    header = struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)
    parts = [
        _chunk(b"IHDR", header),
        _chunk(b"IDAT", zlib.compress(lines, 9)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
