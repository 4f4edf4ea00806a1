"""Claims against runs whose figures are known."""

import io
from dataclasses import replace
from math import nan

import pytest
from rich.console import Console
from support.fake_runs import curves, fake_run, row

from lotteryfw.api.errors import StoreError
from lotteryfw.recipe import Claim
from lotteryfw.report import check_claims, claims_table
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.verdicts.claim_sides import select
from lotteryfw.report.verdicts.evidence import Evidence
from lotteryfw.store import LevelRow

A, B = {"criterion": "a"}, {"criterion": "b"}
BASE = {"text": "a beats b", "source": "a paper", "study": "criteria"}
ORDER = {**BASE, "higher": A, "lower": B}


def pair(differences, **more):
    """Rows at 10 % of the weights in which `a` lies above `b` by so much, a seed each."""
    rows = []
    for seed, difference in enumerate(differences):
        base = 0.5 + 0.1 * (
            seed % 3
        )  # seeds differ by more than the variants do, so only pairing finds the difference
        rows += [row(B, base, seed=seed, level=1, density=0.1, stop=500, **more)]
        rows += [
            row(
                A,
                base + difference,
                seed=seed,
                level=1,
                density=0.1,
                stop=500 + round(1000 * difference),
                **more,
            )
        ]
    return rows


def verdict(tmp_path, rows, claim, **more):
    [result] = check_claims(fake_run(tmp_path / "run", rows, [claim], **more))
    return result


def test_an_order_is_judged_by_paired_differences_over_seeds(tmp_path):
    result = verdict(tmp_path, pair([0.01, 0.02, 0.03]), ORDER)
    assert mean(result) == pytest.approx(0.02)
    assert result.estimate.spread.sd == pytest.approx(0.01)
    # 4.30265 × 0.01 / √3 = 0.02484: wider than the mean
    assert result.estimate.interval == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)
    assert result.outcome == "undecided"
    # 3.18245 × 0.01 / √4 = 0.0159
    assert result.reason == "at this spread 4 seeds would decide"
    better = verdict(tmp_path, pair([0.018, 0.02, 0.022]), ORDER)
    assert (better.outcome, better.reason) == ("supported", "")
    assert better.numbers == (
        "62.00 against 60.00 %: +2.00 ± 0.20 points, 3 seeds, 95 % interval +1.50 to +2.50"
    )


def mean(result):
    return result.estimate.spread.mean


def test_the_wrong_order_is_contradicted(tmp_path):
    assert verdict(tmp_path, pair([-0.018, -0.02, -0.022]), ORDER).outcome == "contradicted"


def test_no_difference_at_all_decides_no_order(tmp_path):
    result = verdict(tmp_path, pair([0.0, 0.0, 0.0]), ORDER)
    assert result.outcome == "undecided"
    assert result.reason == "no seed differs, so that more of them would not decide"


def test_fewer_than_three_seeds_decide_nothing(tmp_path):
    result = verdict(tmp_path, pair([0.02]), ORDER)
    assert (result.outcome, result.reason) == (
        "undecided",
        "1 seed does not decide: at least 3 do",
    )
    assert "+2.00 points, 1 seed" in result.numbers
    assert verdict(tmp_path, pair([0.02, 0.02]), ORDER).outcome == "undecided"


def test_other_metrics_keep_their_unit(tmp_path):
    result = verdict(tmp_path, pair([0.018, 0.02, 0.022]), {**ORDER, "metric": "early_stop_step"})
    assert result.numbers.startswith("520 against 500 steps: +20 ± 2 steps")


def test_only_levels_in_the_range_count_ends_included(tmp_path):
    rows = pair([0.018, 0.02, 0.022])
    rows += [
        row(axes, 0.1, seed=seed, level=2, density=0.05) for axes in (A, B) for seed in range(3)
    ]
    rows += [
        row(axes, value, seed=seed, density=0.3)
        for axes, value in ((A, 0.1), (B, 0.9))
        for seed in range(3)
    ]
    assert verdict(
        tmp_path, rows, {**ORDER, "density": [0.1, 0.2]}
    ).estimate.spread.mean == pytest.approx(0.02)
    # the value for a seed is the mean of its levels
    assert verdict(
        tmp_path, rows, {**ORDER, "density": [0.05, 0.1]}
    ).estimate.spread.mean == pytest.approx(0.01)
    result = verdict(tmp_path, rows, {**ORDER, "density": [0.0, 0.01]})
    assert (result.outcome, result.reason) == (
        "not tested", "no finished cell of criterion=a has a level at 0 to 1 % of the weights"
    )  # fmt: skip


