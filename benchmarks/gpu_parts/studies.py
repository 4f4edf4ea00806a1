"""Small recipes run through `lotteryfw.run`, and what comes out of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lotteryfw import Run, load_ticket
from lotteryfw.runner import run_study as run

from .report import Report


class Troubles:
    """A listener that remembers what went wrong, counts trainings, and may stop the run after so many steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.messages: list[str] = []
        self.finished = 0
        self._left = stop_after
        self._stop: Any = None

    def started(self, stop: Any) -> None:
        """Take the function that stops the run."""
        self._stop = stop

    def event(self, event: Any) -> None:
        """Count a training."""
        self.finished += type(event).__name__ == "JobFinished"

    def progress(self, progress: Any) -> None:
        """Stop the run when its time has come."""
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._stop()

    def warning(self, message: str) -> None:
        """Remember and print."""
        self.messages.append(message)
        print(message, flush=True)


def base(report: Report, **changes: Any) -> dict[str, Any]:
    """A small recipe on the embedded digits."""
    plain: dict[str, Any] = {
        "name": "gpu", "data": "digits", "model": {"use": "mlp", "hidden": [12, 8]},
        "search": {"use": "imp", "levels": 1}, "evaluate": {"points": 2},
        "train": {"length": "6it" if report.tiny else "40it", "batch": 60, "optimizer": {"use": "adam", "lr": 1.2e-3}},
    }  # fmt: skip
    return plain | changes


def go(
    report: Report, table: dict[str, Any] | Path, name: str, device: str, listener: Troubles | None = None,
    jobs: int = 1, checkpoint_seconds: float = 60.0, trust: Sequence[Path] = (), **options: Any,
) -> Run:  # fmt: skip
    """Run a recipe into an empty store, or again into the one that it has; raise what any cell failed with."""
    listener = listener or Troubles()
    folder = report.folder / name
    done = run(
        table, out=folder / "run", store=folder / "store", data=folder / "data", device=device, jobs=jobs,
        listener=listener, on_start=listener.started, checkpoint_seconds=checkpoint_seconds, trust=trust, **options,
    )  # fmt: skip
    bad = {cell: status for cell, status in done.statuses.items() if status != "done"}
    if bad:
        cells = ", ".join(f"{cell}: {status}" for cell, status in bad.items())
        raise RuntimeError(
            f"{len(bad)} of {len(done.statuses)} cells: {' | '.join(listener.messages)[:200]} [{cells}]"
        )
    return done


def tickets(done: Run) -> dict[str, Any]:
    """The tickets of a run by file name."""
    files = sorted((done.path / "tickets").rglob("*.safetensors"))
    return {file.relative_to(done.path / "tickets").as_posix(): load_ticket(file) for file in files}
