"""Races: decide from validation errors so far which combinations stay, record the decisions, and replay them."""
