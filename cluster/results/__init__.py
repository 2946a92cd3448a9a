"""The outcome of trials: results, learning curves, statistics; without torch or Ray."""
