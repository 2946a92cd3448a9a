"""Results for people and other programs: tables, figures, a page, the terminal, trackers."""
