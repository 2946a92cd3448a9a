import os

import numpy as np
import pytest
import torch

from data_pipeline.formats import tensor_file
from data_pipeline.formats.frames import FormatError
from data_pipeline.pose_dataset import dataset_path, read_dataset, write_dataset
from data_pipeline.skeleton import NYU
from tests.support import hands

POSES, LABELS = hands(NYU, 5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nyu_poses.pt"


def read(path):
    return np.concatenate([frames.poses for frames in tensor_file.read(path)])


class TestADatasetsFile:
    def test_is_read_labels_and_poses_alike(self, tmp_path, path):
        write_dataset(tmp_path, "nyu", LABELS.numpy(), {"Pose-REN": POSES.numpy()})
        np.testing.assert_array_equal(read(dataset_path(tmp_path, "nyu", "labels")), LABELS)
        np.testing.assert_array_equal(read(path), POSES)

    def test_may_be_written_by_hand(self, tmp_path):
        for part, poses in (("labels", LABELS), ("poses", POSES)):
            tensor_file.write(tmp_path / f"nyu_{part}.pt", tensor_file.read(saved(tmp_path / "from.pt", poses)))
        dataset = read_dataset(tmp_path, "nyu")
        np.testing.assert_array_equal(dataset.labels, LABELS)
        np.testing.assert_array_equal(dataset.poses["DEFAULT"], POSES)


class TestSubsets:
    def test_several_are_refused_with_their_names(self, path):
        torch.save({"A": POSES, "B+": LABELS}, path)
        with pytest.raises(FormatError, match=r"has the subsets A, B\+; select one of them: .*nyu_poses\.pt#SUBSET"):
            read(path)

    @pytest.mark.parametrize("name", ["A", "B+", "v1.2", "x.pt"])
    def test_one_is_named_behind_the_file(self, path, name):
        torch.save({"other": LABELS, name: POSES}, path)
        np.testing.assert_array_equal(read(path.with_name(f"nyu_poses.pt#{name}")), POSES)

    def test_that_is_not_there_is_refused(self, path):
        torch.save({"A": POSES, "B": LABELS}, path)
        with pytest.raises(FormatError, match=r"nyu_poses\.pt has no subset 'C'; it has A, B"):
            read(path.with_name("nyu_poses.pt#C"))
        torch.save(POSES, path)
        with pytest.raises(FormatError, match=r"nyu_poses\.pt is a single tensor; it has no subset 'C'"):
            read(path.with_name("nyu_poses.pt#C"))

    def test_a_file_that_is_really_called_so_is_read(self, path):
        torch.save({"A": LABELS}, path)
        odd = saved(path.with_name("nyu_poses.pt#A"), POSES)
        np.testing.assert_array_equal(read(odd), POSES)

    def test_none_at_all_is_refused(self, path):
        with pytest.raises(FormatError, match="has the subsets none"):
            read(saved(path, {}))


class TestAnyTensor:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_may_have_another_precision(self, path, dtype):
        np.testing.assert_array_equal(read(saved(path, POSES.to(dtype))), POSES.to(dtype).float())

    def test_may_be_a_parameter_or_a_view(self, path):
        np.testing.assert_array_equal(read(saved(path, torch.nn.Parameter(POSES))), POSES)
        np.testing.assert_array_equal(read(saved(path, POSES.mT.contiguous().mT[1:])), POSES[1:])

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (POSES.int(), "expected a float tensor"),
            (POSES[0], "expected a float tensor"),
            (POSES[:, :, :2], "expected a float tensor"),
            (POSES.to(torch.complex64), "expected a float tensor"),
            (POSES.to_sparse(), "numpy cannot read"),
            (POSES.to(torch.bfloat16), "numpy cannot read"),
            (POSES.to("meta"), "numpy cannot read"),
            (POSES[:0], "is empty: it has no frames"),
            (POSES[:, :13], "there is no skeleton with 13 joints; known: 14"),
            ([1, 2], "holds a list"),
            ({"A": "text"}, "holds a str"),
        ],
    )
    def test_of_another_kind_is_refused(self, path, content, says):
        with pytest.raises(FormatError, match=rf"nyu_poses\.pt.*{says}"):
            read(saved(path, content))


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_is_refused_and_does_not_run(path, old_format):
    mark = path.with_name("ran")

    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    torch.save(Planted(), path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(FormatError, match=r"is not a file that torch\.load\(\.\.\., weights_only=True\) reads"):
        read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # it would have run


def saved(path, content):
    torch.save(content, path)
    return path
