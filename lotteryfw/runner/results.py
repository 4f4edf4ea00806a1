"""What a study leaves: a level as a row of levels.csv, and run folders read again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.runner.cells import Level
from lotteryfw.store import LevelRow, RunFolder, find_runs

if TYPE_CHECKING:
    import pandas


class Levels(list[LevelRow]):
    """The rows of levels.csv, in order."""

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a DataFrame, the grid's axes as columns. Needs pandas."""
        import pandas

        table = []
        for row in self:
            columns = asdict(row)
            axes = columns.pop("axes")
            del columns["axis_values"]
            table.append(columns | axes)
        return pandas.DataFrame(table)


class Run:
    """A run folder, read: `levels`, `manifest`, `statuses` of the cells."""

    def __init__(self, path: Path | str):
        self.folder = RunFolder(Path(path))
        self.path = self.folder.path

    @property
    def levels(self) -> Levels:
        """The typed rows of levels.csv."""
        return Levels(self.folder.read_levels())

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The lines of analyses.jsonl: what analyses found."""
        return self.folder.read_findings()

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, machine, seeds and keys."""
        return self.folder.read_manifest()

    @property
    def statuses(self) -> dict[str, str]:
        """How each cell ended: done, diverged or failed."""
        found: dict[str, str] = self.manifest.get("cells", {})
        return found

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def runs(folder: Path) -> list[Run]:
    """The runs in a folder, by name."""
    return [Run(found.path) for found in find_runs(folder)]


def level_row(level: Level) -> LevelRow:
    """A level as a row of levels.csv."""
    metrics, cell, cut = level.metrics, level.cell, level.cut

    def figure(name: str) -> Any:
        return None if metrics is None else getattr(metrics, name)

    return LevelRow(
        study=cell.study,
        cell=cell.id,
        variant=level.variant,
        seed=cell.seed,
        level=level.level,
        status="diverged" if metrics is None else "done",
        density=cut.density,
        requested_density=cut.requested_density,
        weights_kept=sum(cut.kept.values()),
        weights_total=sum(cut.sizes.values()),
        steps=metrics.steps if metrics else 0,
        early_stop_step=metrics.early_stop_step if metrics else 0,
        validation_loss=figure("validation_loss"),
        validation_accuracy=figure("validation_accuracy"),
        test_loss=figure("test_loss"),
        test_accuracy=figure("test_accuracy"),
        early_validation_loss=figure("early_validation_loss"),
        early_validation_accuracy=figure("early_validation_accuracy"),
        early_test_loss=figure("early_test_loss"),
        early_test_accuracy=figure("early_test_accuracy"),
        layer_densities=";".join(
            f"{name}={kept / cut.sizes[name]:.6g}" for name, kept in cut.kept.items()
        ),
        key=level.key,
        learned=level.learned,
        axis_values=cell.axis_values,
        axes=dict(cell.axes),
    )
