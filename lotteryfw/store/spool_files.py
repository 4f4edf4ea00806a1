"""The files of jobs that wait for a worker process, or for their turn.

The end of a file's name is a digest of what is in it: so a file that is damaged, cut off, or
exchanged with another shows by itself, and nothing else has to be written with it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from uuid import uuid4

from lotteryfw.api.digests import digest
from lotteryfw.api.errors import StoreError
from lotteryfw.store.checksums import file_digest

SUFFIX = ".safetensors"
_DIGITS = 32
_SPOOLED = re.compile(rf"[0-9a-f]{{12}}-[0-9a-f]{{32}}-[0-9a-f]{{{_DIGITS}}}")


def spool_prefix(run_id: str | None) -> str:
    """Return the beginning of the names of the jobs that a run spools."""
    return f"{digest(run_id)[:12]}-"


def new_spool_name(run_id: str | None, content: bytes) -> str:
    """Return a name that is nobody else's for a file with this content."""
    # the middle part, as two jobs of one content are two files, each deleted when it is done
    return f"{spool_prefix(run_id)}{uuid4().hex}-{hashlib.sha256(content).hexdigest()[:_DIGITS]}"


def is_spooled(path: Path) -> bool:
    """Return whether a file is named as `new_spool_name` names one."""
    return path.suffix == SUFFIX and _SPOOLED.fullmatch(path.stem) is not None


def check_spooled(path: Path) -> None:
    """Raise StoreError for a file whose content is not that of its name."""
    content = file_digest(path)
    if content is None:
        raise StoreError(f"{path}: there is no such file")
    if content[:_DIGITS] != path.stem.rpartition("-")[2]:
        raise StoreError(f"{path}: its content is not what was written under this name")
