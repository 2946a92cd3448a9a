import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.preparation.importing import import_files, read_frames
from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.subsets import DEFAULT_SUBSET
from tests.support import hands

N = 12
POSES, LABELS = (array.numpy().round(2) for array in hands(HANDS17, N))
NAMES = [f"image_{i}.png" for i in range(N)]


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """A function that writes frames of HANDS17 to a file of the folder and returns its path."""
    folder = tmp_path_factory.mktemp("import")

    def write(name, poses, names=None):
        path = folder / name
        pose_format = "hands17" if names is not None else "pt"
        FORMATS[pose_format].write(path, [Frames(poses, None if names is None else tuple(names))])
        return path

    return write


@given(order=st.permutations(range(N)))
def test_frames_in_any_order_are_matched_by_their_names(write, order):
    truth = write("truth.txt", LABELS, NAMES)
    shuffled = write("shuffled.txt", POSES[order], [NAMES[i] for i in order])
    samples = import_files(truth, {"A": shuffled, "B": truth}, None)
    np.testing.assert_array_equal(samples.names, NAMES)
    np.testing.assert_allclose(samples.labels, LABELS, atol=1e-3)
    np.testing.assert_allclose(samples.poses["A"], POSES, atol=1e-3)
    np.testing.assert_array_equal(samples.poses["B"], samples.labels)


@pytest.mark.parametrize(("label_names", "pose_names"), [(NAMES, None), (None, NAMES), (None, None)])
def test_frames_without_names_are_matched_by_their_number(write, label_names, pose_names):
    truth = write("truth.txt" if label_names else "truth.pt", LABELS, label_names)
    result = write("result.txt" if pose_names else "result.pt", POSES, pose_names)
    samples = import_files(truth, {"A": result}, None)
    np.testing.assert_allclose(samples.labels, LABELS, atol=1e-3)
    np.testing.assert_allclose(samples.poses[DEFAULT_SUBSET], POSES, atol=1e-3)
    assert samples.names == (tuple(label_names) if label_names else None)


def test_without_predictions_there_are_labels_alone(write):
    samples = import_files(write("truth.txt", LABELS, NAMES), {}, "hands17")
    assert len(samples) == N
    assert samples.poses == {}


def test_a_single_prediction_has_the_subset_without_a_name_and_several_keep_theirs(write):
    truth = write("truth.txt", LABELS, NAMES)
    assert list(import_files(truth, {"A": truth}, None).poses) == [DEFAULT_SUBSET]
    assert list(import_files(truth, {"B": truth, "A": truth}, None).poses) == ["B", "A"]


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (range(1, N), r"result\.txt lacks 1 frame \(image_0\.png\) of the labels .*truth\.txt"),
        (
            range(7, N),
            r"lacks 7 frames \(image_0\.png, image_1\.png, image_2\.png, image_3\.png, image_4\.png and 2 more\) of",
        ),
        ([*range(N), 0, 3], r"result\.txt has 2 frames \(image_0\.png, image_3\.png\) more than once"),
    ],
)
def test_names_that_are_missing_or_double_are_counted_and_shown(write, kept, says):
    result = write("result.txt", POSES[list(kept)], [NAMES[i] for i in kept])
    with pytest.raises(FormatError, match=says):
        import_files(write("truth.txt", LABELS, NAMES), {"A": result}, None)


def test_names_that_the_labels_lack_are_told_too(write):
    truth, result = write("truth.txt", LABELS[2:], NAMES[2:]), write("result.txt", POSES, NAMES)
    with pytest.raises(FormatError, match=r"result\.txt has 2 frames \(image_0\.png, image_1\.png\) that the labels"):
        import_files(truth, {"A": result}, None)


def test_double_names_of_labels_are_refused_even_without_predictions(write):
    truth = write("truth.txt", LABELS, [*NAMES[:-1], NAMES[0]])
    with pytest.raises(FormatError, match=r"truth\.txt has 1 frame \(image_0\.png\) more than once"):
        import_files(truth, {}, None)


@pytest.mark.parametrize("n", [1, N - 1])
def test_another_number_of_frames_is_refused_where_there_are_no_names(write, n):
    truth, result = write("truth.pt", LABELS), write("result.pt", POSES[:n])
    with pytest.raises(FormatError, match=rf"result\.pt has {n} frames, but the labels .*truth\.pt have {N}"):
        import_files(truth, {"A": result}, None)


def test_other_joints_than_the_labels_have_are_refused(write):
    truth, result = write("truth.pt", LABELS), write("result.pt", LABELS[:, : NYU.n_joints])
    with pytest.raises(FormatError, match=r"result\.pt has 14 joints, but the labels .*truth\.pt have 21"):
        import_files(truth, {"A": result}, None)


def test_all_chunks_of_a_file_are_read_in_order(write):
    many = np.tile(LABELS, (1000, 1, 1)) + np.arange(1000 * N, dtype=np.float32)[:, None, None] / 1000
    frames = read_frames(write("many.pt", many), None)
    np.testing.assert_allclose(frames.poses, many, rtol=1e-6)
    assert frames.names is None


def test_what_is_wrong_with_a_file_is_told_with_its_place(write):
    path = write("broken.txt", LABELS, NAMES)
    path.write_text(path.read_text().replace("\t", " ", 1))
    with pytest.raises(FormatError, match=re.escape(f"{path}, line 1")):
        import_files(path, {}, "hands17")
