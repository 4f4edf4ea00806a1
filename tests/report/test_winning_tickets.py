"""Winning tickets: paired with the dense network of the same seed, judged by intervals, told in plain words."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from support.fake_runs import curves, fake_run, row

from lotteryfw.report import markdown
from lotteryfw.report.data.grouping import group_studies
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
SOONER, LATER, EITHER = (-120, -100, -80), (90, 100, 110), (-100, 10, 100)


@pytest.mark.parametrize(
    ("gains", "stops", "outcome"),
    [
        (GAIN, SOONER, "winning ticket"),
        ((0, 0, 0), (0, 0, 0), "winning ticket"),  # no later and no worse, with fewer weights
        (GAIN, LATER, "not a winning ticket"),
        (LOSS, SOONER, "not a winning ticket"),
        (LOSS, EITHER, "not a winning ticket"),
        (BOTH, SOONER, "undecided"),
        (GAIN, EITHER, "undecided"),
        # a percentile bootstrap of three seeds would see no value on the other side, and decide
        ((0.001, 0.004, 0.012), SOONER, "undecided"),
        (GAIN[:2], SOONER[:2], "undecided"),
    ],
)
def test_both_intervals_decide(gains, stops, outcome):
    [level] = levels(ticket(gains, stops))
    assert level.outcome == outcome


def test_the_sentence_has_the_numbers():
    [level] = levels(ticket(GAIN, SOONER))
    assert level.sentence == (
        "at 21.1 % of the weights, where the ticket is a winning ticket: +0.50 ± 0.10 points (95 % interval +0.25 to +0.75) "
        "of early test accuracy and -100 ± 20 steps (95 % interval -150 to -50) to early stopping against the dense network, "
        "n = 3."
    )


def test_where_nothing_stops_early_the_verdict_says_that_speed_is_not_examined():
    rows = [replace(row, early_stop_step=row.steps) for row in ticket(GAIN, (0, 0, 0))]
    [level] = levels(rows)
    assert level.outcome == "winning ticket, speed not examined"
    assert "winning ticket; speed not examined, as no training stopped before" in level.sentence
    assert "to early stopping" not in level.sentence
    assert not levels([replace(rows[0], early_stop_step=1), *rows[1:]])[0].no_early_stop


def test_a_ticket_that_starts_at_step_k_ends_where_the_dense_network_does():
    # its 900 updates are the last of 1,000, and steps count from the start
    rows = [replace(row, early_stop_step=1000) for row in ticket(GAIN, (0, 0, 0))]
    rows = [replace(row, steps=900) if row.level else row for row in rows]
    assert levels(rows)[0].outcome == "winning ticket, speed not examined"
    early = [replace(row, early_stop_step=950) if row.level else row for row in rows]
    assert levels(early)[0].outcome == "winning ticket"


def test_a_ticket_that_diverges_does_not_win():
    rows = ticket((*GAIN, 0, 0), (*SOONER, 0, 0))
    for place, one in enumerate(rows):
        if one.level and one.seed > 2:
            rows[place] = row({}, None, seed=one.seed, level=1, density=0.211)
    [level] = levels(rows)
    assert (level.outcome, level.diverged) == ("undecided", 2)
    assert "(tickets that diverge do not win): 2 of 5 tickets diverged; of the others +0.50" in (
        level.sentence
    )


def test_no_later_level_is_won_by_the_seeds_that_did_not_diverge():
    seeds = range(5)
    rows = ticket((*GAIN, 0, 0), (*SOONER, 0, 0))
    for place, one in enumerate(rows):
        if one.level and one.seed > 2:
            rows[place] = row({}, None, seed=one.seed, level=1, density=0.211)
    # their searches ended, and the others go on
    for one in [one for one in rows if one.level and one.seed < 3]:
        rows.append(replace(one, level=2, density=0.1, weights_kept=one.weights_kept // 2))
    assert len({one.seed for one in rows}) == len(seeds)
    first, second = levels(rows)
    assert (first.diverged, second.diverged) == (2, 2)
    assert second.outcome == "undecided"
    assert "2 of 5 tickets diverged" in second.sentence


@pytest.mark.parametrize(
    ("gains", "stops", "seeds"),
    [
        # to win takes both, and steps are sure: 2.447 × 0.577 / √7 = 0.53, 2.365 × 0.577 / √8 = 0.48
        ((0.0, 0.01, 0.0, 0.01), (-10, -11, -9, -10), 8),
        # to lose, one is enough, at half of the error rate, whatever the other is:
        # 2.969 × 91.3 / √7 = 102, 2.841 × 91.3 / √8 = 92
        ((0.005, 0.006, 0.004, 0.005), (50, 150, 0, 200), 8),
        ((-0.001, 0.02, -0.02, 0.001), (50, 150, 0, 200), 8),
    ],
)
def test_the_seeds_that_would_decide_if_the_ticket_wins(gains, stops, seeds):
    [level] = levels(ticket(gains, stops))
    assert level.outcome == "undecided"
    assert f"(at this spread {seeds} seeds would decide)" in level.sentence


def test_two_seeds_have_numbers_and_no_interval():
    [level] = levels(ticket(GAIN[:2], SOONER[:2]))
    assert level.accuracy.interval_text() == "–"
    assert (
        "undecided whether the ticket wins (2 seeds do not decide: at least 3 do): "
        "+0.45 ± 0.07 points of early test accuracy" in level.sentence
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"rewind": {"use": "learning_rate"}}, "its rewind policy 'learning_rate' never resets"),
        ({"rewind": {"use": "fine_tune"}}, "its rewind policy 'fine_tune' never resets"),
        ({"rewind": {"use": "strange"}}, "its rewind policy 'strange' is not installed here"),
        ({"mask1": {"use": "reinit"}}, "its mask1 action is 'reinit', so that the kept weights do"),
        ({"mask0": {"use": "init"}}, "its mask0 action is 'init', so that the masked weights are"),
        ({"rewind": {"use": "to_step", "step": "2%"}}, ""),
        ({"rewind": {"use": "to_init"}, "mask1": {"use": "rewind"}, "mask0": {"use": "zero"}}, ""),
        ({}, ""),
    ],
)
def test_networks_that_are_no_tickets_by_definition_are_refused(table, reason):
    [study] = group_studies(ticket(GAIN, SOONER))
    [series] = winning_tickets(study, table)
    assert series.levels[0].refusal.startswith(reason)
    assert series.levels[0].outcome == ("pruned network" if reason else "winning ticket")
    assert series.headline.startswith("Pruned networks, not tickets" if reason else "Winning")


def test_a_policy_on_an_axis_is_found_by_its_label():
    rows = []
    for label in ("to_step(step=2%)", "fine_tune"):
        axes = {"rewind": label}
        for one in ticket(GAIN, SOONER):
            rows.append(
                replace(one, axes=axes, cell=f"{label}/{one.seed}", key=f"{label}{one.key}")
            )
    [study] = group_studies(rows)
    policies = [{"use": "to_step", "step": "2%"}, {"use": "fine_tune"}]
    verdicts = winning_tickets(study, {"grid": {"rewind": policies}})
    assert [series.levels[0].outcome for series in verdicts] == ["winning ticket", "pruned network"]


def test_the_levels_of_a_series_are_corrected_for_their_number():
    gains = (0.0013, 0.002, 0.0027)  # p = 0.04
    alone = levels(ticket(gains, SOONER))
    assert alone[0].outcome == "winning ticket"
    rows = ticket(gains, SOONER)
    for level in range(2, 12):
        more = ticket(BOTH, EITHER, density=0.211 * 0.8**level, level=level)
        rows += [one for one in more if one.level]
    assert levels(rows)[0].outcome == "undecided"


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
    assert level.accuracy.estimate.spread.n == 3
    assert level.accuracy.estimate.spread.mean == pytest.approx(0.005)


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


def test_validation_chooses_the_level_of_the_headline(tmp_path):
    firm = (0.0049, 0.005, 0.0051)  # significant after the correction for five levels
    sure = (-101, -100, -99)
    rows = ticket(firm, sure, density=0.8)
    for level, (gains, density) in enumerate(
        [(firm, 0.64), (BOTH, 0.51), (firm, 0.41), ((-0.02, -0.021, -0.022), 0.1)], 2
    ):
        more = ticket(gains, sure, density=density, level=level)
        rows += [one for one in more if one.level]
    [study] = group_studies(rows)
    [series] = winning_tickets(study)
    assert series.densities("winning ticket") == "80–64, 41"
    assert series.densities("undecided") == "51"
    assert series.densities("not a winning ticket") == "10"
    assert series.densities("pruned network") == "–"
    # of levels that are equally good on the validation set the sparsest, and never the luckiest
    assert series.chosen_level.density == pytest.approx(0.41)
    better = [replace(one, validation_accuracy=0.99) if one.level == 3 else one for one in rows]
    [chosen] = winning_tickets(group_studies(better)[0])
    assert chosen.chosen_level.density == pytest.approx(0.51)
    assert "Validation chooses the level at 51 % of the weights, where it is undecided whether" in (
        chosen.headline
    )
    assert [cells[0] for cells in level_verdict_table(series).rows] == [
        "80",
        "64",
        "51",
        "41",
        "10",
    ]
    folder = fake_run(tmp_path / "run", rows)
    headline = (
        "- ticket: Winning tickets at 3 of 5 levels after Holm's correction for their number, at "
        "80–64, 41 %. Validation chooses the level at 41 % of the weights, where the ticket is a "
    )
    assert headline in markdown(folder.path)
    console = Console(width=80, file=io.StringIO())
    [table] = verdict_tables(folder, 80)
    console.print(table)
    output = console.file.getvalue()
    assert max(map(len, output.splitlines())) <= 80
    assert "80–64, 41" in output
    assert "ticket: Winning tickets at 3 of 5 levels" in output
    assert "other series" not in output


def test_validation_chooses_among_the_levels_that_every_seed_has():
    rows = ticket(GAIN, SOONER)
    # at the sparser level the best seed is alone, and so its mean is higher
    rows += [
        one for one in ticket(GAIN, SOONER, density=0.1, level=2) if one.level and one.seed == 2
    ]
    [series] = winning_tickets(group_studies(rows)[0])
    assert series.chosen_level.density == pytest.approx(0.211)


def test_two_seeds_print_no_table(tmp_path):
    assert verdict_tables(fake_run(tmp_path / "run", ticket(GAIN[:2], SOONER[:2]))) == []


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


def test_the_table_says_where_the_sentences_of_the_other_series_are(tmp_path):
    rows = []
    for name in ("a", "b", "c"):
        rows += [
            replace(one, cell=f"{name}-{one.cell}", axes={"criterion": name})
            for one in ticket(GAIN, SOONER)
        ]
    console = Console(width=200, file=io.StringIO())
    for table in verdict_tables(fake_run(tmp_path / "run", rows), 200):
        console.print(table)
    output = " ".join(console.file.getvalue().split())
    assert output.count("Validation chooses the level") == 1
    assert (
        "n = 3. The sentences of the 2 other series are in report.html, and "
        "`lotteryfw report RUN --markdown` prints them." in output
    )
