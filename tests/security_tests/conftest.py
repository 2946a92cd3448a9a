"""The fixtures of a tiny experiment, which these tests attack."""

from tests.cluster_tests.conftest import tiny, tiny_data

__all__ = ["tiny", "tiny_data"]