def test_a_side_of_several_series_is_their_mean(tmp_path):
    rows = [
        row({"criterion": name, "mask0": mask0}, accuracy, seed=seed, level=1, density=0.1)
        for name, mask0, accuracy in (
            ("a", "zero", 0.9),
            ("a", "init", 0.7),
            ("b", "zero", 0.6),
            ("b", "init", 0.6),
        )
        for seed in range(2)
    ]
    assert verdict(tmp_path, rows, ORDER).estimate.spread.mean == pytest.approx(0.2)


def test_seeds_that_did_not_run_to_their_end_are_left_out(tmp_path):
    rows = pair([0.018, 0.02, 0.022, -0.9])
    assert verdict(tmp_path, rows, ORDER).outcome == "undecided"
    assert verdict(tmp_path, rows, ORDER, unfinished=["criteria/criterion=a/seed=3"]).seeds == 3
    rows += [row(B, None, seed=3, level=2, density=0.05)]
    assert verdict(tmp_path, rows, ORDER).seeds == 3


def test_controls_are_selected_by_arm(tmp_path):
    rows = [
        row({}, accuracy, variant=variant, seed=seed, level=1, density=0.1)
        for variant, accuracy in (("ticket", 0.9), ("reinit", 0.8), ("random_mask", 0.3))
        for seed in range(2)
    ]
    result = verdict(tmp_path, rows, {**BASE, "higher": {}, "lower": {"variant": "reinit"}})
    assert mean(result) == pytest.approx(0.1)
    assert verdict(
        tmp_path, rows, {**BASE, "higher": {}, "lower": {"variant": "nobody"}}
    ).reason == ("this run has no variant=nobody")


def beside(levels, of_control):
    """Rows of tickets at these densities, and of a control at some of them, of three seeds."""
    rows = []
    for seed in range(3):
        for level, (density, accuracy) in enumerate(levels.items(), 1):
            spread = 0.001 * seed
            at = {"seed": seed, "level": level, "density": density}
            rows.append(row(A, accuracy + spread, **at))
            if density in of_control:
                control = of_control[density] + 2 * spread
                rows.append(row(A, control, variant="reinit", **at))
    return rows


BESIDE = {**BASE, "higher": A, "lower": {**A, "variant": "reinit"}}


def test_a_ticket_and_its_control_are_compared_at_the_levels_that_both_have(tmp_path):
    tickets = {0.5: 0.99, 0.2: 0.9, 0.1: 0.8}
    result = verdict(tmp_path, beside(tickets, {0.2: 0.85, 0.1: 0.75}), BESIDE)
    # without the level of 50 %, where the ticket is alone
    assert mean(result) == pytest.approx(0.05 - 0.001)
    assert result.numbers.startswith("85.10 against 80.20 %")
    # searches of their own are compared over all that each has
    one = {**BASE, "higher": {**A, "density": [0.3, 1.0]}, "lower": {**A, "variant": "reinit"}}
    apart = verdict(tmp_path, beside(tickets, {0.2: 0.85, 0.1: 0.75}), one)
    assert mean(apart) == pytest.approx(0.99 - 0.8 - 0.001)


def test_a_ticket_and_a_control_without_a_level_in_common_are_not_compared(tmp_path):
    rows = beside({0.5: 0.9}, {})
    for seed in range(3):
        rows.append(row(A, 0.8, variant="reinit", seed=seed, level=2, density=0.2))
    result = verdict(tmp_path, rows, BESIDE)
    assert result.outcome == "not tested"
    assert "criterion=a and criterion=a, variant=reinit have no level in common" in result.reason


def evidence(tmp_path, rows, **more):
    return Evidence.of(RunData(fake_run(tmp_path / "run", rows, **more)), [])


def test_a_bare_name_means_the_exact_label_first(tmp_path):
    plain, signed, other = "constant", "constant(keep_sign=false)", "reinit(keep_sign=false)"
    run = evidence(tmp_path, [row({"mask1": label}, 0.5) for label in (plain, signed, other)])

    def chosen(value):
        return [series.axes["mask1"] for series in select(side({"mask1": value}), run)]

    assert chosen("constant") == [plain]
    assert chosen(signed) == [signed]
    assert chosen("reinit") == [other]
    assert chosen("const") == []


