"""The cells of a run that failed, as its manifest has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FailedCell:
    """A cell that failed: why, in a line, and the path of the traceback in the run's folder.

    Both are empty where the folder does not have them.
    """

    cell: str
    reason: str
    traceback: str


def failed_cells(manifest: Mapping[str, Any]) -> list[FailedCell]:
    """Return the cells that failed by a run's manifest, in its order."""
    known = manifest.get("failures")
    failed = []
    for cell, status in manifest.get("cells", {}).items():
        if status != "failed":
            continue
        failure = known.get(cell) if isinstance(known, dict) else None
        fields = failure if isinstance(failure, dict) else {}
        reason = str(fields.get("reason", "")).strip().partition("\n")[0]
        failed.append(FailedCell(cell, reason, str(fields.get("traceback", ""))))
    return failed
