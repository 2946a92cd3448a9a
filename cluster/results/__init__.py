"""What came of trials: results, learning curves, statistics; without torch or Ray."""
