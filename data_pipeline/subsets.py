"""Names of subsets: the poses of one backbone in a dataset that may have several."""

import re

DEFAULT_SUBSET = "DEFAULT"
"""The subset of a dataset whose poses are a single tensor."""

MEAN_SUBSET = "mean"
"""Denotes the mean over subsets in records and tables, so no subset may have this name."""

FUSED_SUBSET = "fused"
"""Denotes in records and tables the pose that a model computes from all subsets, so no subset may have this name."""

SUBSET_RULE = (
    f"a name has 1 to 100 letters, digits, '.', '_', '+', '-', and {MEAN_SUBSET!r} is reserved, as is {FUSED_SUBSET!r}"
)
"""The rule for names of subsets, for error messages."""

_SUBSET_NAME = re.compile(r"[A-Za-z0-9._+-]{1,100}")


def is_subset_name(name: object) -> bool:
    """Returns whether `name` is valid for a subset."""
    if not isinstance(name, str) or name in (MEAN_SUBSET, FUSED_SUBSET):
        return False
    return _SUBSET_NAME.fullmatch(name) is not None
