"""Lengths as recipes write them."""

from __future__ import annotations

import pytest

from lotteryfw.api.steps import Step


@pytest.mark.parametrize(
    "text", ["500it", "2ep", "1.4%", "0.00005ep", "123456789012345.5ep", "0.12345678901234567ep"]
)
def test_a_length_is_written_as_it_was_read(text: str) -> None:
    assert str(Step.parse(text)) == text


def test_a_whole_number_is_steps_and_zeros_at_the_end_are_left_out() -> None:
    assert [str(Step.parse(value)) for value in (7, "1.50ep", "3.0%")] == ["7it", "1.5ep", "3%"]
