"""The lines of a run's tables, and run folders read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotteryfw.api.metrics import Curve
from lotteryfw.api.results import AnalysisResult
from lotteryfw.runner.levels import Level
from lotteryfw.runner.rows import (
    CurveRow,
    FindingRow,
    Rows,
    TicketRow,
    curve_rows,
    finding_rows,
    html_table,
    level_rows,
    ticket_rows,
)
from lotteryfw.runner.run_networks import ticket_path, trained_values
from lotteryfw.store import LevelRow, RunFolder, find_runs, strict_json

if TYPE_CHECKING:
    from torch import Tensor


class Run:
    """A run folder, read: its rows, curves, findings, tickets and trained networks.

    `store` is the store that has the trained weights, by default the one that the run was made in.
    Raises UsageError where `path` is no run's folder.
    """

    def __init__(self, path: Path | str, store: Path | None = None):
        self.folder = RunFolder.existing(Path(path))
        self.path = self.folder.path
        self._store = store

    @property
    def levels(self) -> Rows[LevelRow]:
        """The typed rows of levels.csv."""
        return level_rows(self.folder.read_levels())

    @property
    def curves(self) -> Rows[CurveRow]:
        """The typed lines of curves.jsonl: the measurements during each training."""
        return curve_rows(self.folder.each_curve())

    @property
    def findings(self) -> Rows[FindingRow]:
        """The typed lines of analyses.jsonl: the results of the analyses."""
        return finding_rows(self.folder.each_finding())

    @property
    def tickets(self) -> Rows[TicketRow]:
        """The ticket files, in the order of levels.csv. `ticket.load()` reads one."""
        rows = []
        for row in self.folder.read_levels():
            path = ticket_path(self.folder, row)
            # a training that diverged may have left no ticket
            if path.is_file():
                rows.append(TicketRow(path, row))
        return ticket_rows(rows)

    def trained(self, row: LevelRow | TicketRow) -> dict[str, Tensor]:
        """Return the state dict at the end of a row's training, on the CPU.

        Masked weights have the values at which they are frozen. Raises UsageError where nothing was
        trained or the store lacks it.
        """
        level_row = row.row if isinstance(row, TicketRow) else row
        return trained_values(self.folder, level_row, self._store)

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, machine, seeds and keys."""
        return self.folder.read_manifest()

    @property
    def statuses(self) -> dict[str, str]:
        """The end of each cell: done, diverged, failed or unfinished."""
        statuses: dict[str, str] = self.manifest.get("cells", {})
        return statuses

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        manifest = self.manifest
        ended = Counter(self.statuses.values())
        facts = [
            ("folder", self.path),
            ("recipe", manifest.get("name", "")),
            ("profile", manifest.get("profile") or "none"),
            ("seeds", ", ".join(map(str, manifest.get("seeds", ())))),
            ("cells", ", ".join(f"{count} {status}" for status, count in ended.items())),
            ("rows", len(self.folder.read_levels())),
        ]
        title = escape(str(manifest.get("title") or manifest.get("name") or self.path.name))
        page = self.path / "report.html"
        link = ""
        if page.is_file():
            link = f'<p><a href="{escape(page.resolve().as_uri())}">report.html</a></p>'
        return f"<h4>{title}</h4>{html_table(('', ''), facts)}{link}"


def runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, by name."""
    return [Run(run.path) for run in find_runs(folder)]


def level_row(level: Level) -> LevelRow:
    """Return a level as a row of levels.csv."""
    metrics, cell, stats = level.metrics, level.cell, level.cut

    def figure(name: str) -> Any:
        return None if metrics is None else getattr(metrics, name)

    # Six digits: a weight of a million shows, and the row stays readable.
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
    # Most figures have no role, and files of such studies stay as they were.
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
