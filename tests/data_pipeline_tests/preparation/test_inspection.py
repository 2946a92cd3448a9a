import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats.joint_orders import MSRA15, OPENPOSE
from data_pipeline.formats.leaderboard import read_results
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable
from data_pipeline.pose_dataset import Samples
from data_pipeline.preparation import chunks
from data_pipeline.preparation.inspection import inspect_samples
from data_pipeline.preparation.suspicions import duplicates
from data_pipeline.preparation.synthetic import SEQUENCE_LENGTH, Backbone, synthetic_hands
from data_pipeline.preparation.texts import inspection_text
from data_pipeline.skeleton import HANDS17
from tests.data_pipeline_tests.formats.test_leaderboard import published_file
from tests.support import pose_dataset

N = 2 * SEQUENCE_LENGTH
LABELS = synthetic_hands(N, seed=0)
POSES = Backbone("A").predict(LABELS, seed=0)


def inspected(labels=LABELS, names=None, **poses):
    return inspect_samples(Samples(labels, poses, UNKNOWN_FRAMES if names is None else FrameTable.of(name=names)))


def changed(array, rows, value):
    array = array.copy()
    array[rows] = value
    return array


def warnings_of(*arguments, **options):
    return [(warning.about, warning.text) for warning in inspected(*arguments, **options).warnings]


class TestFigures:
    def test_are_those_of_numpy(self, skeleton):
        dataset = pose_dataset(skeleton, 50, ("A", "B"))
        found = inspect_samples(
            Samples(dataset.labels, dataset.poses, FrameTable.of(name=[f"frame {i}" for i in range(50)]))
        )
        assert (found.samples, found.joints, found.skeleton) == (50, skeleton.n_joints, skeleton.name)
        for what, array in {"labels": dataset.labels, "subset B": dataset.poses["B"]}.items():
            for i, axis in enumerate("xyz"):
                assert found.ranges_mm[what][axis] == (array[..., i].min(), array[..., i].max())
        error_mm = np.linalg.norm(dataset.poses["B"].astype(float) - dataset.labels, axis=2)
        errors = found.errors["B"]
        assert errors.mean_mm == pytest.approx(error_mm.mean())
        assert errors.median_mm == pytest.approx(np.median(error_mm.mean(axis=1)))
        assert errors.mean_worst_joint_mm == pytest.approx(error_mm.max(axis=1).mean())
        assert list(errors.per_joint_mm.values()) == pytest.approx(error_mm.mean(axis=0))
        for finger, joints in skeleton.fingers:
            assert errors.per_finger_mm[finger] == pytest.approx(error_mm[:, joints].mean())
        worst = np.argsort(-error_mm.mean(axis=1))[:5]
        assert [row["sample"] for row in errors.worst] == worst.tolist()
        assert [row["name"] for row in errors.worst] == [f"frame {i}" for i in worst]
        assert errors.worst[0]["mean_mm"] == pytest.approx(error_mm.mean(axis=1).max())
        assert errors.worst[0]["worst_joint"] == skeleton.joint_names[error_mm[worst[0]].argmax()]

    def test_do_not_depend_on_how_many_samples_are_taken_at_a_time(self, monkeypatch):
        labels = changed(changed(LABELS, 7, 300), 9, LABELS[8])
        whole = asdict(inspected(labels, A=POSES))
        monkeypatch.setattr(chunks.chunks, "__defaults__", (17,))
        in_pieces = asdict(inspected(labels, A=POSES))
        bones, bones_in_pieces = whole.pop("bones"), in_pieces.pop("bones")
        assert bones_in_pieces["std_mm"] == pytest.approx(bones["std_mm"])
        assert bones_in_pieces["share_unchanged"] == bones["share_unchanged"]
        errors, errors_in_pieces = whole.pop("errors")["A"], in_pieces.pop("errors")["A"]
        assert errors_in_pieces["worst"] == errors["worst"]
        assert errors_in_pieces["per_joint_mm"] == pytest.approx(errors["per_joint_mm"])
        assert in_pieces == whole

    @pytest.mark.parametrize("size", [1, 2, SEQUENCE_LENGTH])
    def test_count_the_steps_from_one_chunk_to_the_next(self, monkeypatch, size):
        """Here bones change only between chunks; with one sample per chunk, all steps are between chunks."""
        monkeypatch.setattr(chunks.chunks, "__defaults__", (size,))
        assert inspected().bones.share_unchanged == pytest.approx(1 - 1 / (N - 1))

    def test_are_json(self):
        facts = asdict(inspected(changed(LABELS, 3, 400), A=POSES))
        assert json.loads(json.dumps(facts))["errors"]["A"]["mean_mm"] > 0

    @pytest.mark.parametrize(
        ("labels", "constancy"),
        [
            (LABELS[:SEQUENCE_LENGTH], "constant"),
            (LABELS, "constant within sequences"),
            (LABELS * np.random.default_rng(0).uniform(0.9, 1.1, (N, 1, 1)).astype(np.float32), "not constant"),
            (LABELS[:1], "constant"),
        ],
    )
    def test_tell_whether_bones_keep_their_length(self, labels, constancy):
        assert inspected(labels).bones.constancy == constancy

    def test_of_bones_are_mean_and_spread_over_all_samples(self):
        bones = inspected().bones
        lengths = np.linalg.norm(LABELS[:, 1].astype(float) - LABELS[:, 6], axis=1)
        assert bones.mean_mm["TMCP-TPIP"] == pytest.approx(lengths.mean(), rel=1e-4)
        assert bones.std_mm["TMCP-TPIP"] == pytest.approx(lengths.std(), rel=1e-3)
        assert bones.share_unchanged == pytest.approx(1 - 1 / (N - 1))


