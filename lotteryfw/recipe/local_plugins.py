"""Looks for a component in plugin files that lie beside a recipe, to say that they are not trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MOST_FILES = 100
_MOST_BYTES = 1_000_000
"""Limits of a search that only improves a message: files in a folder, and bytes of a file."""


def offering_file(name: str, folders: Iterable[Path]) -> Path | None:
    """Return a Python file in one of the folders that offers a component of this name.

    The file is read as text: its code does not run. None where there is no such file.
    """
    # A component writes its name as `use = "name"`.
    pattern = re.compile(rf"""^\s+use\s*(?::[^=\n]*)?=\s*["']{re.escape(name)}["']""", re.MULTILINE)
    for folder in dict.fromkeys(folders):
        # a folder that cannot be listed has nothing to offer
        try:
            files = sorted(folder.glob("*.py"))[:_MOST_FILES]
        except OSError:
            continue
        for file in files:
            if pattern.search(_text_of(file)):
                return file
    return None


def _text_of(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST_BYTES:
            return ""
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""
