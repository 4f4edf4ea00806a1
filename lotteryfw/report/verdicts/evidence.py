"""The parts of a run that claims are judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lotteryfw.api.steps import Step
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.series import Series, StudySeries


class NotTested(Exception):
    """A run has no values for a claim; the text says why."""


@dataclass(frozen=True)
class StudyEvidence:
    """A study of a run: its series, and what its recipe planned."""

    series: StudySeries
    without_rows: tuple[Mapping[str, str], ...]
    """The axes of cells that have no row yet, and have not run to their end."""
    length: Step | None
    """The training length that its cells have in common; None if they have none."""
    target_lengths: Mapping[str, Step | None]
    """By target, the length of its trainings where it differs from the study's."""


@dataclass(frozen=True)
class Evidence:
    """The parts of a run that claims are judged by."""

    studies: Mapping[str, StudyEvidence]
    finished: set[str]
    """The cells that ran to their end."""
    diverged: set[str]
    """The cells that ended at a training that diverged."""
    findings: Findings

    @classmethod
    def of(cls, data: RunData, metrics: Sequence[str]) -> Evidence:
        """Return the evidence of a run, with the findings of these metrics."""
        statuses: Mapping[str, str] = data.manifest.get("cells", {})
        # a half-finished cell has its early levels only, which would bias a mean over levels
        finished, diverged = set(), set()
        for cell, status in statuses.items():
            if status == "done":
                finished.add(cell)
            elif status == "diverged":
                diverged.add(cell)
        studies = {}
        # all series, not those that are shown: what is shown was chosen by its results
        for study in data.studies:
            table = data.study_table(study.name)
            target_lengths = {}
            for target in table.get("target", []):
                target_lengths[target["name"]] = _length(target)
            without_rows = tuple(_without_rows(study, statuses.keys() - finished - diverged))
            studies[study.name] = StudyEvidence(study, without_rows, _length(table), target_lengths)
        return cls(studies, finished, diverged, data.findings_of(metrics))

    @property
    def ended(self) -> set[str]:
        """The cells that will get no more results."""
        return self.finished | self.diverged


def _length(table: Mapping[str, Any]) -> Step | None:
    """Return the training length in a study's or a target's table."""
    length = table.get("train", {}).get("length")
    return None if length is None else Step.parse(length)


def _without_rows(study: StudySeries, unfinished: set[str]) -> Iterator[Mapping[str, str]]:
    """Yield the axes of the cells of a study that have no row, among those that are not finished."""
    axes = list(study.searches[0].axes)
    for cell in sorted(unfinished - study.cells):
        if cell.startswith(f"{study.name}/"):
            yield _labels(cell, axes)


def _labels(cell: str, axes: Sequence[str]) -> Mapping[str, str]:
    """Return the labels in a cell's name, "study/axis=label/…/seed=0".

    Labels may have any letters in them, slashes included.
    """
    rest = cell.rpartition("/seed=")[0]
    labels: dict[str, str] = {}
    for axis in reversed(axes):
        rest, _, labels[axis] = rest.rpartition(f"/{axis}=")
    return dict(reversed(labels.items()))


def longest_training(series: Sequence[Series]) -> int:
    """Return the length of the longest training of some series, in optimizer updates."""
    longest = 0
    for one in series:
        for row in one.rows:
            longest = max(longest, row.steps)
    return longest
