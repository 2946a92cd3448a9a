"""How far validation and test frames are from training frames: made videos, and NYU's where it is there."""

import json
from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.formats.frames import Frames
from data_pipeline.formats.leaderboard import LEADERBOARD_DATASETS, read_results
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable
from data_pipeline.pose_dataset import Samples
from data_pipeline.preparation.parts import split_samples
from data_pipeline.preparation.splits.syntax import parse_split
from data_pipeline.preparation.synthetic import SEQUENCE_LENGTH, synthetic_hands
from data_pipeline.separation.measuring import separation, training_distances
from data_pipeline.separation.separation import Separation
from tests.data_pipeline_tests.formats.test_leaderboard import published_file

N = 4 * SEQUENCE_LENGTH
LABELS = synthetic_hands(N, seed=0)


def slow_errors(n, lag, seed=0):
    """Errors of a made backbone, (n, 21, 3), mm, that correlate at exp(−d / lag) at a distance of d frames."""
    rng = np.random.default_rng(seed)
    decay = np.exp(-1 / lag)
    errors = np.empty((n, 21, 3), np.float32)
    errors[0] = rng.normal(size=(21, 3))
    for i in range(1, n):
        errors[i] = decay * errors[i - 1] + np.sqrt(1 - decay**2) * rng.normal(size=(21, 3))
    return 10 * errors


def video(lag=5.0, **frames):
    """Samples of one sequence, with errors that correlate over `lag` frames."""
    columns = {"sequence": ["a"] * N, "subject": ["s"] * N} | frames
    return Samples(LABELS, {"DEFAULT": LABELS + slow_errors(N, lag)}, FrameTable.of(**columns))


def frames(**columns):
    """Samples with this frame table, whose poses do not matter."""
    table = FrameTable.of(**columns)
    return Samples(LABELS[: len(table.sequence)], {}, table)


def separated(samples, text, part="test"):
    parts = {found.part: found.samples for found in split_samples("hands", samples, parse_split(text))}
    return separation(parts["train"], parts[part])


