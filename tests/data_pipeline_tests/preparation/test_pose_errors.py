import numpy as np
import pytest

from data_pipeline.preparation import chunks
from data_pipeline.preparation.pose_errors import pose_errors, write_pose_errors
from data_pipeline.tables import error_stats_file, errors_file, read_table
from data_pipeline.user_error import UserError
from tests.support import pose_dataset


@pytest.mark.parametrize("subset", [None, "DEFAULT"])
def test_errors_are_predictions_minus_labels(skeleton, subset):
    dataset = pose_dataset(skeleton, 30)
    found = pose_errors(dataset, subset)
    np.testing.assert_array_equal(found.errors, dataset.poses["DEFAULT"] - dataset.labels)
    assert found.errors.dtype == np.float32


@pytest.mark.parametrize("n", [1, 2, 40_000])
def test_statistics_are_those_of_numpy_over_all_samples(skeleton, n):
    """40,000 samples are more than a chunk."""
    assert chunks.CHUNK < 40_000
    dataset = pose_dataset(skeleton, n)
    found = pose_errors(dataset, None)
    error = dataset.poses["DEFAULT"].astype(float) - dataset.labels
    np.testing.assert_allclose(found.mean_mm, error.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.std_mm, error.std(axis=0), rtol=1e-4, atol=1e-4)


def test_of_several_subsets_one_is_chosen_by_name(skeleton):
    dataset = pose_dataset(skeleton, 10, ("A", "B"))
    np.testing.assert_array_equal(pose_errors(dataset, "B").errors, dataset.poses["B"] - dataset.labels)
    with pytest.raises(UserError, match="hands has the subsets A, B; choose one with --subset"):
        pose_errors(dataset, None)
    with pytest.raises(UserError, match="hands has no subset C; it has A, B"):
        pose_errors(dataset, "C")


def test_the_tables_hold_errors_and_statistics_for_each_joint(skeleton, tmp_path):
    found = pose_errors(pose_dataset(skeleton, 30), None)
    write_pose_errors(tmp_path, "backbone", found)
    np.testing.assert_array_equal(read_table(tmp_path, errors_file("backbone")).array, found.errors)
    stats = read_table(tmp_path, error_stats_file("backbone")).array
    np.testing.assert_array_equal(stats, [found.mean_mm, found.std_mm])
    assert len(list(tmp_path.iterdir())) == 2
    facts = found.facts
    assert facts["samples"] == 30
    assert list(facts["mean_mm"]) == list(facts["std_mm"]) == list(skeleton.joint_names)