def side(table):
    """A side of a claim with these axes."""
    claim = Claim.model_validate({**BASE, "of": table, "at_least": 0.5})
    return claim.sides()["of"]


def test_plain_values_are_selected_by_their_labels(tmp_path):
    run = evidence(tmp_path, [row({"scope.rate": "0.2", "mask1.rescale": "true"}, 0.5)])
    assert len(select(side({"scope.rate": "0.2", "mask1.rescale": "true"}), run)) == 1
    assert select(side({"scope.rate": "0.3"}), run) == []


def test_a_claim_about_several_searches_waits_for_all_of_them(tmp_path):
    rows = []
    for seed, noise in enumerate((-0.002, 0.001, 0.0)):
        for criterion, mask1, accuracy in (
            ("a", "rewind", 0.9),
            ("a", "reinit", 0.95),
            ("b", "rewind", 0.3),
        ):
            axes = {"criterion": criterion, "mask1": mask1}
            rows.append(row(axes, accuracy + noise, seed=seed, level=1, density=0.1))
    claim = {**BASE, "higher": {"mask1": "reinit"}, "lower": {"mask1": "rewind"}}
    still = [f"criteria/criterion=b/mask1=reinit/seed={seed}" for seed in range(3)]
    result = verdict(tmp_path, rows, claim, unfinished=still)
    assert (result.outcome, result.reason) == (
        "not tested", "some searches of mask1=reinit have no results yet"
    )  # fmt: skip
    # what the claim is not about may be missing
    other = {**BASE, "higher": {"mask1": "reinit", **A}, "lower": {"mask1": "rewind", **A}}
    assert verdict(tmp_path, rows, other, unfinished=still).outcome == "supported"


def test_a_label_does_not_stand_for_another_while_its_own_search_is_to_run(tmp_path):
    other = {"mask1": "constant(keep_sign=false)", "data": "folder(path=/a/b)"}
    rows = [row(other, 0.5, seed=seed, level=1, density=0.1) for seed in range(3)]
    claim = {**BASE, "of": {"mask1": "constant"}, "at_least": 0.4}
    still = [f"criteria/mask1=constant/data=folder(path=/a/b)/seed={seed}" for seed in range(3)]
    assert verdict(tmp_path, rows, claim).outcome == "supported"
    assert "no results yet" in verdict(tmp_path, rows, claim, unfinished=still).reason


def test_a_control_that_is_still_to_be_trained_is_waited_for(tmp_path):
    rows = beside({0.2: 0.9}, {0.2: 0.8})
    rows += [replace(one, axes=B, cell=one.cell.replace("=a", "=b")) for one in rows]
    rows = [one for one in rows if (one.axes, one.variant) != (B, "reinit")]
    claim = {**BASE, "of": {"variant": "reinit"}, "at_least": 0.1}
    still = [f"criteria/criterion=b/seed={seed}" for seed in range(3)]
    assert "no results yet" in verdict(tmp_path, rows, claim, unfinished=still).reason


@pytest.mark.parametrize(
    ("length", "steps", "needs", "reason"),
    [
        ("1000it", 1000, "50000it", "not at this length: needs 50000it, this run has 1000it"),
        ("2ep", 1000, "55ep", "not at this length: needs 55ep, this run has 2ep"),
        (
            "1000it",
            1000,
            "2ep",
            "not at this length, as far as is known: needs 2ep, this run has 1000it",
        ),
        ("1000it", 1000, "1000it", ""),
        ("55ep", 1000, "55ep", ""),
        ("55ep", 50_000, "50000it", ""),
    ],
)
def test_short_runs_test_no_claim_that_needs_length(tmp_path, length, steps, needs, reason):
    rows = pair([0.018, 0.02, 0.022], steps=steps)
    result = verdict(tmp_path, rows, {**ORDER, "needs_length": needs}, length=length)
    assert result.reason == reason
    assert result.outcome == ("not tested" if reason else "supported")
    assert "+2.00 ± 0.20 points" in result.numbers  # shown all the same


def test_a_control_that_starts_at_step_k_is_as_long_as_its_ticket(tmp_path):
    rows = []
    for seed in range(3):
        rows.append(row(A, 0.9, seed=seed, steps=1000))
        for variant, accuracy in (("ticket", 0.85), ("random_mask", 0.6 + 0.001 * seed)):
            at = {"seed": seed, "level": 1, "density": 0.1}
            rows.append(row(A, accuracy, variant=variant, steps=900, **at))
    claim = {**BASE, "higher": A, "lower": {**A, "variant": "random_mask"}, "density": 0.1}
    assert verdict(tmp_path, rows, {**claim, "needs_length": "1000it"}).outcome == "supported"
    long = verdict(tmp_path, rows, {**claim, "needs_length": "1001it"})
    assert long.reason == "not at this length: needs 1001it, this run has 1000it"


