"""Functions that draw what they are given."""
