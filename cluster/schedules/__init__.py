"""What a run trains next: a grid, a race or a search; each step depends on results alone, never on the workers."""