@pytest.mark.parametrize(("own", "outcome"), [("2ep", "not tested"), (None, "supported")])
def test_a_target_has_a_length_of_its_own(tmp_path, own, outcome):
    rows = [row(A, 0.9 + 0.001 * seed, variant="other", seed=seed) for seed in range(3)]
    claim = {**BASE, "of": {"variant": "other"}, "at_least": 0.5, "needs_length": "30ep"}
    target = {"name": "other", "train": {"length": own} if own else {}}
    result = verdict(tmp_path, rows, claim, length="30ep", targets=[target])
    assert result.outcome == outcome


def test_a_length_that_is_needed_is_no_share():
    with pytest.raises(ValueError, match="a number of steps or epochs"):
        Claim.model_validate({**ORDER, "needs_length": "50%"})


REASON = {"tolerance_reason": "half of the gap to the next value"}


def test_a_value_is_judged_on_both_sides(tmp_path):
    rows = pair([0.018, 0.02, 0.022])  # a: 0.518, 0.62 and 0.722, which is a wide interval
    claim = {**BASE, "of": A, "expect": 0.62, "tolerance": 0.3, **REASON}
    result = verdict(tmp_path, rows, claim)
    assert result.outcome == "supported"
    assert result.numbers.startswith("62.00 ± ")
    assert result.numbers.endswith("published 62.00 %, within 30.00 points")
    assert verdict(tmp_path, rows, {**claim, "tolerance": 0.02}).outcome == "undecided"
    # too high is as wrong as too low
    assert (
        verdict(tmp_path, rows, {**claim, "expect": 0.1, "tolerance": 0.02}).outcome
        == "contradicted"
    )
    assert (
        verdict(tmp_path, rows, {**claim, "expect": 1.4, "tolerance": 0.02}).outcome
        == "contradicted"
    )


def test_sides_of_two_metrics_are_told_apart_and_compared_in_one_unit(tmp_path):
    test, validation = {"metric": "test_accuracy"}, {"metric": "validation_accuracy"}
    rows = []
    for each in pair([0.01, 0.02]):
        rows.append(replace(each, validation_accuracy=each.test_accuracy - 0.1))
    result = verdict(tmp_path, rows, {**BASE, "higher": test, "lower": validation})
    assert mean(result) == pytest.approx(0.1)
    assert result.tested.startswith(
        "test accuracy of ticket above validation accuracy of ticket · study criteria"
    )
    steps = {"metric": "early_stop_step"}
    result = verdict(tmp_path, rows, {**BASE, "higher": test, "lower": steps})
    assert (result.outcome, result.reason) == (
        "not tested",
        "'test accuracy, %' and 'early-stopping step' have different units",
    )


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ([0.001, 0.002, 0.003], "supported"),
        ([0.001, 0.02, -0.02], "undecided"),  # a mean within the tolerance is not enough
        ([0.031, 0.032, 0.033], "contradicted"),
        ([-0.031, -0.032, -0.033], "contradicted"),
    ],
)
def test_a_likeness_is_an_equivalence_test(tmp_path, differences, outcome):
    claim = {**BASE, "of": A, "like": B, "tolerance": 0.01, **REASON}
    result = verdict(tmp_path, pair(differences), claim)
    assert result.outcome == outcome
    assert result.numbers.endswith("alike within 1.00 points")
    assert "tolerance: half of the gap" in result.tested


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [([-0.001, -0.002, -0.003], "supported"), ([-0.018, -0.02, -0.022], "contradicted")],
)
def test_a_side_that_is_no_lower_by_more_than_a_tolerance(tmp_path, differences, outcome):
    claim = {**ORDER, "tolerance": 0.01, **REASON}
    assert verdict(tmp_path, pair(differences), claim).outcome == outcome


