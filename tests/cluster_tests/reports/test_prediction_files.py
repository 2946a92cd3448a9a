"""Success rates of other methods from files of their predictions."""

import numpy as np
import pytest

from cluster.figures.style import FigureError
from cluster.reports.draw import FigureOptions, draw
from cluster.reports.prediction_files import errors_of
from cluster.results.results import Results
from data_pipeline.formats.frames import FormatError
from tests.cluster_tests.experiment_files import write_experiment, write_records

DIRECTION = np.array([0.6, 0.0, 0.8])


@pytest.fixture
def files(tmp_path):
    """Predictions and labels of two frames: in the first all joints are 3 mm off, in the second one is 42 mm off."""
    labels = np.random.default_rng(0).normal(400, 40, (2, 21, 3))
    off_mm = np.zeros((2, 21))
    off_mm[0], off_mm[1, 20] = 3.0, 42.0
    np.save(tmp_path / "theirs.npy", labels + off_mm[:, :, None] * DIRECTION)
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path / "theirs.npy", tmp_path / "labels.npy"


@pytest.mark.parametrize(
    ("measure", "expected"), [("worst", [3, 42]), ("mean", [3, 2]), ("joint", [*[0] * 20, *[3] * 21, 42])]
)
def test_errors_are_distances_to_the_labels(files, measure, expected):
    found = errors_of(*files, measure, "openpose21")
    # The joints in these files have another order.
    np.testing.assert_allclose(np.sort(found, axis=None) if measure == "joint" else found, expected, atol=1e-4)


def test_files_in_metres_are_refused_with_the_format_that_reads_them(files):
    theirs, labels = files
    np.save(theirs, np.load(theirs) / 1000)
    with pytest.raises(
        FormatError, match=r"theirs.npy seems to be in metres.*; give the format openpose21-m, or insist"
    ):
        errors_of(theirs, labels, "worst", "openpose21")
    assert errors_of(theirs, labels, "worst", "openpose21", force=True).min() > 300


def test_are_drawn_beside_the_corrector(files, tmp_path):
    folder = write_experiment(tmp_path / "sweep", [({}, [9.0])])
    rates = np.linspace(0, 1, 81)
    write_records(folder, f"{0:016x}/0", [14.0, 9.0], success=("worst", rates, rates))
    theirs, labels = files
    figure = draw(
        "success", Results.read(folder), FigureOptions(others=[("Theirs", theirs)], labels=labels, format="openpose21")
    )
    drawn = figure.axes[0].lines[-1].get_ydata()
    assert [drawn[mm] for mm in (2, 4, 41, 43)] == [0, 50, 50, 100]


def test_replace_no_other_curve(files, tmp_path):
    folder = write_experiment(tmp_path / "sweep", [({}, [9.0])])
    rates = np.linspace(0, 1, 81)
    write_records(folder, f"{0:016x}/0", [14.0, 9.0], success=("worst", rates, rates))
    theirs, labels = files
    drawing = FigureOptions(others=[("corrected", theirs)], labels=labels, format="openpose21")
    with pytest.raises(FigureError, match="two success curves have the label 'corrected'"):
        draw("success", Results.read(folder), drawing)


def test_of_other_frames_than_the_labels_are_an_error(files):
    theirs, labels = files
    np.save(labels, np.load(labels)[:1])
    with pytest.raises(FigureError, match=r"has 2 frames of 21 joints, .*labels.npy has 1 of 21; both need the same"):
        errors_of(theirs, labels, "worst", "openpose21")


def test_that_do_not_tell_their_unit_are_an_error_that_names_formats(files):
    with pytest.raises(FormatError, match="cannot be detected; give one of openpose21, openpose21-m"):
        errors_of(*files, "worst", None)


def test_that_are_missing_are_an_error(files, tmp_path):
    with pytest.raises(FigureError, match=r"^there is no file .*nowhere\.npy$"):
        errors_of(tmp_path / "nowhere.npy", files[1], "worst", "openpose21")


@pytest.mark.parametrize("name", ["labels.txt", "labels.pt#A"])
def test_missing_labels_are_named_before_a_format_that_is_not_told(files, tmp_path, name):
    with pytest.raises(FigureError, match=f"^there is no file .*{name.partition('#')[0]}$"):
        errors_of(files[0], tmp_path / "nowhere" / name, "worst", None)


def test_of_another_number_of_frames_than_the_set_are_an_error(files, tmp_path):
    folder = write_experiment(tmp_path / "sweep", [({}, [9.0])], with_test=False)
    rates = np.linspace(0, 1, 81)
    write_records(folder, f"{0:016x}/0", [9.0], split="val", success=("joint", rates, rates))
    theirs, labels = files
    drawing = FigureOptions(others=[("Theirs", theirs)], labels=labels, format="openpose21", measure="joint")
    with pytest.raises(FigureError, match="has 2 frames, a_val has 100 frames; it needs a pose for each frame of the"):
        draw("success", Results.read(folder), drawing)
