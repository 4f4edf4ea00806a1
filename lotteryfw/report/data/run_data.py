"""A run's files, each read once for all that a report says of them, and kept as far as it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lotteryfw.report.data.findings import Findings, metric_of
from lotteryfw.report.data.learning_curves import Curves
from lotteryfw.report.data.series import Study, studies_of
from lotteryfw.report.data.shown_series import shown
from lotteryfw.store import RunFolder


@dataclass(frozen=True)
class RunData:
    """What a run folder holds. Reading raises StoreError.

    `studies` have every series, which claims are held against; `shown` are the same with as many as tables and charts
    have room for.
    """

    folder: RunFolder

    @classmethod
    def of(cls, run: RunFolder | RunData) -> RunData:
        """Return the data of a run folder; data stay what they are."""
        return run if isinstance(run, RunData) else cls(run)

    @cached_property
    def studies(self) -> list[Study]:
        """The studies in levels.csv."""
        return studies_of(self.folder.read_levels())

    @cached_property
    def shown(self) -> list[Study]:
        """The studies, those of very many series in part."""
        return [shown(study) for study in self.studies]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json."""
        return self.folder.read_manifest()

    @cached_property
    def curves(self) -> Curves:
        """The curves of what is shown."""
        cells = set[str]().union(*(study.cells for study in self.shown))
        return Curves.of(line for line in self.folder.each_curve() if line["cell"] in cells)

    @cached_property
    def findings(self) -> Findings:
        """The findings of what is shown."""
        cells_by_study = {study.name: study.cells for study in self.shown if study.left_out}

        def is_shown(line: dict[str, Any]) -> bool:
            cells = cells_by_study.get(line["study"])
            return cells is None or line["cell"] in cells

        return Findings.of(line for line in self.folder.each_finding() if is_shown(line))

    def findings_of(self, metrics: Iterable[str]) -> Findings:
        """Return the findings that have these names, of every cell."""
        names = {metric for metric in metrics if "." in metric}
        if not names:
            return Findings.of(())
        return Findings.of(line for line in self.folder.each_finding() if metric_of(line) in names)