@pytest.mark.parametrize(
    ("bound", "outcome"), [({"at_most": 0.7}, "supported"), ({"at_most": 0.61}, "undecided"),
                           ({"at_least": 0.5}, "supported"), ({"at_least": 0.7}, "contradicted")],
)  # fmt: skip
def test_a_bound_is_held_against_the_interval(tmp_path, bound, outcome):
    rows = [
        row(A, value, seed=seed, level=1, density=0.1)
        for seed, value in enumerate((0.60, 0.62, 0.64))
    ]
    result = verdict(tmp_path, rows, {**BASE, "of": A, **bound})
    assert result.outcome == outcome
    assert result.numbers.endswith("or less" if "at_most" in bound else "or more")


def test_sides_have_their_own_study_density_and_variant(tmp_path):
    rows = []
    for seed in range(3):
        noise = 0.001 * seed
        rows.append(row({}, 0.9 + noise, study="one", seed=seed, stop=800))
        rows.append(row({}, 0.95, study="one", seed=seed, level=1, density=0.2, stop=300 + seed))
        rows.append(
            row({}, 0.7 + noise, study="two", variant="reinit", seed=seed, level=1, density=0.2)
        )
    order = {"text": "t", "source": "s", "study": "one", "density": 0.21}

    dense = verdict(tmp_path, rows, {**order, "higher": {}, "lower": {"density": 1.0}})
    assert (dense.outcome, round(mean(dense), 4)) == ("supported", 0.049)
    other = {"study": "two", "variant": "reinit"}
    across = verdict(tmp_path, rows, {**order, "higher": {}, "lower": other})
    assert (across.outcome, round(mean(across), 4)) == ("supported", 0.249)
    stop = {**order, "metric": "early_stop_step", "higher": {"density": 1.0}, "lower": {}}
    assert mean(verdict(tmp_path, rows, stop)) == pytest.approx(499)


def test_one_density_means_the_level_near_it(tmp_path):
    rows = []
    for density, level in ((0.512, 1), (0.41, 2), (0.328, 3)):
        rows += [row({}, 0.5 + density, seed=seed, level=level, density=density) for seed in (0, 1)]
    claim = {**BASE, "of": {}, "at_least": 0.1}
    assert mean(verdict(tmp_path, rows, {**claim, "density": 0.4})) == pytest.approx(0.91)
    absent = verdict(tmp_path, rows, {**claim, "density": 0.45})
    assert absent.reason == "no finished cell of ticket has a level at 45 % of the weights"


def test_a_figure_that_the_run_was_made_without_is_named(tmp_path):
    claim = {**BASE, "of": {}, "at_least": 0.1, "metric": "metric.train_accuracy"}
    result = verdict(tmp_path, pair([0.01, 0.02, 0.03]), claim)
    assert (result.outcome, result.reason) == (
        "not tested", "this run has no figure 'metric.train_accuracy' of ticket"
    )  # fmt: skip


LADDER = {**BASE, "of": {}, "rises_along": {"criterion": ["a", "b", "c"]}}


@pytest.mark.parametrize(
    ("means", "outcome", "step"),
    [
        ((0.5, 0.6, 0.7), "supported", "a to b"),
        ((0.5, 0.6, 0.6), "undecided", "b to c"),
        ((0.5, 0.6, 0.4), "contradicted", "b to c"),
        ((0.6, 0.5, 0.4999), "contradicted", "a to b"),
    ],
)
def test_a_trend_is_as_good_as_its_weakest_step(tmp_path, means, outcome, step):
    rows = []
    for criterion, accuracy in zip("abc", means, strict=True):
        for seed, noise in enumerate((-0.002, 0.001, 0.0)):
            sign = 1 if criterion == "b" else -1
            value = accuracy + sign * noise
            rows.append(row({"criterion": criterion}, value, seed=seed, level=1, density=0.1))
    result = verdict(tmp_path, rows, LADDER)
    assert result.outcome == outcome
    assert f"weakest step, {step}" in result.numbers


def rising(*steps):
    """Rows of criteria a, b, …, each above the one before by these differences, one for each seed."""
    rows = []
    for seed, differences in enumerate(zip(*steps, strict=True)):
        value = 0.5
        for criterion, difference in zip("abc", (0.0, *differences), strict=True):
            if difference is None:
                continue
            value += difference
            rows.append(row({"criterion": criterion}, value, seed=seed, level=1, density=0.1))
    return rows


def test_a_trend_is_undecided_by_the_step_that_is_not_supported(tmp_path):
    # a to b is the smaller step and sure; b to c is larger and is not
    rows = rising([0.01, 0.0101, 0.0099, 0.01, 0.01], [0.08, -0.03, 0.05, -0.02, 0.02])
    result = verdict(tmp_path, rows, LADDER)
    assert result.outcome == "undecided"
    assert "weakest step, b to c: +2.00 ± 4.64 points" in result.numbers
    assert result.reason == "at this spread 24 seeds would decide"


