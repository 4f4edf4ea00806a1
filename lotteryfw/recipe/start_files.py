"""Files that the searches of a study start from: tickets, state dicts, and published weights."""

from __future__ import annotations

from pathlib import Path

from lotteryfw.api.errors import UsageError, printable
from lotteryfw.recipe.pydantic_errors import Problem
from lotteryfw.search.start_file import FileContent, StartFile, file_digest
from lotteryfw.search.torchvision_weights import (
    PREFIX,
    SAVED_BY_TORCH,
    check_published,
    read_state_dict,
    weights_file,
)
from lotteryfw.store.tickets import read_tensors


def read_network(path: Path) -> FileContent:
    """Return the tensors of a ticket or of a plain state dict. Raises StoreError, UsageError."""
    if path.suffix in SAVED_BY_TORCH:
        return read_state_dict(path)
    return FileContent(*read_tensors(path))


def start_file(path: str) -> tuple[StartFile | None, list[Problem]]:
    """Return the file that cells start from, None and the problem where it cannot be read."""
    if path.startswith(PREFIX):
        return _published_weights(path.removeprefix(PREFIX))
    try:
        # the bytes alone: looking at its tensors would import torch, which a plan does without
        return StartFile(Path(path), file_digest(Path(path)), read_network), []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        text = f"cannot read {printable(path, 300)}: {reason}"
        return None, [Problem((), text, "a ticket, or a state dict as safetensors, belongs there")]


def _published_weights(name: str) -> tuple[StartFile | None, list[Problem]]:
    try:
        path = weights_file(name)
        digest = file_digest(path)
        check_published(path, digest)
    except UsageError as error:
        return None, [Problem((), str(error))]
    return StartFile(path, digest, read_network), []
