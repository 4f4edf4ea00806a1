"""Rows that are valid and unusual: every form of a report is made of them, without an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_runs import A, B, curves, fake_run, finding, row

from lotteryfw.report import markdown, paper, report
from lotteryfw.report.data.findings import Findings
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.html.analysis_charts import analysis_charts
from lotteryfw.report.plots.style import caption
from lotteryfw.store import LevelRow, RunFolder

pytest.importorskip("matplotlib")


def names_of(folder: RunFolder, by_seed: bool = False) -> list[str]:
    """Make every form of a report; return the names of the figures."""
    markdown(folder.path)
    paper(folder.path)
    _, *figures = report(folder.path, by_seed=by_seed)
    return [path.name for path in figures if path.suffix == ".png"]


def sweep(diverged_seeds: Sequence[int]) -> list[LevelRow]:
    """Return rows of a sweep of two densities whose last levels diverged in these seeds."""
    rows = []
    for density in (0.5, 0.1):
        axes = {"search": f"iep(density={density})"}
        for seed in (0, 1):
            for level in (0, 1, 2):
                accuracy = None if level == 2 and seed in diverged_seeds else 0.9
                place = density ** (level / 2)
                rows.append(row(axes, accuracy, seed=seed, level=level, density=place))
    return rows


def test_a_sweep_whose_ends_all_diverged_has_a_report(tmp_path: Path) -> None:
    rows = sweep(diverged_seeds=(0, 1))
    [study] = group_studies(rows)
    assert caption(study) == "4 diverged trainings left out."
    folder = fake_run(tmp_path / "run", rows)
    lines = [finding(one, "edges.dying", 0.5) for one in rows if one.test_accuracy]
    folder.write_findings(lines)
    assert names_of(folder) == []


def test_a_sweep_whose_ends_diverged_in_the_first_seed_has_figures_by_seed(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", sweep(diverged_seeds=(0,)))
    assert names_of(folder, by_seed=True) == ["criteria.png", "criteria-first_2_of_2_seeds.png"]


@pytest.mark.parametrize("axes", [[A, B], [{}]])
def test_a_study_of_single_levels_without_tickets_has_dots(
    tmp_path: Path, axes: Sequence[dict[str, str]]
) -> None:
    rows = [row(one, 0.9, variant="random_mask", level=1, density=0.5) for one in axes]
    rows = [replace(one, metrics={"ece": 0.1}) for one in rows]
    assert names_of(fake_run(tmp_path / "run", rows)) == ["criteria.png"]


def test_findings_of_networks_without_weights_have_no_chart(tmp_path: Path) -> None:
    rows = [row(A, 0.1, level=level, density=0.0) for level in range(3)]
    lines = [finding(one, "edges.dying", 0.5) for one in rows]
    [study] = group_studies(rows)
    charts = analysis_charts(study, Findings.of(lines))
    assert [chart.key for chart in charts] == ["criteria/analysis/edges/accuracy"]
    folder = fake_run(tmp_path / "run", [*rows, *curves("other", [A], levels=2)])
    folder.write_findings(lines)
    assert "other.png" in names_of(folder)