def test_a_trend_that_may_yet_be_contradicted_counts_its_steps(tmp_path):
    # 2.776 × 1.58 / √5 = 1.96 would decide a single difference, and not one of two:
    # 3.163 × 1.58 / √6 = 2.04, 2.969 × 1.58 / √7 = 1.77
    rows = rising([0.1, 0.1001, 0.0999, 0.1, 0.1], [-0.04, -0.03, -0.02, -0.01, 0.0])
    result = verdict(tmp_path, rows, LADDER)
    assert (result.outcome, result.reason) == ("undecided", "at this spread 7 seeds would decide")
    assert "weakest step, b to c: -2.00 ± 1.58 points" in result.numbers


def test_a_trend_with_too_few_seeds_at_one_step_says_so(tmp_path):
    rows = rising([0.01, 0.01, 0.01], [0.1, 0.1, None])
    result = verdict(tmp_path, rows, LADDER)
    assert result.reason == "2 seeds do not decide: at least 3 do"
    assert result.numbers.startswith("50.00 → 51.00 → 61.00 %")


def test_the_variants_of_a_trend_are_compared_at_the_levels_that_all_have(tmp_path):
    rows = beside({0.8: 0.95, 0.5: 0.9, 0.1: 0.6}, {0.1: 0.7})
    claim = {**BASE, "of": A, "rises_along": {"variant": ["reinit", "ticket"]}}
    assert verdict(tmp_path, rows, claim).outcome == "contradicted"


def test_the_last_levels_of_a_ticket_and_its_control_have_to_be_the_same(tmp_path):
    rows = beside({0.5: 0.9, 0.1: 0.3}, {0.5: 0.7})
    claim = {**BESIDE, "at": "last level"}
    result = verdict(tmp_path, rows, claim)
    assert result.reason == (
        "the last levels of criterion=a and criterion=a, variant=reinit are not the same"
    )
    assert verdict(tmp_path, beside({0.5: 0.9}, {0.5: 0.7}), claim).outcome == "supported"


@pytest.mark.parametrize(
    ("form", "outcome"), [("falls_with", "supported"), ("rises_with", "contradicted")]
)
def test_two_figures_are_compared_by_rank_over_cells(tmp_path, form, outcome):
    rows = []
    for place in range(6):
        for seed in range(3):
            accuracy = 0.5 + 0.05 * place + 0.01 * ((seed * place) % 4)
            axes = {"train.batch": str(place)}
            rows.append(row(axes, accuracy, seed=seed, level=1, density=0.1, stop=900 - place))
    claim = {**BASE, "of": {"metric": "early_stop_step"}, form: {"metric": "test_accuracy"}}
    result = verdict(tmp_path, rows, claim)
    assert result.outcome == outcome
    assert result.numbers.startswith("rank correlation over 6 cells and levels of each seed: -")
    few = verdict(tmp_path, [one for one in rows if one.axes["train.batch"] < "4"], claim)
    assert few.reason == "a rank correlation needs 5 cells and levels, not 4"
    # in the coefficient's own sign, whichever way the claim is
    assert result.estimate.spread.mean < 0


def test_a_seed_that_a_rank_correlation_leaves_out_is_not_counted(tmp_path):
    rows = []
    for seed in range(4):
        for place in range(6):
            accuracy = 0.5 + 0.05 * place
            # of a figure that is no number there is no rank
            value = nan if seed == 0 and place > 1 else float(place)
            one = row({"train.batch": str(place)}, accuracy, seed=seed, level=1, density=0.1)
            rows.append(replace(one, metrics={"top_5": value}))
    claim = {**BASE, "of": {"metric": "metric.top_5"}, "rises_with": {"metric": "test_accuracy"}}
    result = verdict(tmp_path, rows, claim)
    assert result.numbers.startswith("rank correlation over 6 cells and levels of each seed: +1.00")
    assert result.seeds == 3


def test_a_figure_that_is_no_number_decides_nothing(tmp_path):
    rows = []
    for seed, value in enumerate((0.05, 0.06, nan)):
        one = row(A, 0.5, seed=seed, level=1, density=0.1)
        rows.append(replace(one, metrics={"top_5": value}))
    result = verdict(tmp_path, rows, {**BASE, "of": A, "metric": "metric.top_5", "at_most": 0.9})
    assert (result.outcome, result.reason) == (
        "undecided", "the figure of a seed is not a finite number"
    )  # fmt: skip


