import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats.catalogue import FORMATS
from data_pipeline.formats.frames import FormatError, Frames
from data_pipeline.formats.joint_orders import OPENPOSE
from data_pipeline.frame_table import FrameTable
from data_pipeline.preparation import importing
from data_pipeline.preparation.importing import ImportFile, ImportFiles
from data_pipeline.preparation.synthetic import synthetic_hands
from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.subsets import DEFAULT_SUBSET
from tests.support import hands

N = 12
POSES, LABELS = (array.numpy().round(2) for array in hands(HANDS17, N))
HANDS = synthetic_hands(600, 0)
NAMES = [f"image_{i}.png" for i in range(N)]


def sources(labels, predictions, format_name=None, labels_format=None):
    """Files whose formats are named as on the command line."""
    return ImportFiles.of(labels, predictions, format_name, labels_format)


def imported(labels, predictions):
    return sources(labels, predictions).read()


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
    samples = imported(truth, {"A": shuffled, "B": truth})
    assert samples.frames.name.tolist() == NAMES
    np.testing.assert_allclose(samples.labels, LABELS, atol=1e-3)
    np.testing.assert_allclose(samples.poses["A"], POSES, atol=1e-3)
    np.testing.assert_array_equal(samples.poses["B"], samples.labels)


@pytest.mark.parametrize(("label_names", "pose_names"), [(NAMES, None), (None, NAMES), (None, None)])
def test_frames_without_names_are_matched_by_their_number(write, label_names, pose_names):
    truth = write("truth.txt" if label_names else "truth.pt", LABELS, label_names)
    result = write("result.txt" if pose_names else "result.pt", POSES, pose_names)
    samples = imported(truth, {"A": result})
    np.testing.assert_allclose(samples.labels, LABELS, atol=1e-3)
    np.testing.assert_allclose(samples.poses[DEFAULT_SUBSET], POSES, atol=1e-3)
    assert samples.frames.columns.keys() == ({"name"} if label_names else set())


def test_without_predictions_there_are_labels_alone(write):
    samples = imported(write("truth.txt", LABELS, NAMES), {})
    assert len(samples) == N
    assert samples.poses == {}


def test_a_single_prediction_has_the_subset_without_a_name_and_several_keep_theirs(write):
    truth = write("truth.txt", LABELS, NAMES)
    assert list(imported(truth, {"A": truth}).poses) == [DEFAULT_SUBSET]
    assert list(imported(truth, {"B": truth, "A": truth}).poses) == ["B", "A"]


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
        imported(write("truth.txt", LABELS, NAMES), {"A": result})


def test_names_that_the_labels_lack_are_told_too(write):
    truth, result = write("truth.txt", LABELS[2:], NAMES[2:]), write("result.txt", POSES, NAMES)
    with pytest.raises(FormatError, match=r"result\.txt has 2 frames \(image_0\.png, image_1\.png\) that the labels"):
        imported(truth, {"A": result})


def test_double_names_of_labels_are_refused_even_without_predictions(write):
    truth = write("truth.txt", LABELS, [*NAMES[:-1], NAMES[0]])
    with pytest.raises(FormatError, match=r"truth\.txt has 1 frame \(image_0\.png\) more than once"):
        imported(truth, {})


@pytest.mark.parametrize("n", [1, N - 1])
def test_another_number_of_frames_is_refused_where_there_are_no_names(write, n):
    truth, result = write("truth.pt", LABELS), write("result.pt", POSES[:n])
    with pytest.raises(FormatError, match=rf"result\.pt has {n} frames, but the labels .*truth\.pt have {N}"):
        imported(truth, {"A": result})


def test_other_joints_than_the_labels_have_are_refused(write):
    truth, result = write("truth.pt", LABELS), write("result.pt", LABELS[:, : NYU.n_joints])
    with pytest.raises(FormatError, match=r"result\.pt has 14 joints, but the labels .*truth\.pt have 21"):
        imported(truth, {"A": result})


def test_all_chunks_of_a_file_are_read_in_order(write):
    many = np.tile(LABELS, (1000, 1, 1)) + np.arange(1000 * N, dtype=np.float32)[:, None, None] / 1000
    frames = ImportFile(write("many.pt", many), FORMATS["pt"]).read()
    np.testing.assert_allclose(frames.poses, many, rtol=1e-6)
    assert frames.names is None


def test_what_is_wrong_with_a_file_is_told_with_its_place(write):
    path = write("broken.txt", LABELS, NAMES)
    path.write_text(path.read_text().replace("\t", " ", 1))
    with pytest.raises(FormatError, match=re.escape(f"{path}, line 1")):
        imported(path, {})


