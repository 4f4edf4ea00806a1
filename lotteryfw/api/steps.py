"""Lengths of training: the only place that reads "500it", "2ep" and "1.4%".

A step is one optimizer update. `2ep`, `1.4%` and a number of steps mean the same thing when they
are the same number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_TEXT = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>it|ep|%)")
_LONGEST = 40
"""Characters of a written length; a number of 400 digits is no float any more."""
_DIGITS = Context(prec=_LONGEST)
"""Digits enough for any length that can be written."""
_HELP = 'lengths are written "500it" (steps), "2ep" (epochs) or "1.4%" (of the training)'


@dataclass(frozen=True)
class Step:
    """A point in, or length of, training as a person writes it.

    `Clock.steps` turns it into optimizer updates.
    """

    amount: Fraction
    unit: str

    @classmethod
    def parse(cls, value: object) -> Step:
        """Read "500it", "2ep", "1.4%" or a whole number of steps.

        Raises ValueError with what would be right.
        """
        if isinstance(value, Step):
            return value
        # A bool is an int, and `length = true` is a mistake.
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(Fraction(value), "it")
        # Python refuses to turn texts of thousands of digits into numbers.
        text = value.strip() if isinstance(value, str) else ""
        match = _TEXT.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            shown = repr(value)
            raise ValueError(f"{shown[:60]}{'…' * (len(shown) > 60)} is not a length; {_HELP}")
        # A fraction: 0.1 % of 1000 steps is exactly one step, whatever floats make of it.
        amount, unit = Fraction(match["amount"]), match["unit"]
        if unit == "it" and amount.denominator != 1:
            raise ValueError(f"{value!r}: steps come whole; {_HELP}")
        # Lengths lie within a training; only epochs and steps may set how long it is.
        if unit == "%" and amount > 100:
            raise ValueError(f"{value!r} is more than the whole training")
        return cls(amount, unit)

    def __str__(self) -> str:
        """Return the length as `parse` reads it.

        >>> str(Step.parse("0.00005ep"))
        '0.00005ep'
        """
        numerator, denominator = map(Decimal, self.amount.as_integer_ratio())
        # "f": a recipe has no exponents
        return f"{_DIGITS.divide(numerator, denominator):f}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        text = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(it|ep|%)$", "description": _HELP}
        return {"anyOf": [text, {"type": "integer", "minimum": 0}]}


@dataclass(frozen=True)
class Clock:
    """Turns written lengths into steps, for a training of `total` steps."""

    total: int
    steps_per_epoch: int

    @classmethod
    def of(cls, length: Step, steps_per_epoch: int) -> Clock:
        """Return the clock of a training of this length.

        Raises ValueError where the length is itself a percentage.
        """
        if length.unit == "%":
            raise ValueError(
                f"'{length}': a percentage of the training cannot be its length; "
                "write steps or epochs"
            )
        # Steps and epochs do not depend on the total, which is what is computed here.
        return cls(cls(0, steps_per_epoch).steps(length), steps_per_epoch)

    def steps(self, step: Step) -> int:
        """Return the number of optimizer updates, rounded to the nearest integer.

        >>> Clock(total=1000, steps_per_epoch=50).steps(Step.parse("2ep"))
        100
        """
        # As fractions, so that the only rounding is the last one.
        units = {
            "it": Fraction(1),
            "ep": Fraction(self.steps_per_epoch),
            "%": Fraction(self.total, 100),
        }
        return round(step.amount * units[step.unit])
