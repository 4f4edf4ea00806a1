"""Whole runs of a small recipe, and what a listener heard of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lotteryfw.runner import run_study as run

DATA = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5}
NINE = [
    "large_final", "small_final", "large_init", "small_init", "large_init_large_final", "small_init_small_final",
    "magnitude_increase", "movement", "random",
]  # fmt: skip


def recipe(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": "small",
        "data": DATA,
        "model": {"use": "mlp", "hidden": [8, 6]},
        "search": {"use": "imp", "levels": 2},
        "train": {
            "length": "40it",
            "batch": 16,
            "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9},
        },
        "evaluate": {"points": 4},
    }
    return plain | changes


class Watch:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.warnings: list[str] = []

    def event(self, event: Any) -> None:
        self.events.append(event)

    def progress(self, progress: Any) -> None: ...

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    @property
    def trained(self) -> list[str]:
        return [event.key for event in self.of("JobFinished") if not event.stored]


def go(folder: Path, table: Any = None, name: str = "run", **given: Any) -> tuple[Any, Watch]:
    watch = Watch()
    store = given.pop("store", folder / "store")
    given = {"jobs": 1, "device": "cpu", "data": folder, **given}
    return run(table or recipe(), out=folder / name, store=store, listener=watch, **given), watch


def files(path: Path) -> dict[str, bytes]:
    """What has to be bit-identical: figures, findings and tickets."""
    found = [path / "levels.csv", path / "curves.jsonl", path / "analyses.jsonl"]
    found += sorted((path / "tickets").rglob("*.safetensors"))
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in found}