class TestTheFormat:
    """`--format` applies to files whose format cannot be detected, `--labels-format` to the labels."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        named = Frames(POSES, tuple(f"P0/1/{i:06d}" for i in range(N)))
        FORMATS["hands17"].write(Path("named.txt"), [named])
        FORMATS["hands17"].write(Path("named.dat"), [named])
        FORMATS["msra15"].write(Path("folder"), [named])
        FORMATS["openpose21"].write(Path("mm.npy"), [Frames(POSES)])
        FORMATS["openpose21-m"].write(Path("m.npy"), [Frames(POSES)])

    @pytest.mark.parametrize(
        ("labels", "predicted", "formats"),
        [
            ("named.txt", ["mm.npy"], ["openpose21"]),
            ("mm.npy", ["named.txt"], ["openpose21"]),
            ("named.txt", ["mm.npy", "folder", "named.txt"], ["openpose21"]),
            ("m.npy", ["mm.npy"], ["openpose21", "openpose21-m"]),
            ("m.npy", ["named.txt"], [None, "openpose21-m"]),
            ("named.dat", ["named.txt"], ["hands17"]),
        ],
    )
    def test_of_labels_and_predictions_may_be_another(self, labels, predicted, formats):
        paths = {f"S{i}": Path(name) for i, name in enumerate(predicted)}
        samples = sources(Path(labels), paths, *formats).read()
        for poses in (samples.labels, *samples.poses.values()):
            np.testing.assert_allclose(poses, POSES, atol=1e-3)

    @pytest.mark.parametrize(
        ("labels", "predicted", "formats", "says"),
        [
            ("mm.npy", "named.txt", [], r"mm.npy cannot be detected; .* \(--format or --labels-format\)"),
            ("named.txt", "mm.npy", [], r"mm.npy cannot be detected; .* \(--format\)"),
            ("named.txt", "mm.npy", [None, "hands17"], r"mm.npy cannot be detected; .* \(--format\)"),
            ("named.txt", "mm.npy", ["hands17"], r"mm.npy cannot be detected; give one of openpose21, "),
        ],
    )
    def test_that_no_file_and_no_option_tells_is_asked_for_before_anything_is_read(
        self, labels, predicted, formats, says
    ):
        with pytest.raises(FormatError, match=says):
            sources(Path(labels), {"A": Path(predicted)}, *formats)

    def test_is_told_with_the_files_that_have_it(self):
        paths = {"A": Path("mm.npy"), "B": Path("named.txt")}
        assert sources(Path("named.txt"), paths, "openpose21").text().splitlines() == [
            f"Read as hands17 ({FORMATS['hands17'].description}): named.txt, named.txt",
            f"Read as openpose21 ({FORMATS['openpose21'].description}): mm.npy",
        ]


def test_what_a_dataset_knows_about_its_frames_is_imported_with_its_files(write, tmp_path):
    known = FrameTable.of(sequence=["a", "b"] * 6, index=range(N), subject=["s"] * N)
    known.write(tmp_path / "old_frames.parquet")
    for kind, poses in (("labels", LABELS), ("poses", POSES)):
        FORMATS["pt"].write(tmp_path / f"old_{kind}.pt", [Frames(poses)])
    samples = imported(tmp_path / "old_labels.pt", {"New": tmp_path / "old_poses.pt"})
    assert samples.frames.columns.keys() == known.columns.keys()
    assert samples.frames.sequence.tolist() == known.sequence.tolist()


class TestDoubts:
    def warnings(self, write, labels, predicted=None, names=None):
        files = sources(write("truth.pt", labels), {} if predicted is None else {"A": write("result.pt", predicted)})
        return files.warnings(files.read())

    def test_of_sound_files_are_none(self, write):
        assert self.warnings(write, HANDS, HANDS + 5) == []

    def test_are_of_units_axes_and_the_order_of_joints(self, write):
        (text,) = self.warnings(write, HANDS / 1000, HANDS)
        assert text.startswith("labels: the median size of a hand is 0.1")
        assert "the unit seems to be metres" in text
        (text,) = self.warnings(write, HANDS, HANDS * np.float32([-1, 1, 1]))
        assert "subset DEFAULT: the sign of x seems to be flipped relative to the labels" in text
        assert "ordered finger by finger" in self.warnings(write, OPENPOSE.from_hands17(HANDS))[0]

    def test_are_not_of_the_order_of_frames_that_only_some_of_them_seem_to_have(self, write, monkeypatch):
        monkeypatch.setattr(importing, "_N_CHECKED", 30)  # of 600 successive frames, which are far apart then
        assert not any("shuffled" in text for text in self.warnings(write, HANDS))
        shuffled = HANDS[np.random.default_rng(0).permutation(len(HANDS))]
        assert any("the frames are shuffled" in text for text in self.warnings(write, shuffled))

    def test_are_of_text_without_names_that_is_read_as_pixels(self, tmp_path):
        """HANDS17 without its names has as many numbers as MSRA15's files of the leaderboard."""
        path = tmp_path / "truth.txt"
        np.savetxt(path, HANDS.reshape(len(HANDS), -1))
        files = sources(path, {})
        assert "Read as leaderboard-msra15 (" in files.text()
        assert "joints seem to be in another order" in files.warnings(files.read())[0]

    def test_are_not_of_single_samples(self, write):
        labels = HANDS.copy()
        labels[:50] = labels[50]
        assert self.warnings(write, labels, labels) == []

    def test_are_of_a_text_that_ends_within_a_number(self, write):
        path = write("cut.txt", HANDS, [f"{i}.png" for i in range(len(HANDS))])
        path.write_bytes(path.read_bytes()[:-2])
        files = sources(path, {"A": path})
        says = f"{path}: the last line has no line end; if the file was truncated there, its last number is incomplete"
        assert files.warnings(files.read()) == [says] * 2
