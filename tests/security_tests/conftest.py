"""The fixtures of a small experiment, which these tests attack."""

from tests.cluster_tests.conftest import small_data, small_experiment

__all__ = ["small_data", "small_experiment"]
