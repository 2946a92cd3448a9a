"""Experiments: the search space, its trials on Ray or inline, their folders, records and tables."""
