"""What subsets are called, the poses of one backbone in a dataset of several."""

import re

DEFAULT_SUBSET = "DEFAULT"
"""The subset of a dataset whose poses are a single tensor."""

MEAN_SUBSET = "mean"
"""Stands in records and tables for the mean over subsets, so that no subset may be called so."""

SUBSET_RULE = f"a name has 1 to 100 letters, digits, '.', '_', '+', '-', and {MEAN_SUBSET!r} is taken"
"""What the name of a subset is, for an error."""

_SUBSET_NAME = re.compile(r"[A-Za-z0-9._+-]{1,100}")


def is_subset_name(name: object) -> bool:
    """Tells whether a subset may be called so."""
    return isinstance(name, str) and name != MEAN_SUBSET and _SUBSET_NAME.fullmatch(name) is not None