def test_the_best_level_of_a_figure_below_minus_one(tmp_path):
    rows = []
    for seed in range(3):
        for level, figure in ((1, -2.0), (2, -3.0)):
            one = row(A, 0.5, seed=seed, level=level, density=0.5**level)
            rows.append(replace(one, validation_accuracy=figure, test_accuracy=figure))
    claim = {**BASE, "of": A, "at": "best level", "at_least": -2.5}
    assert verdict(tmp_path, rows, claim).outcome == "supported"


def test_a_family_is_corrected_and_says_so(tmp_path):
    rows = pair([0.014, 0.02, 0.026])  # p = 0.029: enough alone, not as one of three
    alone = verdict(tmp_path, rows, ORDER)
    assert alone.outcome == "supported"
    reverse = {**BASE, "higher": B, "lower": A}
    family = [{**ORDER, "family": "f"}, {**reverse, "family": "f"}, {**ORDER, "family": "f"}]
    results = check_claims(fake_run(tmp_path / "run", rows, family))
    assert [result.outcome for result in results] == ["undecided"] * 3
    assert "one of 3 of the family 'f', corrected by Holm" in results[0].reason
    assert "seeds would decide" in results[0].reason
    # a claim that has no values is no test, and does not count
    gone = {**ORDER, "higher": {"criterion": "gone"}, "family": "f"}
    both = check_claims(fake_run(tmp_path / "run", rows, [family[0], gone]))
    assert [result.outcome for result in both] == ["supported", "not tested"]


def test_a_claim_that_the_recipe_cannot_test_says_why(tmp_path):
    claim = {**ORDER, "untested": "no train accuracy is recorded"}
    result = verdict(tmp_path, pair([0.1, 0.1, 0.1]), claim)
    assert (result.outcome, result.reason) == ("not tested", "no train accuracy is recorded")


def test_other_claims_than_the_run_had_can_be_judged(tmp_path):
    folder = fake_run(tmp_path / "run", pair([0.018, 0.02, 0.022]), [])
    [result] = check_claims(folder, [Claim.model_validate(ORDER)])
    assert result.outcome == "supported"
    assert result.steps == 1000


def test_the_best_level_is_chosen_once_for_all_seeds_and_was_pruned(tmp_path):
    rows = []
    for seed, accuracies in enumerate(([0.98, 0.7, 0.8], [0.98, 0.7, 0.75], [0.98, 0.76, 0.75])):
        for level, accuracy in enumerate(accuracies):
            rows.append(row(A, accuracy, seed=seed, level=level, density=0.5**level))
    claim = {**BASE, "of": A, "at": "best level", "at_least": 0.9}
    result = verdict(tmp_path, rows, claim)
    # the third seed's own best level would be another
    assert (result.outcome, mean(result)) == ("contradicted", pytest.approx((0.8 + 0.75 * 2) / 3))
    assert result.numbers.endswith("at 25 % of the weights, chosen by validation")
    assert result.tested.endswith("all levels · the best level")


def test_the_last_level_is_that_of_each_search(tmp_path):
    rows = []
    for seed in range(3):
        for level in (1, 2, 3):
            rows.append(row(A, 0.1 * level, seed=seed, level=level, density=0.5**level))
    claim = {**BASE, "of": A, "at": "last level", "at_least": 0.25}
    assert mean(verdict(tmp_path, rows, claim)) == pytest.approx(0.3)


def test_a_study_without_results_is_not_tested(tmp_path):
    assert verdict(tmp_path, [], ORDER).reason == "study 'criteria' has no results"


def test_a_damaged_recipe_is_named(tmp_path):
    folder = fake_run(
        tmp_path / "run", pair([0.1]), [{"text": "no form", "source": "", "study": "criteria"}]
    )
    with pytest.raises(StoreError, match=r"resolved\.toml"):
        check_claims(folder)


def test_the_table_fits_the_terminal(tmp_path):
    rows = curves("criteria", [A, B])
    folder = fake_run(
        tmp_path / "run", rows, [{**ORDER, "text": "a beats b " * 20, "density": [0.0, 0.1]}]
    )
    console = Console(width=80, file=io.StringIO())
    console.print(claims_table(check_claims(folder), 80))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("│ supported" in line for line in lines)


