import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.bones import bone_lengths, bone_names
from data_pipeline.formats.leaderboard import read_leaderboard
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.subjects import cluster_subjects, clusters_file, write_clusters
from data_pipeline.preparation.synthetic import SEQUENCE_LENGTH, synthetic_hands
from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.user_error import UserError
from tests.data_pipeline_tests.formats.test_leaderboard import published_file

FIVE = synthetic_hands(5 * SEQUENCE_LENGTH, seed=3)
SUBJECT_OF_FRAME = np.arange(len(FIVE)) // SEQUENCE_LENGTH


class TestSubjects:
    @pytest.mark.slow
    def test_of_nyu_are_told_apart_without_a_mistake(self):
        labels = read_leaderboard(published_file("nyu", "nyu_test_groundtruth_label"), "nyu")
        found = cluster_subjects(labels, NYU, None)
        assert found.assignments.tolist() == [0] * 2440 + [1] * 5812
        assert found.facts["changes"] == 1

    def test_of_synthetic_hands_are_counted_and_told_apart(self):
        found = cluster_subjects(FIVE, HANDS17, None)
        assert found.assignments.tolist() == SUBJECT_OF_FRAME.tolist()
        assert max(found.silhouettes, key=found.silhouettes.get) == 5

    def test_are_found_in_any_order_of_the_frames(self):
        order = np.random.default_rng(0).permutation(len(FIVE))
        found = cluster_subjects(FIVE[order], HANDS17, 5).assignments
        pairs = set(zip(found.tolist(), SUBJECT_OF_FRAME[order].tolist(), strict=True))
        assert len(pairs) == 5
        assert found[0] == 0

    @settings(max_examples=5)
    @given(factor=st.sampled_from([0.001, 0.1, 10.0]))
    @pytest.mark.slow
    def test_do_not_depend_on_the_unit(self, factor):
        found = cluster_subjects(FIVE * np.float32(factor), HANDS17, None)
        assert found.assignments.tolist() == SUBJECT_OF_FRAME.tolist()

    def test_are_the_same_each_time(self):
        noisy = FIVE + np.random.default_rng(0).normal(scale=5, size=FIVE.shape).astype(np.float32)
        first, second = (cluster_subjects(noisy, HANDS17, 7) for _ in range(2))
        assert first.assignments.tolist() == second.assignments.tolist()

    @pytest.mark.parametrize("n", [1, 2, 50])
    def test_of_one_hand_are_one(self, n):
        found = cluster_subjects(np.repeat(FIVE[:1], n, axis=0), HANDS17, None)
        assert found.assignments.tolist() == [0] * n

    def test_of_one_hand_that_is_seen_noisily_are_one(self):
        noise = np.random.default_rng(0).normal(scale=2, size=(SEQUENCE_LENGTH, 21, 3)).astype(np.float32)
        found = cluster_subjects(FIVE[:SEQUENCE_LENGTH] + noise, HANDS17, None)
        assert found.sizes.tolist() == [SEQUENCE_LENGTH]
        assert max(found.silhouettes.values()) < 0.5

    def test_have_the_mean_bones_of_their_frames(self):
        found = cluster_subjects(FIVE, HANDS17, 5)
        for i, cluster in enumerate(found.facts["clusters"]):
            of_cluster = FIVE[i * SEQUENCE_LENGTH : (i + 1) * SEQUENCE_LENGTH].astype(float)
            assert cluster["samples"] == SEQUENCE_LENGTH
            for (a, b), name in zip(HANDS17.bones, bone_names(HANDS17), strict=True):
                expected = np.sqrt(((of_cluster[:, a] - of_cluster[:, b]) ** 2).sum(axis=1)).mean()
                assert cluster["mean_bone_lengths_mm"][name] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("k", [-1, 0, 4])
    def test_more_than_there_are_hands_are_refused(self, k):
        with pytest.raises(
            UserError, match=f"{k} clusters requested; expected a number from 1 to 3, the number of hands"
        ):
            cluster_subjects(np.repeat(FIVE[::SEQUENCE_LENGTH][:3], 4, axis=0), HANDS17, k)

    def test_of_a_bone_without_length_are_found_too(self):
        labels = FIVE.copy()
        labels[:, 8] = labels[:, 7]
        assert len(cluster_subjects(labels, HANDS17, 5).sizes) == 5


class TestTheFile:
    def test_is_what_a_split_takes(self, tmp_path):
        found = cluster_subjects(FIVE, HANDS17, 5)
        path = tmp_path / "folder" / clusters_file("five")
        write_clusters(path, "hands", found)
        parts = parse_split(f"clusters:{path}:1,2:4").parts(len(FIVE))
        assert {part: set(SUBJECT_OF_FRAME[indices]) for part, indices in parts.items()} == {
            "train": {0, 3},
            "val": {1, 2},
            "test": {4},
        }
        assert path.name == "five_clusters.txt"

    def test_tells_a_reader_what_the_clusters_are(self, tmp_path):
        path = tmp_path / "five_clusters.txt"
        write_clusters(path, "hands", cluster_subjects(FIVE, HANDS17, 5))
        lines = path.read_text().splitlines()
        length = bone_lengths(FIVE[:SEQUENCE_LENGTH], HANDS17)[:, 0].mean()
        assert lines[0].startswith("# The cluster of each sample of hands")
        assert lines[1].startswith(f"# cluster 0: {SEQUENCE_LENGTH} samples; W-TMCP {length:.1f}, W-IMCP ")
        assert lines[6:] == [str(cluster) for cluster in SUBJECT_OF_FRAME]
