"""Claims against runs whose figures are known."""

import io

import pytest
from rich.console import Console
from support.fake_runs import curves, fake_run, row

from lotteryfw.api.errors import StoreError
from lotteryfw.report import check_claims, claims_table
from lotteryfw.report.data.series import group_studies
from lotteryfw.report.verdicts.claims import select

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
    assert result.spread.mean == pytest.approx(0.02)
    assert result.spread.sd == pytest.approx(0.01)
    # 4.30265 × 0.01 / √3 = 0.02484: wider than the mean
    assert result.spread.interval() == pytest.approx((0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)
    assert result.outcome == "not reproduced"
    better = verdict(tmp_path, pair([0.018, 0.02, 0.022]), ORDER)
    assert better.outcome == "reproduced"
    assert better.numbers == (
        "62.00 against 60.00 %: +2.00 ± 0.20 points, 3 seeds, 95 % interval +1.50 to +2.50"
    )


def test_the_wrong_order_is_not_reproduced(tmp_path):
    assert verdict(tmp_path, pair([-0.018, -0.02, -0.022]), ORDER).outcome == "not reproduced"


def test_no_difference_at_all_is_not_reproduced(tmp_path):
    assert verdict(tmp_path, pair([0.0, 0.0]), ORDER).outcome == "not reproduced"


def test_one_seed_tests_no_order(tmp_path):
    result = verdict(tmp_path, pair([0.02]), ORDER)
    assert (result.outcome, result.reason) == (
        "not tested",
        "one seed gives no confidence interval",
    )
    assert "+2.00 points, 1 seed" in result.numbers


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
    assert verdict(tmp_path, rows, {**ORDER, "density": [0.1, 0.2]}).spread.mean == pytest.approx(
        0.02
    )
    # the value for a seed is the mean of its levels
    assert verdict(tmp_path, rows, {**ORDER, "density": [0.05, 0.1]}).spread.mean == pytest.approx(
        0.01
    )
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
    assert verdict(tmp_path, rows, ORDER).spread.mean == pytest.approx(0.2)


def test_seeds_that_did_not_run_to_their_end_are_left_out(tmp_path):
    rows = pair([0.018, 0.02, 0.022, -0.9])
    assert verdict(tmp_path, rows, ORDER).outcome == "not reproduced"
    assert verdict(tmp_path, rows, ORDER, unfinished=["criteria/criterion=a/seed=3"]).spread.n == 3
    rows += [row(B, None, seed=3, level=2, density=0.05)]
    assert verdict(tmp_path, rows, ORDER).spread.n == 3


def test_controls_are_selected_by_arm(tmp_path):
    rows = [
        row({}, accuracy, variant=variant, seed=seed, level=1, density=0.1)
        for variant, accuracy in (("ticket", 0.9), ("reinit", 0.8), ("random_mask", 0.3))
        for seed in range(2)
    ]
    result = verdict(tmp_path, rows, {**BASE, "higher": {}, "lower": {"variant": "reinit"}})
    assert result.spread.mean == pytest.approx(0.1)
    assert verdict(
        tmp_path, rows, {**BASE, "higher": {}, "lower": {"variant": "nobody"}}
    ).reason == ("this run has no variant=nobody")


def test_a_bare_name_means_the_exact_label_first():
    plain, signed, other = "constant", "constant(keep_sign=false)", "reinit(keep_sign=false)"
    [study] = group_studies([row({"mask1": label}, 0.5) for label in (plain, signed, other)])

    def chosen(value):
        return [series.axes["mask1"] for series in select(study, {"mask1": value})]

    assert chosen("constant") == [plain]
    assert chosen(signed) == [signed]
    assert chosen("reinit") == [other]
    assert chosen("const") == []


def test_plain_values_are_selected_as_toml_writes_them():
    [study] = group_studies([row({"scope.rate": "0.2", "mask1.rescale": "true"}, 0.5)])
    assert len(select(study, {"scope.rate": 0.2, "mask1.rescale": True})) == 1
    assert select(study, {"scope.rate": 0.3}) == []


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
    assert result.outcome == ("not tested" if reason else "reproduced")


def test_a_value_is_reproduced_within_its_tolerance(tmp_path):
    claim = {**BASE, "of": A, "expect": 0.64, "tolerance": 0.02}
    result = verdict(tmp_path, pair([0.018, 0.02, 0.022]), claim)
    assert result.outcome == "reproduced"
    assert result.numbers.startswith("62.00 ± ")
    assert result.numbers.endswith("expected 64.00 ± 2.00 %")
    assert verdict(tmp_path, pair([0.0, 0.0, 0.0]), claim).outcome == "not reproduced"


@pytest.mark.parametrize(
    ("bound", "outcome"), [({"at_most": 0.62}, "reproduced"), ({"at_most": 0.61}, "not reproduced"),
                           ({"at_least": 0.62}, "reproduced"), ({"at_least": 0.63}, "not reproduced")],
)  # fmt: skip
def test_a_bound_is_held_against_the_mean(tmp_path, bound, outcome):
    rows = [
        row(A, value, seed=seed, level=1, density=0.1)
        for seed, value in enumerate((0.60, 0.62, 0.64))
    ]
    result = verdict(tmp_path, rows, {**BASE, "of": A, **bound})
    assert result.outcome == outcome
    assert result.numbers.endswith("or less" if "at_most" in bound else "or more")


def test_the_best_level_is_one_that_was_cut(tmp_path):
    rows = [
        row(A, accuracy, seed=seed, level=level, density=0.5**level)
        for seed in (0, 1)
        for level, accuracy in enumerate([0.98, 0.7, 0.8, 0.2])
    ]
    result = verdict(tmp_path, rows, {**BASE, "of": A, "at": "best level", "at_least": 0.9})
    assert (result.outcome, result.spread.mean) == ("not reproduced", pytest.approx(0.8))
    assert result.tested.endswith("all levels · the best level of each seed")


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
    assert any("│ reproduced" in line for line in lines)


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


def test_brackets_in_a_claim_are_printed(tmp_path):
    scope = {"scope": "global(exclude=[fc3])"}
    claim = {**BASE, "text": "[i]so[/i]", "of": {"scope": "layerwise[red]"}, "at_least": 0.5}
    console = Console(width=200, file=io.StringIO())
    console.print(claims_table([verdict(tmp_path, [row(scope, 0.9, level=1)], claim)], 200))
    assert "[i]so[/i]" in console.file.getvalue()
    assert "layerwise[red]" in console.file.getvalue()
