"""Searches: what they choose from, how they propose combinations in rounds, and the files of these rounds."""
