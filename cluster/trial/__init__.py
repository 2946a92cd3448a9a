"""One training, from settings to files."""
