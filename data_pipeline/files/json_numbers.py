"""Types of numbers in JSON files that may come from anywhere, within bounds that `msgspec.convert` checks."""

from typing import Annotated

from msgspec import Meta

LARGEST = 1e40
"""Distances between float32 numbers are smaller, and the square of a smaller number is a float."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A number of things, or another integer of 63 bits."""

Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
"""A finite number; an integer becomes a float."""

Seconds = Annotated[float, Meta(ge=0, lt=253_370_764_800)]
"""Seconds since 1970, or a duration: a number that can be shown as a time, until the year 9999."""
