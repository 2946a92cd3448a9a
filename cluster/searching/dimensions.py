"""What a search chooses from: ranges of numbers, and rows of options."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Choice = int | float | None
"""What a combination takes from an axis: the index of a row, a value in the range, or None where it does not apply."""

Choices = tuple[Choice, ...]
"""A combination: its choice for each axis."""

_DIGITS = 4
"""The significant digits of proposed numbers. More would be noise in tables and would hide equal proposals."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included.

    Attributes:
        low: The smallest value.
        high: The largest value; with a step, the last value is the largest one that does not exceed it.
        log: Whether values are proposed evenly on a log scale instead of a linear one.
        integer: Whether all values are ints.
        step: The distance between neighbouring values; None to allow any number.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: float | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with its numbers; None if nothing is."""
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        kind = "ints" if self.integer else "numbers"
        allowed = int if self.integer else int | float
        switches: dict[str, object] = {"log": self.log, "integer": self.integer}
        for name, given in switches.items():
            if not isinstance(given, bool):
                return f"{name} must be True or False; got {given!r}"
        wrong = [x for x in numbers if isinstance(x, bool) or not isinstance(x, allowed) or not math.isfinite(x)]
        if wrong:
            return f"low, high and step must be finite {kind}; got {wrong[0]!r}"
        if self.low >= self.high:
            return f"low must be less than high; got {self.low!r} and {self.high!r}"
        if self.log and self.low <= 0:
            return f"with log=True, low must be greater than 0; got {self.low!r}"
        if self.step is not None and self.log:
            return "give log=True or a step, not both"
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            return f"step must be greater than 0 and at most high - low; got {self.step!r}"
        return None

    @property
    def n_values(self) -> int | None:
        """How many values it has; None if it has neither a step nor ints."""
        if self.step is None and not self.integer:
            return None
        return int((_exact(self.high) - _exact(self.low)) / _exact(self.step or 1)) + 1

    def value(self, place: int) -> int | float:
        """Returns the value at an index of a range with a step or ints."""
        exact = _exact(self.low) + place * _exact(self.step or 1)
        return int(exact) if self.integer else float(exact)

    def place(self, value: float) -> int:
        """Returns the index of the nearest value of a range with a step or ints."""
        return round((_exact(value) - _exact(self.low)) / _exact(self.step or 1))

    def at(self, share: float) -> int | float:
        """Returns the value at a share of the range; the share is in [0, 1)."""
        if self.log:
            half = 0.5 if self.integer else 0.0  # so that both end values get their full share
            low, high = math.log(self.low - half), math.log(self.high + half)
            return self.nearest(math.exp(low + share * (high - low)))
        if self.n_values is not None:
            return self.value(min(int(share * self.n_values), self.n_values - 1))
        return self.nearest(self.low + share * (self.high - self.low))

    def nearest(self, number: float) -> int | float:
        """Returns a number as a range without a step trains it: rounded, and within the range."""
        rounded = round(number) if self.integer else float(f"{number:.{_DIGITS}g}")
        within = min(max(rounded, self.low), self.high)
        return within if self.integer else float(within)

    def has(self, value: Any) -> bool:
        """Returns whether a number is one of its values; a point may have more digits than a proposal."""
        allowed = int if self.integer else int | float
        if isinstance(value, bool) or not isinstance(value, allowed) or not self.low <= value <= self.high:
            return False
        return self.step is None or self.value(self.place(value)) == value

    def __str__(self) -> str:
        how = [word for word, given in (("log", self.log), ("integer", self.integer)) if given]
        how += [] if self.step is None else [f"step {self.step:g}"]
        return f"{self.low:g} to {self.high:g}" + f" ({', '.join(how)})" * bool(how)


@dataclass(frozen=True)
class Dimension:
    """An axis as a search sees it.

    Attributes:
        choices: A range, or the number of rows; 0 for an axis for which the search chooses nothing.
        when: The conditions under which it applies: the indices of earlier axes, each with the rows that it may have.
    """

    choices: Range | int
    when: tuple[tuple[int, frozenset[int]], ...] = ()

    def applies(self, earlier: Sequence[Choice]) -> bool:
        """Returns whether it applies, given the choices for the axes before it."""
        return self.choices != 0 and all(earlier[place] in rows for place, rows in self.when)

    def at(self, share: float) -> Choice:
        """Returns the choice at a share of it; the share is in [0, 1)."""
        return self.choices.at(share) if isinstance(self.choices, Range) else int(share * self.choices)

    def has(self, choice: Choice) -> bool:
        """Returns whether a choice is one of its values."""
        return self.choices.has(choice) if isinstance(self.choices, Range) else choice in range(self.choices)


def fits(choices: Choices, dimensions: Sequence[Dimension]) -> bool:
    """Returns whether a combination fits the dimensions."""
    return len(choices) == len(dimensions) and all(
        dimension.has(choice) if dimension.applies(choices[:place]) else choice is None
        for place, (dimension, choice) in enumerate(zip(dimensions, choices, strict=True))
    )


def _exact(number: float) -> Decimal:
    """Returns a number exactly as it is written: 0.1 instead of the nearest binary fraction."""
    return Decimal(repr(number))
