"""Which combinations a search proposes, round after round, and the files that say so."""
