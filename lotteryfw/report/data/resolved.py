"""The run's resolved recipe, as far as a report has to know it."""

from __future__ import annotations

import tomllib
from typing import Any

from lotteryfw.api.errors import StoreError
from lotteryfw.store import RunFolder


def read_resolved(folder: RunFolder) -> dict[str, Any]:
    """resolved.toml as plain data. Raises StoreError where it cannot be read."""
    path = folder.path / "resolved.toml"
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
