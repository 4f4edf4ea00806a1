"""The lines of a run's tables, and run folders read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.metrics import Curve
from lotteryfw.api.results import AnalysisResult
from lotteryfw.runner.levels import Level
from lotteryfw.store import METRIC, LevelRow, RunFolder, find_runs, strict_json

if TYPE_CHECKING:
    import pandas


class Levels(list[LevelRow]):
    """The rows of levels.csv, in order."""

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame, with a column for each axis of the grid. Needs pandas."""
        import pandas

        records = []
        for row in self:
            record = asdict(row)
            axes = record.pop("axes")
            figures = record.pop("metrics")
            del record["axis_values"]
            for name, value in figures.items():
                record[METRIC + name] = value
            records.append(record | axes)
        return pandas.DataFrame(records)


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
        """The lines of analyses.jsonl: the results of the analyses."""
        return self.folder.read_findings()

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, machine, seeds and keys."""
        return self.folder.read_manifest()

    @property
    def statuses(self) -> dict[str, str]:
        """The end of each cell: done, diverged or failed."""
        statuses: dict[str, str] = self.manifest.get("cells", {})
        return statuses

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, by name."""
    return [Run(run.path) for run in find_runs(folder)]


def level_row(level: Level) -> LevelRow:
    """Return a level as a row of levels.csv."""
    metrics, cell, stats = level.metrics, level.cell, level.cut

    def figure(name: str) -> Any:
        return None if metrics is None else getattr(metrics, name)

    densities = [f"{name}={kept / stats.sizes[name]:.6g}" for name, kept in stats.kept.items()]
    return LevelRow(
        study=cell.study,
        cell=cell.id,
        variant=level.variant,
        seed=cell.seed,
        level=level.level,
        status="diverged" if metrics is None else "done",
        density=stats.density,
        requested_density=stats.requested_density,
        weights_kept=sum(stats.kept.values()),
        weights_total=sum(stats.sizes.values()),
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
        layer_densities=";".join(densities),
        key=level.key,
        learned=level.learned,
        axis_values=cell.axis_values,
        metrics=level.figures,
        axes=dict(cell.axes),
    )


def curve_line(level: Level, curve: Curve) -> str:
    """Return the curve of a level as a line of curves.jsonl."""
    position = {"cell": level.cell.id, "variant": level.variant, "level": level.level}
    return strict_json(position | curve.plain())


def finding_line(analysis: str, finding: AnalysisResult) -> dict[str, Any]:
    """Return a result of an analysis as a line of analyses.jsonl."""
    level, value = finding.level, finding.value
    numbers: float | list[float]
    if isinstance(value, list | tuple):
        numbers = [_plain_number(number) for number in value]
    else:
        numbers = _plain_number(value)
    line = {
        "study": level.study,
        "cell": level.cell,
        "axes": dict(level.axes),
        "seed": level.seed,
        "variant": level.variant,
        "level": level.level,
        "density": level.cut.density,
        "analysis": analysis,
        "figure": finding.figure,
        "layer": finding.layer,
        "against": finding.against,
        "unit": finding.unit,
    }
    if finding.role:
        line["role"] = finding.role
    return line | {"value": numbers}


def finding_identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a line of analyses.jsonl from all others, whatever its value."""
    names = ("cell", "variant", "level", "analysis", "figure", "layer", "against")
    return tuple(line[name] for name in names)


def _plain_number(number: Any) -> int | float:
    """Return a number that JSON can write: some of numpy's are not Python's."""
    return number if isinstance(number, int | float) else float(number)
