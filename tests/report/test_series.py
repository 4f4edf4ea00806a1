"""From rows to curves: what is averaged, what is only counted, what each curve is called."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_runs import curves, row

from lotteryfw.report.data.grouping import group_studies

ONE = {"criterion": "large_final"}


def labels(*combinations, variants=("ticket",)):
    rows = [
        row(axes, 0.5, variant=variant, level=1) for axes in combinations for variant in variants
    ]
    return [series.label for series in group_studies(rows)[0].series]


def test_a_point_is_the_mean_and_sample_deviation_over_seeds():
    rows = [
        row(ONE, accuracy, seed=seed, level=1, density=0.8)
        for seed, accuracy in enumerate([0.90, 0.92, 0.97])
    ]
    [study] = group_studies(rows)
    spread = study.series[0].points[0].spread("test_accuracy")
    assert (spread.mean, spread.n) == (pytest.approx(0.93), 3)
    assert spread.sd == pytest.approx(0.0360555)


def test_diverged_rows_are_counted_not_averaged():
    rows = [
        row(ONE, 0.9, seed=0, level=1),
        row(ONE, None, seed=1, level=1),
        row(ONE, None, seed=0, level=2),
    ]
    [study] = group_studies(rows)
    first, second = study.series[0].points
    assert first.spread("early_stop_step").n == 1
    assert second.spread("test_accuracy") is None
    assert study.diverged == 2


@given(
    st.permutations(curves("a", [{"criterion": "x"}, {"criterion": "y"}], seeds=(0, 1), levels=2))
)
def test_points_do_not_depend_on_the_order_of_rows(rows):
    [study] = group_studies(rows)
    for series in study.series:
        assert [point.level for point in series.points] == [0, 1, 2]
        assert all(
            len({level_row.seed for level_row in point.rows}) == 2 == len(point.rows)
            for point in series.points
        )


def test_a_study_of_one_combination_is_called_by_its_arms():
    assert labels({}) == ["ticket"]
    assert labels({}, variants=("ticket", "reinit")) == ["ticket", "reinit"]


def test_only_axes_that_vary_are_told():
    mild, harsh = ({"mask1": "rewind", "scope.rate": rate} for rate in ("0.2", "0.5"))
    assert labels(mild, harsh) == ["rate=0.2", "rate=0.5"]
    other = {"mask1": "constant(keep_sign=false)", "scope.rate": "0.2"}
    assert labels(mild, other, variants=("ticket", "reinit")) == [
        "rewind", "rewind · reinit", "constant(keep_sign=false)", "constant(keep_sign=false) · reinit",
    ]  # fmt: skip


def test_labels_that_would_be_alike_tell_their_axes():
    assert labels({"mask1": "a", "mask0": "b"}, {"mask1": "b", "mask0": "a"}) == ["a · b", "b · a"]
    assert labels({"mask1": "a"}, {"mask0": "a"}) == ["mask1=a", "mask0=a"]


def test_the_dense_network_counts_once_a_seed():
    rows = curves("a", [{"criterion": "x"}, {"criterion": "y"}], seeds=(0, 1), levels=1)
    [study] = group_studies(rows)
    assert study.dense.spread("test_accuracy").n == 2


def test_series_with_dense_networks_of_their_own_share_no_baseline():
    rows = [row({"train.length": length}, 0.9, level=0) for length in ("10it", "20it")]
    rows = [replace(level_row, key=level_row.cell) for level_row in rows]
    assert group_studies(rows)[0].dense is None
