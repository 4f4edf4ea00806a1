"""A study of very many series is shown in part, and says so; claims are held against all of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from support.fake_runs import curves, fake_run, finding, row
from support.paths import ROOT

from lotteryfw.report import check_claims, markdown, report, write_page
from lotteryfw.report.data.grouping import group_studies
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.data.shown_series import MOST_SERIES, limit_series

SERIES = MOST_SERIES + 20


def accuracy_of(index: int) -> float:
    """The order of accuracies is not that of the recipe."""
    return 0.5 + index * 7 % SERIES / 1000


def large_study():
    """Pruned networks of many combinations."""
    return [
        row(
            {"criterion": f"c{index:03}"},
            accuracy_of(index),
            seed=seed,
            level=level,
            density=density,
        )
        for index in range(SERIES)
        for seed in range(2)
        for level, density in ((1, 0.8), (2, 0.64))
    ]


def test_the_series_of_highest_validation_accuracy_are_shown_in_the_recipes_order():
    rows = [
        replace(level_row, test_accuracy=1 - level_row.test_accuracy) for level_row in large_study()
    ]
    [study] = group_studies(rows)

    part = limit_series(study)

    best = sorted(range(SERIES), key=accuracy_of, reverse=True)[:MOST_SERIES]
    assert [series.label for series in part.series] == [f"c{index:03}" for index in sorted(best)]
    assert part.left_out == 20
    assert part.searches == part.series


def test_a_study_with_room_for_all_stays_the_same():
    [study] = group_studies(
        curves("a", [{"criterion": f"c{index}"} for index in range(5)], levels=2)
    )
    assert limit_series(study, most=5) is study
    assert not study.partly_shown


def test_a_combination_is_shown_with_all_its_arms_and_judged_by_its_ticket():
    axes = [{"criterion": name} for name in "abcd"]
    tickets = [
        row(combination, 0.5 + index / 10, level=1, density=0.5)
        for index, combination in enumerate(axes)
    ]
    controls = [
        row(combination, 0.9 - index / 10, variant="reinit", level=1, density=0.5)
        for index, combination in enumerate(axes)
    ]
    [study] = group_studies([*tickets, *controls])

    part = limit_series(study, most=5)

    assert [(series.axes["criterion"], series.variant) for series in part.series] == [
        ("c", "ticket"),
        ("d", "ticket"),
        ("c", "reinit"),
        ("d", "reinit"),
    ]
    assert part.left_out == 4


def test_a_sweep_over_densities_counts_with_all_its_searches():
    rows = [
        row(
            {"search": f"ep(density={density})", "model": model}, accuracy, level=1, density=density
        )
        for model, accuracy in (("x", 0.7), ("y", 0.8), ("z", 0.6))
        for density in (0.5, 0.3, 0.1)
    ]
    [study] = group_studies(rows)

    part = limit_series(study, most=7)

    assert [series.axes for series in part.series] == [
        {"search": "ep", "model": "x"},
        {"search": "ep", "model": "y"},
    ]
    assert len(part.searches) == 6
    assert part.left_out == 3


def test_the_dense_network_has_no_say_in_what_is_shown():
    rows = [row({"criterion": "a"}, 0.99), row({"criterion": "a"}, 0.5, level=1, density=0.5)]
    rows += [row({"criterion": "b"}, 0.9), row({"criterion": "b"}, 0.6, level=1, density=0.5)]
    [study] = group_studies(rows)
    assert [series.axes["criterion"] for series in limit_series(study, most=1).series] == ["b"]


def test_a_report_says_what_it_leaves_out_and_claims_count_it(tmp_path, capsys):
    rows = large_study()
    worst = min(range(SERIES), key=accuracy_of)
    claim = {
        "text": "it is bad", "source": "a paper", "study": "criteria", "of": {"criterion": f"c{worst:03}"},
        "expect": accuracy_of(worst), "tolerance": 0.001, "tolerance_reason": "the same formula",
    }  # fmt: skip
    folder = fake_run(tmp_path / "run", rows, [claim])

    [verdict] = check_claims(folder)
    assert verdict.seeds == 2
    assert verdict.outcome == "undecided"

    page = write_page(folder).read_text("utf-8")
    note = f"Shown are {MOST_SERIES} of {SERIES} series, those of the highest validation accuracy; levels.csv has all."
    assert note in page
    best = max(range(SERIES), key=accuracy_of)
    assert f'<th scope="row">c{best:03}</th>' in page
    assert f'<th scope="row">c{worst:03}</th>' not in page

    report(folder.path, show=True)
    for text in (capsys.readouterr().out, markdown(folder.path)):
        assert f"{MOST_SERIES} of {SERIES} series" in " ".join(text.split())
        assert f"c{best:03}" in text
        assert f"c{worst:03} " not in text


def test_only_what_is_shown_is_kept_of_curves_and_findings(tmp_path):
    rows = large_study()
    folder = fake_run(tmp_path / "run", rows)
    folder.write_curves(
        [
            {
                "cell": level_row.cell,
                "variant": level_row.variant,
                "level": level_row.level,
                "step": [0],
            }
            for level_row in rows
        ]
    )
    folder.write_findings([finding(level_row, "an.figure", 0.5) for level_row in rows])

    data = RunData(folder)

    shown_rows = 2 * 2 * MOST_SERIES
    assert len(data.curves.by_row) == shown_rows
    assert len(data.findings.lines) == shown_rows
    assert len(data.findings_of(["an.figure", "test_accuracy"]).lines) == len(rows)
    assert not data.findings_of(["test_accuracy"]).lines


@pytest.mark.large
def test_the_load_benchmark_prints_its_table():
    script = ROOT / "benchmarks" / "load.py"
    pytest.importorskip("matplotlib")

    done = subprocess.run(
        [sys.executable, script, "--cells", "8"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    *_, heading, first, rerun, last = done.stdout.splitlines()
    assert "8 cells, 16 trainings" in done.stdout
    assert heading.split()[0] == "phase"
    assert [line[:10].rstrip() for line in (first, rerun, last)] == ["first run", "rerun", "report"]
    wall, cpu, peak, per_training = map(float, first[10:].split())
    assert wall > 0
    assert cpu > 16 * per_training / 1000 > 0
    assert peak > float(last.split()[3]), "the report runs without torch, in a process of its own"
