"""Student's t against printed tables, and the interval it gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotteryfw.report.data.stats import Spread, t_quantile
from lotteryfw.report.data.units import percent, unit_of


@pytest.mark.parametrize(
    ("p", "freedom", "value"),
    [
        (0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 3, 3.18245), (0.975, 4, 2.77645), (0.975, 9, 2.26216),
        (0.975, 30, 2.04227), (0.975, 120, 1.97993), (0.95, 5, 2.01505), (0.995, 10, 3.16927), (0.5, 7, 0.0),
    ],
)  # fmt: skip
def test_t_quantile_is_that_of_the_tables(p, freedom, value):
    assert t_quantile(p, freedom) == pytest.approx(value, abs=6e-5)


def test_interval_of_a_worked_example():
    spread = Spread.of([1.0, 2.0, 3.0, 4.0])
    assert (spread.mean, spread.n) == (2.5, 4)
    assert spread.sd == pytest.approx(1.2909944)
    assert spread.interval() == pytest.approx((2.5 - 2.054260, 2.5 + 2.054260), abs=1e-5)


def test_one_value_has_no_spread():
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    assert Spread.of([0.5]).interval() is None


@given(st.integers(1, 200), st.floats(0.5, 0.999))
def test_quantiles_fall_with_the_degrees_of_freedom(freedom, p):
    assert t_quantile(p, freedom) >= t_quantile(p, freedom + 1) - 1e-9


@pytest.mark.parametrize(
    ("density", "text"),
    [
        (1, "100"),
        (0.8, "80"),
        (0.5127, "51.3"),
        (0.0701, "7"),
        (0.036, "3.6"),
        (0.0041, "0.41"),
        (0, "0"),
    ],
)
def test_densities_read_as_in_the_papers(density, text):
    assert percent(density) == text


def test_each_metric_is_shown_in_its_unit():
    assert unit_of("test_accuracy").spread(Spread(0.9781, 0.0012, 3)) == "97.81 ± 0.12"
    assert unit_of("early_stop_step").spread(Spread(12345.4, None, 1)) == "12,345"
    assert unit_of("test_loss").spread(Spread(0.25, 0.5, 2), "+") == "+0.2500 ± 0.5000"