class TestDistances:
    @pytest.mark.parametrize(("text", "shortest"), [("blocks:20:5", 1), ("blocks:40:5:7", 8), ("last:10:10:30", 111)])
    def test_are_those_of_the_nearest_training_frame(self, text, shortest):
        parts = parse_split(text).parts(N)
        expected = np.abs(parts["test"][:, None] - parts["train"]).min(axis=1)
        found = separated(video(), text)
        assert (found.min_distance, found.median_distance) == (expected.min(), np.median(expected))
        assert found.min_distance == shortest
        assert found.frames_in_shared_sequences == found.frames == len(parts["test"])

    def test_of_each_frame_are_those_from_the_nearest_of_its_sequence(self):
        train = frames(sequence=["a", "a", "b"], index=[10, 20, 0])
        tested = frames(sequence=["a", "b", "a", "c", "a"], index=[14, 7, 16, 10, 99])
        np.testing.assert_array_equal(training_distances(train, tested), [4, 7, 4, np.nan, 79])
        assert training_distances(replace(train, frames=UNKNOWN_FRAMES), tested) is None
        assert training_distances(train, replace(tested, frames=UNKNOWN_FRAMES)) is None

    def test_are_not_known_in_a_shared_sequence_whose_frames_have_no_indices(self):
        train, tested, other = (frames(sequence=[name] * 2) for name in "aab")
        assert training_distances(train, tested) is None
        assert np.isnan(training_distances(train, other)).all()

    def test_are_not_those_from_another_recording_that_names_its_sequences_alike(self):
        columns = {"sequence": ["1"] * 100 + ["2"] * 100, "index": [*range(100)] * 2}
        one, other = LABELS[:200].copy(), LABELS[200:400]
        one[100:] = other[100:] + 2  # sequence 2 is the same video with annotations that differ a little
        train, tested = (Samples(labels, {}, FrameTable.of(**columns)) for labels in (one, other))
        np.testing.assert_array_equal(training_distances(train, tested), [np.nan] * 100 + [0] * 100)
        found = separation(train, tested.take(np.arange(100)))
        assert found.sentence("test").startswith("No test frame is in a sequence of the training set.")

    def test_of_two_hands_in_each_frame_are_those_of_the_recording(self):
        both = Samples(LABELS[:200], {}, FrameTable.of(sequence=["a"] * 200, index=[*range(100)] * 2))
        distances = training_distances(both.take(np.arange(180)), both.take(np.arange(180, 200)))
        np.testing.assert_array_equal(distances, [0] * 20)

    def test_count_within_sequences_only(self):
        samples = video(sequence=["a"] * (N // 2) + ["b"] * (N // 2), index=[*range(N // 2)] * 2)
        train, tested = samples.take(np.arange(N // 2 - 3)), samples.take(np.arange(N // 2 - 1, N))
        found = separation(train, tested)
        assert (found.min_distance, found.frames_in_shared_sequences) == (3, 1)

    def test_are_not_known_without_sequences(self):
        samples = replace(video(), frames=UNKNOWN_FRAMES)
        found = separation(samples.take(np.arange(400)), samples.take(np.arange(600, N)))
        assert (found.min_distance, found.frames_in_shared_sequences, found.shared_subjects) == (None, None, None)
        assert "is not known" in found.sentence("test")
        assert not found.is_interpolation

    def test_count_shared_subjects_by_name(self):
        samples = video(subject=["x"] * 200 + ["y"] * 200 + ["z"] * (N - 400))
        assert separation(samples.take(np.arange(300)), samples.take(np.arange(250, N))).shared_subjects == ("y",)
        assert separation(samples.take(np.arange(200)), samples.take(np.arange(200, N))).shared_subjects == ()


class TestCorrelation:
    @pytest.mark.parametrize("lag", [2.0, 10.0, 40.0])
    def test_is_that_of_the_errors_at_the_distance(self, lag):
        found = separated(video(lag), "blocks:100:4:4")
        assert found.min_distance == 5
        assert found.correlation == pytest.approx(np.exp(-5 / lag), abs=0.08)

    def test_of_several_backbones_is_the_largest(self):
        samples = video(2.0)
        both = Samples(LABELS, {"A": LABELS + slow_errors(N, 40, 1), **samples.poses}, samples.frames)
        assert separated(both, "blocks:100:4:4").correlation > 0.7

    def test_of_a_training_set_without_predictions_is_that_of_the_other_set(self):
        samples = video(40.0)
        parts = {part.part: part.samples for part in split_samples("x", samples, parse_split("blocks:100:4:4"))}
        train = replace(parts["train"], poses={"DEFAULT": parts["train"].labels})
        assert separation(train, parts["test"]).correlation == pytest.approx(np.exp(-5 / 40), abs=0.1)

    def test_above_a_tenth_is_warned_of_with_a_split_that_would_do(self):
        found = separated(video(20.0), "blocks:50:4:10")
        warning = found.warning("test")
        assert warning.startswith("Test frames are 11 or more frames (median ")
        assert "measure interpolation within a recording" in warning
        assert "A split that keeps a distance: " in warning
        gap = int(found.better_split.rsplit(":", 1)[1])
        assert np.exp(-gap / 20) < 0.2  # about a tenth, as far as it can be measured in one video

    @pytest.mark.parametrize(("lag", "kind"), [(4.0, "blocks"), (20.0, "last")])
    def test_is_warned_of_with_a_split_for_which_the_recording_is_long_enough(self, lag, kind):
        better = separated(video(lag), "blocks:50:4:1").better_split
        assert better.startswith(f"{kind}:")
        assert not separated(video(lag), better).correlation > 0.2

    def test_in_a_recording_that_is_too_short_for_a_distance_is_warned_of_without_a_split(self):
        found = separated(video(1000.0), "blocks:50:4:1")
        assert found.better_split is None
        assert found.warning("test").endswith("within a recording.")

    def test_of_independent_errors_is_not_warned_of(self):
        assert separated(video(0.1), "blocks:40:5:10").warning("test") is None


class TestNearDuplicates:
    def test_of_a_shuffled_video_without_a_table_are_found(self):
        samples = replace(video(20.0), frames=UNKNOWN_FRAMES).take(np.random.default_rng(0).permutation(N))
        found = separation(samples.take(np.arange(500)), samples.take(np.arange(500, N)))
        assert found.near_share > 0.6
        assert found.near_correlation > 0.8
        assert "have a training frame within 5 mm, and their errors correlate at 0." in found.warning("test")
        assert "interpolation" in found.warning("test")

    def test_are_counted_by_their_nearest_training_label_whatever_the_chunks(self, monkeypatch):
        train, tested = video().take(np.arange(0, N, 7)), video().take(np.arange(3, N, 7))
        nearest = [
            np.linalg.norm(tested.labels[i] - train.labels, axis=2).mean(axis=1).min() for i in range(len(tested))
        ]
        monkeypatch.setattr("data_pipeline.separation.measuring._CHUNK", 10)
        assert separation(train, tested).near_share == pytest.approx(np.mean(np.array(nearest) <= 5), abs=0.05)

    def test_that_are_exact_are_counted(self):
        samples = video()
        assert separation(samples.take(np.arange(400)), samples.take(np.arange(390, N))).duplicates == 10

    def test_of_other_people_do_not_exist(self):
        samples = replace(video(), frames=UNKNOWN_FRAMES)
        rows = np.arange(N)
        found = separation(samples.take(rows[:SEQUENCE_LENGTH]), samples.take(rows[SEQUENCE_LENGTH:]))
        assert (found.near_share, found.duplicates, found.warning("test")) == (0, 0, None)


def test_numbers_survive_json():
    for found in (separated(video(), "blocks:20:5"), separated(replace(video(), frames=UNKNOWN_FRAMES), "last:20:20")):
        assert Separation.from_json(json.loads(json.dumps(found.to_json()))) == found


def nyu():
    files = {"Pose-REN": published_file("nyu", "NEUCOM18_NYU_Pose_REN")}
    labels, poses = read_results(published_file("nyu", "nyu_test_groundtruth_label"), files, "nyu")
    return Samples(labels, poses, LEADERBOARD_DATASETS["nyu"].frame_table(Frames(labels)))


@pytest.mark.parametrize(
    ("text", "distance", "correlation", "says"),
    [
        ("blocks:100:5", 1, 0.93, "These results measure interpolation within a recording."),
        ("blocks:500:5:50", 51, 0.17, "Results on the nearest of these frames partly measure interpolation"),
        ("blocks:1000:5:100", 101, 0.07, None),
        ("subjects:20%:2:50", None, None, None),
    ],
)
def test_nyu_in_parts_is_as_far_apart_as_measured_by_hand(text, distance, correlation, says):
    found = separated(nyu(), text)
    assert found.min_distance == distance
    assert found.correlation == (None if correlation is None else pytest.approx(correlation, abs=0.005))
    assert found.shared_subjects == (() if distance is None else ("1", "2"))
    assert (found.meaning is None) if says is None else says in found.meaning


def test_nyu_shuffled_without_a_table_is_noticed():
    samples = replace(nyu(), frames=UNKNOWN_FRAMES).take(np.random.default_rng(0).permutation(8252))
    found = separation(samples.take(np.arange(5000)), samples.take(np.arange(5000, 8252)))
    assert found.near_share > 0.6
    assert found.near_correlation > 0.9
    assert found.warning("test").endswith("(the command `clusters` groups frames by subject).")