class TestNothingIsSuspicious:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.slow
    def test_in_synthetic_hands(self, seed):
        labels = synthetic_hands(N, seed)
        assert not warnings_of(labels, A=Backbone("A").predict(labels, 0), B=Backbone("B").predict(labels, 0))

    @pytest.mark.parametrize(("dataset", "result"), [("nyu", "CVWW15_NYU_Prior"), ("icvl", "CVPR14_LRF_Results")])
    def test_in_published_results_but_frames_that_come_twice(self, dataset, result):
        truth = published_file(dataset, f"{dataset}_test_groundtruth_label")
        labels, poses = read_results(truth, {"A": published_file(dataset, result)}, dataset)
        found = inspect_samples(Samples(labels, poses))
        n_double = len(labels) - len(np.unique(labels, axis=0))
        assert [warning.samples for warning in found.warnings] == ([n_double] if n_double else [])
        assert n_double == {"nyu": 0, "icvl": 45}[dataset]


class TestWarnings:
    @pytest.mark.parametrize(("factor", "unit"), [(0.001, "metres"), (0.1, "centimetres"), (1000, "micrometres")])
    def test_are_given_of_other_units(self, factor, unit):
        found = warnings_of(LABELS * np.float32(factor), A=POSES * np.float32(factor))
        assert [about for about, _ in found] == ["labels", "subset A"]
        assert all(text.endswith(f"the unit seems to be {unit}; expected millimetres") for _, text in found)

    def test_are_given_of_other_units_in_a_subset_alone(self):
        found = warnings_of(A=POSES / 1000)
        assert [about for about, text in found if "the unit seems to be metres" in text] == ["subset A"]

    @pytest.mark.parametrize(
        ("labels", "says"),
        [
            (LABELS * np.float32([1, -1, -1]), "z is negative: hands are behind the camera"),
            (LABELS - LABELS.mean(axis=1, keepdims=True), "hands are at the camera:"),
            (changed(LABELS, (slice(3, 5), 4, 2), -1.0), f"2 of {N} samples: joints behind the camera"),
        ],
    )
    def test_are_given_of_hands_that_are_not_in_front_of_the_camera(self, labels, says):
        about, text = warnings_of(labels)[0]
        assert about == "labels"
        assert text.startswith(says)

    @pytest.mark.parametrize("order", [MSRA15, OPENPOSE])
    def test_are_given_of_labels_in_the_order_of_another_dataset(self, order):
        ((about, text),) = warnings_of(order.from_hands17(LABELS))
        assert about == "labels"
        assert text.startswith("joints seem to be ordered finger by finger")

    @pytest.mark.parametrize("seed", range(5))
    def test_are_given_of_labels_whose_joints_are_shuffled(self, seed):
        labels = synthetic_hands(N, seed)[:, np.random.default_rng(seed).permutation(21)]
        ((_, text),) = warnings_of(labels)
        assert "times as long as the minimum spanning tree of the joints" in text

    def test_are_given_of_bones_that_no_hand_has(self):
        labels = LABELS.copy()
        labels[5, 14] = labels[5, 13] + [0, 0, 160]
        labels[[8, 9], 20] = labels[[8, 9], 19]
        assert warnings_of(labels) == [
            ("labels", f"1 of {N} samples: a bone longer than 150 mm (MDIP-MTIP)"),
            ("labels", f"2 of {N} samples: a bone shorter than 0.5 mm (PDIP-PTIP)"),
        ]

    @pytest.mark.parametrize(
        ("signs", "says"),
        [
            ((-1, 1, 1), "the sign of x seems to be flipped relative to the labels, so hands are mirrored"),
            ((1, -1, 1), "the sign of y seems to be flipped relative to the labels, so hands are mirrored"),
            ((1, -1, -1), "the sign of y and z seems to be flipped relative to the labels"),
        ],
    )
    def test_are_given_of_predictions_on_other_axes(self, signs, says):
        assert ("subset A", says) in warnings_of(A=POSES * np.float32(signs), B=POSES)

    @pytest.mark.parametrize("pair", [(8, 11), (0, 3), (14, 13)])
    def test_are_given_of_exchanged_joints_of_predictions(self, pair):
        i, j = pair
        poses = POSES.copy()
        poses[:, [i, j]] = poses[:, [j, i]]
        names = HANDS17.joint_names
        ((about, text),) = warnings_of(A=poses)
        assert about == "subset A"
        assert f"{names[i]} is where {names[j]} should be" in text
        assert f"{names[j]} is where {names[i]} should be" in text

    @pytest.mark.parametrize(("n", "first"), [(N, (0, 1, 2, 3, 4)), (2, (5, 6))])
    def test_are_given_of_predictions_that_are_labels(self, n, first):
        poses = LABELS.copy() if n == N else changed(POSES, [5, 6], LABELS[[5, 6]])
        (warning,) = inspected(A=poses).warnings
        assert warning.text == f"{n} of {N} samples: the prediction exactly equals the label"
        assert (warning.samples, warning.first) == (n, first)

    def test_are_given_of_labels_that_come_twice(self):
        (warning,) = inspected(changed(LABELS, [11, 300], LABELS[4])).warnings
        assert warning.text == f"2 of {N} samples: exactly the same label as an earlier sample"
        assert warning.first == (11, 300)

    def test_are_given_of_poses_that_are_a_point_or_a_line(self):
        line = np.linspace(0, 200, 21)[:, None] * np.float32([0.5, 0.5, 0.7]) + np.float32([0, 0, 500])
        found = inspected(changed(changed(LABELS, 7, 400), 9, line), A=changed(POSES, 3, POSES[3, 0]))
        texts = {(warning.about, warning.text): warning.first for warning in found.warnings}
        assert texts["labels", f"1 of {N} samples: all joints at one point"] == (7,)
        assert texts["labels", f"1 of {N} samples: all joints on one line"] == (9,)
        assert texts["subset A", f"1 of {N} samples: all joints at one point"] == (3,)

    def test_are_given_of_errors_larger_than_the_hand(self):
        (warning,) = inspected(A=changed(POSES, 8, POSES[8] + np.float32([300, 0, 0]))).warnings
        assert warning.text == f"1 of {N} samples: a mean error larger than the hand"
        assert warning.first == (8,)

    def test_are_given_of_names_that_come_twice(self):
        names = [f"frame {i}" for i in range(N)]
        names[5] = names[9] = names[1]
        assert warnings_of(names=names) == [("frames", "2 samples have the name of an earlier sample")]

    def test_do_not_come_in_the_way_of_a_single_sample(self):
        assert not warnings_of(LABELS[:1], A=POSES[:1])

    @pytest.mark.parametrize("value", [0.0, 500.0])
    def test_are_given_where_all_poses_are_points(self, value):
        assert warnings_of(np.full_like(LABELS[:5], value))


