"""Functions that draw figures from data."""
