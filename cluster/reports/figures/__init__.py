"""Figures for papers and for the report: a function for each, which takes plain data and returns a Figure."""