@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_duplicates_are_those_that_a_set_finds(rows):
    labels = LABELS[rows]
    seen, expected = set(), []
    for row in rows:
        expected.append(row in seen)
        seen.add(row)
    assert duplicates(labels).tolist() == expected


class TestText:
    def test_has_the_figures_and_the_warnings(self):
        labels = changed(LABELS, 7, 400)
        text = inspection_text("hands", inspected(labels, A=POSES, B=POSES + 1))
        assert text.startswith(f"hands: {N} samples without names, 21 joints (HANDS17)\nsubsets: A, B\n")
        error_mm = np.linalg.norm(POSES.astype(float) - labels, axis=2)
        row = next(line.split() for line in text.splitlines() if line.startswith("TTIP "))
        assert row[1] == f"{error_mm[:, 8].mean():.2f}"
        assert f"warning: labels: 1 of {N} samples: all joints at one point; the first: 7" in text

    def test_of_labels_alone_has_no_errors(self):
        text = inspection_text("hands", inspected())
        assert "none, only labels" in text
        assert "error" not in text
        assert text.endswith("Nothing looks wrong.")


class TestMotion:
    def test_is_the_median_step_within_sequences(self):
        frames = FrameTable.of(sequence=["a"] * SEQUENCE_LENGTH + ["b"] * SEQUENCE_LENGTH)
        motion = inspect_samples(Samples(LABELS, {}, frames)).motion
        steps = np.linalg.norm(np.diff(LABELS, axis=0), axis=2).mean(axis=1)
        assert motion.step_mm == pytest.approx(np.median(np.delete(steps, SEQUENCE_LENGTH - 1)))
        assert motion.sequences == {"a": SEQUENCE_LENGTH, "b": SEQUENCE_LENGTH}
        assert (motion.cuts, motion.subjects) == ([], None)

    def test_has_a_cut_where_a_sequence_jumps(self):
        found = inspected()
        assert found.motion.cuts == [SEQUENCE_LENGTH]
        assert not found.warnings  # nobody said that this is one sequence
        frames = FrameTable.of(sequence=["a"] * N)
        (warning,) = inspect_samples(Samples(LABELS, {}, frames)).warnings
        assert (warning.about, warning.samples, warning.first) == ("frames", 1, (SEQUENCE_LENGTH,))
        assert "begin a new one there" in warning.text

    def test_of_shuffled_frames_is_that_of_random_ones_and_warned_of(self):
        labels = LABELS[np.random.default_rng(1).permutation(N)]
        (warning,) = inspected(labels).warnings
        assert "the frames are shuffled, or are not a video" in warning.text

    @pytest.mark.parametrize(("n_samples", "is_shuffled"), [(99, False), (100, True)])
    def test_is_called_shuffled_from_100_samples_on(self, n_samples, is_shuffled):
        labels = LABELS[np.random.default_rng(1).permutation(N)[:n_samples]]
        assert inspected(labels).motion.is_shuffled == is_shuffled

    def test_of_every_tenth_frame_is_not_known(self):
        frames = FrameTable.of(sequence=["a"] * (N // 10), index=range(0, N, 10))
        assert inspect_samples(Samples(LABELS[::10], {}, frames)).motion.step_mm is None

    def test_is_warned_of_where_two_samples_are_at_the_same_place(self):
        frames = FrameTable.of(sequence=["a"] * 4, index=[0, 1, 2, 1])
        texts = [warning.text for warning in inspect_samples(Samples(LABELS[:4], {}, frames)).warnings]
        assert texts == ["1 sample has the sequence and index of an earlier sample"]