def test_trainings_that_diverged_are_the_reason_of_a_claim_that_is_not_tested(tmp_path):
    result = verdict(
        tmp_path, [row(A, None, level=1, density=0.1)], {**BASE, "of": A, "at_least": 0.5}
    )
    assert result.outcome == "not tested"
    assert result.reason.endswith("as trainings diverged")
    absent = verdict(
        tmp_path, [row(A, 0.9, level=1)], {**BASE, "of": A, "at_least": 0.5, "density": [0.1, 0.2]}
    )
    assert "diverged" not in absent.reason


def chains(ends: dict[tuple[str, int], int]) -> list[LevelRow]:
    """Five seeds of three levels each, `a` above `b`; some diverge at a level, and end there."""
    rows = []
    for seed in range(5):
        for axes, accuracy in ((A, 0.9), (B, 0.8)):
            end = ends.get((axes["criterion"], seed), 4)
            for level in (1, 2, 3):
                value = accuracy + 0.001 * seed if level < end else None
                if level <= end:
                    rows.append(row(axes, value, seed=seed, level=level, density=0.5**level))
    return rows


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("level", [1, 2])
def test_seeds_that_diverged_leave_a_claim_undecided(tmp_path, side, level):
    claim = {**ORDER, "density": [0.1, 0.3]}
    assert verdict(tmp_path, chains({}), claim).outcome == "supported"
    # at level 1 the claim's levels are never reached, at level 2 the first of them diverges
    result = verdict(tmp_path, chains({(side, 1): level, (side, 3): level}), claim)
    assert (result.outcome, result.seeds) == ("undecided", 3)
    assert result.reason == "left out, as trainings diverged: seeds 1, 3"
    assert mean(result) == pytest.approx(0.1)


def test_a_control_that_diverged_leaves_its_claims_undecided(tmp_path):
    rows = chains({})
    for level_row in list(rows):
        if level_row.level == 1:
            is_lost = level_row.seed == 2
            accuracy = None if is_lost else 0.5
            status = "diverged" if is_lost else "done"
            rows.append(replace(level_row, variant="reinit", test_accuracy=accuracy, status=status))
    claim = {**BASE, "higher": A, "lower": {**A, "variant": "reinit"}, "density": 0.5}
    folder = fake_run(tmp_path / "run", rows, [claim])
    manifest = folder.read_manifest()
    # the cell goes on, and its search ends well
    folder.write_manifest(manifest | {"cells": dict.fromkeys(manifest["cells"], "done")})
    [result] = check_claims(folder)
    assert (result.outcome, result.seeds, result.diverged) == ("undecided", 4, (2,))


def test_levels_before_a_training_diverged_count(tmp_path):
    result = verdict(tmp_path, chains({("a", 1): 3}), {**ORDER, "density": [0.2, 0.6]})
    assert (result.outcome, result.seeds, result.diverged) == ("supported", 5, ())


def test_a_claim_says_at_which_levels_it_was_measured(tmp_path):
    rows = chains({})
    for level_row in list(rows):
        if level_row.level == 2:
            rows.append(replace(level_row, variant="reinit", test_accuracy=0.5))
    every = {**BASE, "of": A, "at_least": 0.5}
    assert verdict(tmp_path, rows, every).measured == (
        "test accuracy, 3 levels, 50–12.5 % of the weights"
    )
    # the control has one level, so both are compared there
    reinit = {**BASE, "higher": A, "lower": {**A, "variant": "reinit"}, "density": [0.0, 0.6]}
    assert verdict(tmp_path, rows, reinit).measured == "test accuracy, 25 % of the weights"
    last = {**every, "at": "last level"}
    assert verdict(tmp_path, rows, last).measured == "test accuracy, all levels, the last level"
    apart = {**BASE, "higher": {**A, "density": 0.25}, "lower": {**B, "density": 0.5}}
    assert verdict(tmp_path, rows, apart).measured == (
        "test accuracy, 25 % of the weights and 50 % of the weights"
    )


def test_brackets_in_a_claim_are_printed(tmp_path):
    scope = {"scope": "global(exclude=[fc3])"}
    claim = {**BASE, "text": "[i]so[/i]", "of": {"scope": "layerwise[red]"}, "at_least": 0.5}
    console = Console(width=200, file=io.StringIO())
    console.print(claims_table([verdict(tmp_path, [row(scope, 0.9, level=1)], claim)], 200))
    assert "[i]so[/i]" in console.file.getvalue()
    assert "layerwise[red]" in console.file.getvalue()
