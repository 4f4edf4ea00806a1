"""store.json, which says that a folder is a store, and of which format."""

from __future__ import annotations

import json
from pathlib import Path

from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.store.files import atomic_write, explained
from lotteryfw.store.seal import FORMAT
from lotteryfw.store.strict_json import parse_json

_NAME = "store.json"


def check_format(root: Path) -> None:
    """Raise UsageError where `root` is a file, StoreError where it is a store of another format."""
    path = root / _NAME
    with explained(path, "read"):
        try:
            version = parse_json(path.read_bytes())["format"]
        except FileNotFoundError:
            return  # a new store, which the first write makes
        except NotADirectoryError:
            # `root` or a folder above it
            file = next(path for path in (root, *root.parents) if path.exists())
            raise UsageError(f"{file}: is a file, not a folder") from None
        except (ValueError, KeyError, TypeError):
            version = None
    if not isinstance(version, int):
        raise StoreError(
            f"{path}: not the file of a lotteryfw store: name another folder in LOTTERYFW_STORE"
        )
    if version > FORMAT:
        raise StoreError(
            f"{root}: a store of format {version}, written by a newer lotteryfw "
            f"(this one reads {FORMAT}): "
            "update lotteryfw, or name another folder in LOTTERYFW_STORE"
        )


def is_store(root: Path) -> bool:
    """Return whether a folder says that it is a store (see `check_format`)."""
    return (root / _NAME).exists()


def write_format(root: Path) -> None:
    """Make a folder a store, unless it is one. Raises StoreError."""
    path = root / _NAME
    # two processes may both write it, with the same content
    if not path.exists():
        atomic_write(path, json.dumps({"format": FORMAT}).encode())
