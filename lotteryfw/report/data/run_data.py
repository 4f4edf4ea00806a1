"""The files of a run folder, each read once for the whole report."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lotteryfw.api.errors import StoreError
from lotteryfw.report.data.findings import Findings, metric_of
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.learning_curves import LearningCurves
from lotteryfw.report.data.series import StudySeries
from lotteryfw.report.data.shown_series import limit_series
from lotteryfw.store import METRIC, RunFolder


@dataclass(frozen=True)
class RunData:
    """The contents of a run folder, read on first use. Reading raises StoreError.

    `studies` have every series, and claims are checked against them. `shown` are the same with as
    many series as tables and charts have room for.
    """

    folder: RunFolder

    @classmethod
    def of(cls, run: RunFolder | RunData) -> RunData:
        """Return the data of a run folder; data are returned as they are."""
        return run if isinstance(run, RunData) else cls(run)

    @cached_property
    def studies(self) -> list[StudySeries]:
        """The studies in levels.csv."""
        units, figures = self.manifest.get("metrics", {}), self.manifest.get("figures", {})
        loss_units = self.manifest.get("loss_units", {})
        rows = self.folder.read_levels()
        return group_studies(rows, units, figures, loss_units, self._ended)

    @property
    def _ended(self) -> set[str] | None:
        """The cells that have ended; None if the manifest does not say.

        One that failed has not: the next run goes on with it.
        """
        if "cells" not in self.manifest:
            return None
        ended: set[str] = set()
        for cell, status in self.manifest["cells"].items():
            if status in ("done", "diverged"):
                ended.add(cell)
        return ended

    @cached_property
    def shown(self) -> list[StudySeries]:
        """The studies, those of very many series in part."""
        return [limit_series(study) for study in self.studies]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The contents of manifest.json."""
        return self.folder.read_manifest()

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The resolved recipe, resolved.toml, as plain data."""
        path = self.folder.path / "resolved.toml"
        try:
            return tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def study_table(self, name: str) -> dict[str, Any]:
        """Return a study of the resolved recipe; an empty table if it has none of this name."""
        for study in self.resolved.get("study", []):
            if study.get("name") == name:
                table: dict[str, Any] = study
                return table
        return {}

    @cached_property
    def curves(self) -> LearningCurves:
        """The learning curves of the series that are shown."""
        cells: set[str] = set()
        for study in self.shown:
            cells |= study.cells
        # a filter while reading: a large study's curves would not fit in memory
        return LearningCurves.of(line for line in self.folder.each_curve() if line["cell"] in cells)

    @cached_property
    def findings(self) -> Findings:
        """The findings of the series that are shown."""
        cells_by_study: dict[str, set[str]] = {}
        for study in self.shown:
            # a study that is shown whole needs no filter
            if study.left_out:
                cells_by_study[study.name] = study.cells

        def is_shown(line: dict[str, Any]) -> bool:
            cells = cells_by_study.get(line["study"])
            return cells is None or line["cell"] in cells

        return Findings.of(line for line in self.folder.each_finding() if is_shown(line))

    def findings_of(self, metrics: Iterable[str]) -> Findings:
        """Return the findings of these metrics, of every cell, and units of the recipe's own."""
        # a name without a dot is a column of levels.csv
        names = {metric for metric in metrics if "." in metric}
        units = {METRIC + name: unit for name, unit in self.manifest.get("metrics", {}).items()}
        if not names - units.keys():
            # analyses.jsonl may be large, and most claims need nothing of it
            return Findings((), {}, units)
        lines = (line for line in self.folder.each_finding() if metric_of(line) in names)
        findings = Findings.of(lines)
        return replace(findings, units={**findings.units, **units})


def open_run(path: Path) -> RunData:
    """Return the data of a run's folder.

    Raises UsageError if it is no run's folder, StoreError if its files are damaged.
    """
    folder = RunFolder.existing(path)
    folder.refuse_damaged()
    return RunData(folder)
