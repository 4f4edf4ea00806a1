"""Winning tickets: paired with the dense network of the same seed, judged by intervals, told in plain words."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.fake_runs import curves, fake_run, row

from lotteryfw.report import markdown
from lotteryfw.report.data.series import group_studies
from lotteryfw.report.data.stats import bootstrap
from lotteryfw.report.tables.winning_tickets import level_verdict_table, verdict_tables
from lotteryfw.report.verdicts.winning_tickets import winning_tickets


def ticket(gains, stops, *, density=0.211, level=1):
    """A dense network and one ticket a seed; seeds differ by far more than a ticket from its dense network."""
    rows = []
    for seed, (gain, stop) in enumerate(zip(gains, stops, strict=True)):
        dense = 0.5 + 0.1 * seed
        rows.append(row({}, dense, seed=seed, stop=500 + 100 * seed))
        rows.append(
            row(
                {},
                dense + gain,
                seed=seed,
                level=level,
                density=density,
                stop=500 + 100 * seed + stop,
            )
        )
    return rows


def levels(rows):
    [study] = group_studies(rows)
    [series] = winning_tickets(study)
    return series.levels


GAIN, LOSS, BOTH = (0.004, 0.005, 0.006), (-0.004, -0.005, -0.006), (-0.004, 0.001, 0.006)
SOONER, LATER, EITHER = (-120, -100, -80), (80, 100, 120), (-100, 10, 100)


@pytest.mark.parametrize(
    ("gains", "stops", "outcome"),
    [
        (GAIN, SOONER, "winning ticket"),
        ((0, 0, 0), (0, 0, 0), "winning ticket"),  # no later and no worse, with fewer weights
        (GAIN, LATER, "no winning ticket"),
        (LOSS, SOONER, "no winning ticket"),
        (LOSS, EITHER, "no winning ticket"),
        (BOTH, SOONER, "undecided"),
        (GAIN, EITHER, "undecided"),
        (GAIN[:2], SOONER[:2], "too few seeds"),
    ],
)
def test_both_intervals_decide(gains, stops, outcome):
    [level] = levels(ticket(gains, stops))
    assert level.outcome == outcome


def test_the_sentence_has_the_numbers():
    [level] = levels(ticket(GAIN, SOONER))
    assert level.sentence == (
        "At 21.1 % of the weights the ticket is a winning ticket: +0.50 ± 0.10 points (95 % interval +0.40 to +0.60) "
        "of test accuracy and -100 ± 20 steps (95 % interval -120 to -80) to early stopping against the dense network, "
        "n = 3."
    )


def test_where_nothing_stops_early_the_sentence_says_nothing_of_speed():
    rows = [replace(row, early_stop_step=row.steps) for row in ticket(GAIN, (0, 0, 0))]
    [level] = levels(rows)
    assert level.outcome == "winning ticket"
    assert (
        "0.60) of test accuracy against the dense network, n = 3; nothing here stopped"
        in level.sentence
    )
    assert not levels([replace(rows[0], early_stop_step=1), *rows[1:]])[0].no_early_stop


def test_two_seeds_have_numbers_and_no_interval():
    [level] = levels(ticket(GAIN[:2], SOONER[:2]))
    assert level.accuracy.interval is None
    assert (
        "not judged, as fewer than 3 seeds give no interval: +0.45 ± 0.07 points of test accuracy"
        in level.sentence
    )


def test_a_seed_without_its_dense_network_or_its_ticket_does_not_count():
    rows = ticket(GAIN, SOONER)
    rows += [
        row({}, 0.1, seed=7, level=1, density=0.211),
        row({}, 0.9, seed=8),
        row({}, None, seed=9),
    ]
    rows += [
        row({}, 0.1, seed=9, level=1, density=0.211),
        row({}, None, seed=8, level=1, density=0.211),
    ]
    [level] = levels(rows)
    assert level.accuracy.spread.n == 3
    assert level.accuracy.spread.mean == pytest.approx(0.005)


def test_controls_and_studies_without_a_trained_dense_network_have_no_verdict():
    rows = [
        row({}, 0.9, variant=variant, seed=seed, level=1, density=0.2)
        for variant in ("ticket", "reinit")
        for seed in range(3)
    ]
    rows += [
        row({}, 0.1, seed=seed, steps=0) for seed in range(3)
    ]  # measured as it was initialised
    [study] = group_studies(rows)
    assert winning_tickets(study) == []
    [study] = group_studies(
        curves("a", [{"criterion": "x"}], variants=("ticket", "reinit"), levels=3)
    )
    assert [series.label for series in winning_tickets(study)] == ["ticket"]


def test_tickets_that_were_not_trained_are_not_judged():
    rows = [row({}, 0.9, seed=seed) for seed in range(3)]
    rows += [row({}, 0.95, seed=seed, level=1, density=0.5, steps=0, stop=0) for seed in range(3)]
    assert winning_tickets(group_studies(rows)[0]) == []


def test_the_smallest_winning_ticket_speaks_for_its_series(tmp_path):
    rows = [*ticket(GAIN, SOONER, density=0.8)]
    for level, (gains, density) in enumerate(
        [(GAIN, 0.64), (BOTH, 0.51), (GAIN, 0.41), (LOSS, 0.1)], 2
    ):
        rows += [
            level_row
            for level_row in ticket(gains, SOONER, density=density, level=level)
            if level_row.level
        ]
    [study] = group_studies(rows)
    [series] = winning_tickets(study)
    assert series.densities("winning ticket") == "80–64, 41"
    assert series.densities("undecided") == "51"
    assert series.densities("too few seeds") == "–"
    assert series.deciding_level.density == pytest.approx(0.41)
    assert [cells[0] for cells in level_verdict_table(series).rows] == [
        "80",
        "64",
        "51",
        "41",
        "10",
    ]
    folder = fake_run(tmp_path / "run", rows)
    assert "- ticket: At 41 % of the weights the ticket is a winning ticket: " in markdown(
        folder.path
    )
    console = Console(width=80, file=io.StringIO())
    [table] = verdict_tables(folder, 80)
    console.print(table)
    output = console.file.getvalue()
    assert max(map(len, output.splitlines())) <= 80
    assert "80–64, 41" in output
    assert "ticket: At 41 % of the weights" in output


def test_where_none_wins_the_most_accurate_level_is_told():
    rows = ticket((-0.02, -0.02, -0.02), LATER, density=0.8)
    rows += [
        level_row
        for level_row in ticket((-0.01, -0.01, -0.01), LATER, density=0.5, level=2)
        if level_row.level
    ]
    [study] = group_studies(rows)
    assert winning_tickets(study)[0].deciding_level.density == pytest.approx(0.5)


def test_two_seeds_print_no_table(tmp_path):
    assert verdict_tables(fake_run(tmp_path / "run", ticket(GAIN[:2], SOONER[:2]))) == []


def test_bootstrap_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = [0.3, -0.1, 0.8, 0.2, 0.25, -0.4, 0.6]
    numpy = pytest.importorskip("numpy")
    theirs = stats.bootstrap(
        (values,), numpy.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert bootstrap(values) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    narrow = bootstrap(values, 0.5)
    assert bootstrap(values)[0] < narrow[0] < narrow[1] < bootstrap(values)[1]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_bootstrap_stays_among_the_values_and_repeats(values):
    low, high = bootstrap(values)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert bootstrap(values) == (low, high)


def test_a_learned_mask_that_keeps_every_weight_is_not_what_others_are_held_against():
    rows = [
        row({}, 0.9, seed=seed, level=level, density=1.5 - level / 2)
        for seed in (0, 1, 2)
        for level in (1, 2)
    ]
    [study] = group_studies(rows)
    assert winning_tickets(study) == []


def test_a_label_in_brackets_is_no_markup(tmp_path):
    label = {"scope": "global(exclude=[fc3*])"}
    rows = [replace(level_row, axes=label) for level_row in ticket(GAIN, SOONER)]
    rows += [row({"scope": "layerwise"}, 0.5, seed=seed) for seed in (0, 1, 2)]
    console = Console(width=200, file=io.StringIO())
    for table in verdict_tables(fake_run(tmp_path / "run", rows), 200):
        console.print(table)
    assert console.file.getvalue().count(label["scope"]) == 2  # its row, and the sentence below
