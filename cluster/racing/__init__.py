"""Races: which combinations are trained on, decided from their validation errors so far, and what that costs."""
