"""The names of subsets that are not a backbone's."""

DEFAULT_SUBSET = "DEFAULT"
"""The subset of a dataset whose poses are a single tensor."""

MEAN_SUBSET = "mean"
"""Stands in records and tables for the mean over subsets, so that no subset may be called so."""
