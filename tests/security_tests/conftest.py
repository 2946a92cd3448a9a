"""The fixtures of a small experiment, which these tests attack."""

from tests.cluster_tests.conftest import finished_experiment, finished_results, small_data, small_experiment

__all__ = ["finished_experiment", "finished_results", "small_data", "small_experiment"]
