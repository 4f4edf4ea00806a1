"""events.jsonl: a line for each event of a run, written as it happens."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lotteryfw.store.files import explained
from lotteryfw.store.strict_json import parse_json, strict_json

NAME = "events.jsonl"


class EventLog:
    """The events.jsonl of a run's folder, kept open. Each event is written at once."""

    def __init__(self, folder: Path):
        self._path = folder / NAME
        self._file: io.FileIO | None = None

    def append(self, event: Mapping[str, Any]) -> None:
        """Add a line: plain JSON data. Raises StoreError."""
        with explained(self._path, "written"):
            self._opened().write(strict_json(event).encode() + b"\n")

    def close(self) -> None:
        """Close the file; a later event opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> io.FileIO:
        if self._file is not None and not self._is_there(self._file):
            self.close()
        # Opened once, since a study has several events for each of thousands of trainings.
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # no buffer, so that an event is there when the process is killed right after it
            self._file = io.FileIO(self._path, "a+")
            if not _ends_whole(self._file):
                self._file.write(b"\n")
        return self._file

    def _is_there(self, file: io.FileIO) -> bool:
        """Return whether the open file still has its name.

        Somebody may have deleted the folder during the run.
        """
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the events that were written so far, without lines that were cut off or damaged.

    Raises StoreError.
    """
    path = folder / NAME
    with explained(path, "read"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                try:
                    event = parse_json(line)
                except ValueError:
                    continue  # cut off by a kill: events are a history that no result needs
                if isinstance(event, dict):
                    yield event


def _ends_whole(file: io.FileIO) -> bool:
    """Return whether the file ends at the end of a line.

    A killed process may have left a part of one.
    """
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
