import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import pose_dataset
from data_pipeline.frame_table import UNKNOWN_FRAMES, FrameTable
from data_pipeline.pose_dataset import (
    DatasetError,
    Samples,
    dataset_names,
    dataset_path,
    read_dataset,
    read_samples,
    write_dataset,
    write_datasets,
)
from data_pipeline.skeleton import NYU
from data_pipeline.subsets import DEFAULT_SUBSET
from data_pipeline.user_error import UserError
from tests.support import hands

N = 5


def arrays(skeleton=NYU, n=N, seed=0):
    poses, labels = hands(skeleton, n, seed)
    return poses.numpy(), labels.numpy()


POSES, LABELS = arrays()
OTHER_POSES, _ = arrays(seed=1)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def save(data_dir):
    """A function that saves one part of the dataset `hands`, next to a valid other part."""

    def save(part, content):
        write_dataset(data_dir, "hands", LABELS, POSES)
        path = dataset_path(data_dir, "hands", part)
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        return path

    return save


class TestReading:
    def test_returns_what_was_written(self, data_dir, skeleton):
        poses, labels = arrays(skeleton)
        write_dataset(data_dir, "hands", labels, poses)
        dataset = read_dataset(data_dir, "hands")
        assert dataset.name == "hands"
        assert dataset.skeleton is skeleton
        assert len(dataset) == N
        np.testing.assert_array_equal(dataset.labels, labels)
        assert list(dataset.poses) == [DEFAULT_SUBSET]
        np.testing.assert_array_equal(dataset.poses[DEFAULT_SUBSET], poses)
        assert dataset.labels.dtype == dataset.poses[DEFAULT_SUBSET].dtype == np.float32

    def test_returns_the_subsets_in_the_order_of_the_file(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, {"Pose-REN": POSES, "DeepPrior++": OTHER_POSES})
        dataset = read_dataset(data_dir, "hands")
        assert list(dataset.poses) == ["Pose-REN", "DeepPrior++"]
        np.testing.assert_array_equal(dataset.poses["Pose-REN"], POSES)
        np.testing.assert_array_equal(dataset.poses["DeepPrior++"], OTHER_POSES)

    def test_reads_what_torch_save_wrote_elsewhere(self, data_dir):
        data_dir.mkdir()
        torch.save(torch.from_numpy(LABELS), data_dir / "hands_labels.pt")
        torch.save({"A": torch.nn.Parameter(torch.from_numpy(POSES))}, data_dir / "hands_poses.pt")
        np.testing.assert_array_equal(read_dataset(data_dir, "hands").poses["A"], POSES)

    @pytest.mark.parametrize("size", [1, 3, N, None])
    def test_takes_the_first_samples(self, data_dir, size):
        write_dataset(data_dir, "hands", LABELS, {"A": POSES, "B": OTHER_POSES})
        dataset = read_dataset(data_dir, "hands", size)
        assert len(dataset) == (N if size is None else size)
        np.testing.assert_array_equal(dataset.labels, LABELS[:size])
        np.testing.assert_array_equal(dataset.poses["B"], OTHER_POSES[:size])

    @pytest.mark.parametrize("size", [N + 1, 10**9])
    def test_of_more_samples_than_there_are_says_how_many_there_are(self, data_dir, size):
        write_dataset(data_dir, "hands", LABELS, POSES)
        with pytest.raises(DatasetError, match=rf"hands_labels\.pt has {N} samples, fewer than the requested {size}"):
            read_dataset(data_dir, "hands", size)

    def test_without_the_preset_makes_the_labels_the_input_and_needs_no_poses(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, {"A": POSES})
        dataset_path(data_dir, "hands", "poses").unlink()
        dataset = read_dataset(data_dir, "hands", 3, use_preset=False)
        assert list(dataset.poses) == [DEFAULT_SUBSET]
        np.testing.assert_array_equal(dataset.poses[DEFAULT_SUBSET], LABELS[:3])
        np.testing.assert_array_equal(dataset.labels, LABELS[:3])

    def test_keeps_the_numbers_while_the_file_is_written_anew(self, data_dir):
        """A running trial reads from the file when it needs it."""
        write_dataset(data_dir, "hands", LABELS, POSES)
        dataset = read_dataset(data_dir, "hands")
        write_dataset(data_dir, "hands", np.zeros_like(LABELS), np.zeros_like(POSES))
        np.testing.assert_array_equal(dataset.labels, LABELS)

    def test_never_changes_the_file(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, POSES)
        before = dataset_path(data_dir, "hands", "labels").read_bytes()
        torch.from_numpy(read_dataset(data_dir, "hands").labels).zero_()
        assert dataset_path(data_dir, "hands", "labels").read_bytes() == before


class TestLabelsAlone:
    def test_are_enough_where_predictions_are_not_asked_for(self, data_dir):
        write_datasets(data_dir, {"hands": Samples(LABELS, {})})
        dataset = read_dataset(data_dir, "hands", use_preset=False)
        np.testing.assert_array_equal(dataset.poses[DEFAULT_SUBSET], LABELS)
        with pytest.raises(DatasetError, match=r"hands_poses\.pt does not exist"):
            read_dataset(data_dir, "hands")

    def test_are_not_hindered_by_broken_poses(self, data_dir, save):
        save("poses", b"no poses")
        assert len(read_dataset(data_dir, "hands", use_preset=False)) == N


class TestSamples:
    @pytest.mark.parametrize("poses", [{}, {DEFAULT_SUBSET: POSES}, {"A": POSES, "B": OTHER_POSES}])
    @pytest.mark.parametrize(
        "columns",
        [
            {},
            {"name": ["a", "", "ü b", "image_3.png", "\r\n"]},
            {"sequence": list("aabba"), "index": [0, 1, 7, 3, 2], "subject": ["ü"] * 5, "name": list("edcba")},
        ],
    )
    def test_are_read_as_they_were_written(self, data_dir, poses, columns):
        write_datasets(data_dir, {"hands": Samples(LABELS, poses, FrameTable.of(**columns))})
        samples = read_samples(data_dir, "hands")
        np.testing.assert_array_equal(samples.labels, LABELS)
        assert list(samples.poses) == list(poses)
        assert all(np.array_equal(samples.poses[subset], poses[subset]) for subset in poses)
        assert {name: column.tolist() for name, column in samples.frames.columns.items()} == columns

    def test_with_a_text_file_of_names_as_version_0_4_wrote_it_have_these_names_until_they_are_written(self, data_dir):
        write_datasets(data_dir, {"hands": Samples(LABELS, {})})
        (data_dir / "hands_names.txt").write_bytes("a\nü b\n\nd\ne\n".encode())
        samples = read_samples(data_dir, "hands")
        assert samples.frames.columns.keys() == {"name"}
        assert samples.frames.name.tolist() == ["a", "ü b", "", "d", "e"]
        write_datasets(data_dir, {"hands": samples})
        assert sorted(path.name for path in data_dir.iterdir()) == ["hands_frames.parquet", "hands_labels.pt"]
        assert read_samples(data_dir, "hands").frames.name.tolist() == ["a", "ü b", "", "d", "e"]

    def test_of_the_only_subset_without_a_name_are_a_plain_tensor(self, data_dir):
        write_datasets(data_dir, {"hands": Samples(LABELS, {DEFAULT_SUBSET: POSES})})
        assert isinstance(torch.load(dataset_path(data_dir, "hands", "poses"), weights_only=True), torch.Tensor)

    @given(indices=st.lists(st.integers(0, N - 1)))
    def test_that_are_taken_keep_pose_label_and_name_together(self, indices):
        frames = FrameTable.of(name=list("abcde"))
        samples = Samples(LABELS, {"A": POSES, "B": OTHER_POSES}, frames).take(np.array(indices, np.int64))
        assert len(samples) == len(indices)
        for row, i in enumerate(indices):
            np.testing.assert_array_equal(samples.labels[row], LABELS[i])
            np.testing.assert_array_equal(samples.poses["B"][row], OTHER_POSES[i])
            assert samples.frames.name[row] == "abcde"[i]

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            ([], "has 5 samples, but 0 values of 'name'"),
            (["a"] * 4, "has 5 samples, but 4 values of 'name'"),
            (["a", "bcd", "", "\udcfc", "f"], r"sample 3: the name '\\udcfc' cannot be written in UTF-8"),
        ],
    )
    def test_with_names_that_could_not_be_read_are_not_written(self, data_dir, names, says):
        with pytest.raises(DatasetError, match=f"^dataset hands.*{says}"):
            write_datasets(data_dir, {"hands": Samples(LABELS, {}, FrameTable.of(name=names))})
        assert not list(data_dir.iterdir())

    def test_with_names_that_are_not_in_utf8_are_refused_with_the_line(self, data_dir):
        """They could not be printed."""
        write_datasets(data_dir, {"hands": Samples(LABELS, {})})
        (data_dir / "hands_names.txt").write_bytes(b"a\nb\n\xfc\nd\ne\n")
        with pytest.raises(DatasetError, match=r"hands_names\.txt, line 3: the name is not valid UTF-8"):
            read_samples(data_dir, "hands")

    def test_with_another_number_of_names_are_refused(self, data_dir):
        write_datasets(data_dir, {"hands": Samples(LABELS, {})})
        (data_dir / "hands_names.txt").write_text("a\nb\n")
        with pytest.raises(DatasetError, match=r"hands_names\.txt has 2 names, but .*hands_labels\.pt has 5 labels"):
            read_samples(data_dir, "hands")
        assert len(read_dataset(data_dir, "hands", use_preset=False)) == N


def versions(version):
    """A dataset in which every number, and every name, is that of its version."""
    array = np.full((N, 14, 3), version, np.float32)
    return Samples(array, {"A": array, "B": array}, FrameTable.of(name=[str(version)] * N))


def version_of(samples):
    """The versions of everything in a dataset."""
    arrays = [samples.labels, *samples.poses.values()]
    return {*np.unique(arrays).astype(int).tolist(), *map(int, samples.frames.name)}


class TestAReaderBesideAWriter:
    def test_finds_files_of_one_version_whenever_they_are_replaced(self, data_dir, monkeypatch):
        """Before, between and after the steps of the reader; the last of them comes after the last file is open."""
        steps = [(pose_dataset, "finish_replacing"), (pose_dataset, "_version"), (pose_dataset, "load")]
        for n in range(1, 100):
            write_datasets(data_dir, {"hands": versions(1)})
            done = 0

            def replacing(step, n=n):
                def replace_before(*arguments, **options):
                    nonlocal done
                    done += 1
                    if done == n:
                        write_datasets(data_dir, {"hands": versions(2)})
                    return step(*arguments, **options)

                return replace_before

            with monkeypatch.context() as patched:
                for home, name in steps:
                    patched.setattr(home, name, replacing(getattr(home, name)))
                samples = read_samples(data_dir, "hands")
            assert version_of(samples) in ({1}, {2})
            if done < n:
                break
        assert 8 < n < 99

    def test_that_goes_on_writing_never_sees_halves(self, data_dir):
        write_datasets(data_dir, {"hands": versions(0)})
        over = threading.Event()

        def write():
            version = 0
            while not over.is_set():
                version += 1
                write_datasets(data_dir, {"hands": versions(version)})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            seen = [version_of(read_samples(data_dir, "hands"))]
            while len({*map(tuple, seen)}) < 40:
                seen.append(version_of(read_samples(data_dir, "hands")))
        finally:
            over.set()
            writer.join(30)
        assert all(len(version) == 1 for version in seen)

    def test_that_has_moved_some_of_its_files_waits_until_all_are_moved(self, data_dir, monkeypatch):
        write_datasets(data_dir, {"hands": versions(1)})
        writer = threading.Thread(target=write_datasets, args=(data_dir, {"hands": versions(2)}))
        moving, go_on, finished = threading.Event(), threading.Event(), []
        replace, version, finish = Path.replace, pose_dataset._version, pose_dataset.finish_replacing

        def stop_at_poses(path, place):
            if path.name == "hands_poses.pt":
                moving.set()
                assert go_on.wait(30)
            return replace(path, place)

        def write_before(path):
            if not moving.is_set():
                writer.start()
                assert moving.wait(30)
            return version(path)

        def go_on_at_the_end(*arguments):
            finished.append(arguments)
            if len(finished) == 2:
                go_on.set()
            finish(*arguments)

        monkeypatch.setattr(Path, "replace", stop_at_poses)
        monkeypatch.setattr(pose_dataset, "_version", write_before)
        monkeypatch.setattr(pose_dataset, "finish_replacing", go_on_at_the_end)
        try:
            assert version_of(read_samples(data_dir, "hands")) == {2}
        finally:
            go_on.set()
            writer.join(30)

    def test_is_told_of_a_file_that_is_gone_for_good_alone(self, data_dir, monkeypatch):
        """Poses that another version lacks are not an error of the first version."""
        write_datasets(data_dir, {"hands": versions(1)})
        load = pose_dataset.load

        def replace_first(path, *arguments, **options):
            if path.name == "hands_poses.pt":
                write_datasets(data_dir, {"hands": Samples(versions(2).labels, {})})
            return load(path, *arguments, **options)

        monkeypatch.setattr(pose_dataset, "load", replace_first)
        samples = read_samples(data_dir, "hands")
        assert (samples.poses, samples.frames.columns) == ({}, {})
        assert (samples.labels == 2).all()


class TestAWriterThatWasKilled:
    """test_replacement.py tests each step."""

    def test_while_it_moved_files_has_a_reader_that_moves_the_others(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, {"A": POSES})
        write_dataset(data_dir / ".written", "hands", LABELS + 1, {"A": POSES + 1})
        dataset_path(data_dir / ".written", "hands", "poses").rename(dataset_path(data_dir, "hands", "poses"))
        dataset = read_dataset(data_dir, "hands")
        np.testing.assert_array_equal(dataset.labels, LABELS + 1)
        np.testing.assert_array_equal(dataset.poses["A"], POSES + 1)
        assert {path.name for path in data_dir.iterdir()} == {"hands_labels.pt", "hands_poses.pt"}

    def test_before_that_left_nothing_that_counts_as_a_dataset(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, POSES)
        write_dataset(data_dir / ".writing", "more", LABELS, POSES)
        assert dataset_names(data_dir) == ["hands"]
        write_dataset(data_dir, "hands", LABELS, POSES)
        assert {path.name for path in data_dir.iterdir()} == {"hands_labels.pt", "hands_poses.pt"}

    def test_is_told_of_where_its_files_cannot_be_moved(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, POSES)
        write_dataset(data_dir / ".written", "hands", LABELS, POSES)
        dataset_path(data_dir, "hands", "labels").unlink()
        dataset_path(data_dir, "hands", "labels").mkdir()
        with pytest.raises(DatasetError, match=r"data has new files from a writer that was ended .* Is a directory"):
            read_dataset(data_dir, "hands")


class TestMissingFiles:
    def test_are_named_with_the_datasets_that_there_are_and_how_to_make_one(self, data_dir):
        for name in ("nyu/test", "demo"):
            write_dataset(data_dir, name, LABELS, POSES)
        says = r"absent_labels\.pt does not exist; .*data has the datasets demo, nyu/test\. .*prepare-data.*--help"
        with pytest.raises(DatasetError, match=says):
            read_dataset(data_dir, "absent")

    def test_of_poses_are_named_too(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, POSES)
        dataset_path(data_dir, "hands", "poses").unlink()
        with pytest.raises(DatasetError, match=r"hands_poses\.pt does not exist; .*has the datasets hands\."):
            read_dataset(data_dir, "hands")

    def test_in_an_empty_folder_or_none_are_named_too(self, data_dir):
        for _ in range(2):
            with pytest.raises(DatasetError, match=r"hands_labels\.pt does not exist; .*data has no dataset\."):
                read_dataset(data_dir, "hands")
            data_dir.mkdir(exist_ok=True)

    def test_are_not_mistaken_for_folders_of_that_name(self, data_dir):
        (data_dir / "hands_labels.pt").mkdir(parents=True)
        with pytest.raises(DatasetError, match=r"hands_labels\.pt cannot be read: Is a directory"):
            read_dataset(data_dir, "hands")
        with pytest.raises(DatasetError, match=r"other_labels\.pt does not exist; .*data has no dataset\."):
            read_dataset(data_dir, "other")

    @pytest.mark.parametrize("name", ["../hands", "/hands", "nyu/../../hands", "", ".hands", "nyu/", "a b", "_x"])
    def test_are_not_looked_for_and_not_written_under_a_name_that_leads_elsewhere(self, data_dir, name):
        write_dataset(data_dir.parent, "hands", LABELS, POSES)
        for use in (read_dataset, read_samples, lambda *where: write_dataset(*where, LABELS, POSES)):
            with pytest.raises(
                DatasetError, match=rf"{re.escape(repr(name))} is not the name of a dataset: a name has"
            ):
                use(data_dir, name)


def with_value(array, index, value):
    changed = array.copy()
    changed[index] = value
    return torch.from_numpy(changed)


def tensor(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


# A problem of one tensor, and the text of its error.
BROKEN_TENSORS = [
    (with_value(LABELS, (3, 7, 1), np.nan), "NaN or infinite values; the first bad sample is 3"),
    (with_value(LABELS, ([1, 4], 0, 0), np.inf), "NaN or infinite values; the first bad sample is 1"),
    (with_value(LABELS, (0, 13, 2), -np.inf), "NaN or infinite values; the first bad sample is 0"),
    (with_value(LABELS, (2, 3, 1), 1e30), "values beyond 1000000 mm; the first bad sample is 2"),
    (with_value(LABELS, ([3, 4], 0, 0), [-2e6, np.nan]), "values beyond 1000000 mm; the first bad sample is 3"),
    (tensor(N, 14, 3, dtype=torch.float64), "holds torch.float64 numbers; expected torch.float32"),
    (tensor(N, 14, 3, dtype=torch.float16), "holds torch.float16 numbers; expected torch.float32"),
    (tensor(N, 14, 3, dtype=torch.int64), "holds torch.int64 numbers; expected torch.float32"),
    (tensor(N, 42), f"the shape ({N}, 42); expected (N, J, 3)"),
    (tensor(N, 14, 2), f"the shape ({N}, 14, 2); expected (N, J, 3)"),
    (tensor(N, 1, 14, 3), f"the shape ({N}, 1, 14, 3); expected (N, J, 3)"),
    (tensor(0, 14, 3), "the shape (0, 14, 3); expected (N, J, 3) with at least one sample"),
    (tensor(N, 0, 3), f"the shape ({N}, 0, 3); expected (N, J, 3)"),
    (tensor(N, 14, 3).to_sparse(), "holds a tensor that numpy cannot read"),
    (torch.empty(N, 14, 3, device="meta"), "holds a tensor that numpy cannot read"),
    ([1.0, 2.0], "holds a list; expected a tensor of torch.float32 numbers"),
    ("poses", "holds a str; expected a tensor of torch.float32 numbers"),
    (None, "holds a NoneType; expected a tensor of torch.float32 numbers"),
]


class TestBrokenFiles:
    @pytest.mark.parametrize(("content", "says"), BROKEN_TENSORS)
    def test_of_labels_are_refused_with_what_is_wrong(self, data_dir, save, content, says):
        path = save("labels", content)
        with pytest.raises(DatasetError, match=re.escape(f"{path} ") + ".*" + re.escape(says)):
            read_dataset(data_dir, "hands")

    @pytest.mark.parametrize(("content", "says"), BROKEN_TENSORS)
    def test_of_poses_are_refused_with_what_is_wrong(self, data_dir, save, content, says):
        path = save("poses", content)
        with pytest.raises(DatasetError, match=re.escape(f"{path} ") + ".*" + re.escape(says)):
            read_dataset(data_dir, "hands")

    @pytest.mark.parametrize(("content", "says"), BROKEN_TENSORS)
    def test_of_a_subset_are_refused_with_its_name(self, data_dir, save, content, says):
        path = save("poses", {"A": torch.from_numpy(POSES), "B": content})
        with pytest.raises(DatasetError, match=re.escape(f"{path}, subset B ") + ".*" + re.escape(says)):
            read_dataset(data_dir, "hands")

    def test_of_labels_are_refused_beyond_the_samples_that_are_asked_for_too(self, data_dir, save):
        """So that a learning curve does not end at the first bad sample, days later."""
        save("labels", with_value(LABELS, (3, 0, 0), np.nan))
        with pytest.raises(DatasetError, match="the first bad sample is 3"):
            read_dataset(data_dir, "hands", 2)

    def test_of_labels_as_a_dict_are_refused(self, data_dir, save):
        save("labels", {"A": torch.from_numpy(LABELS)})
        with pytest.raises(DatasetError, match=r"hands_labels\.pt holds a dict; expected a tensor"):
            read_dataset(data_dir, "hands")

    def test_of_poses_without_any_subset_are_refused(self, data_dir, save):
        save("poses", {})
        with pytest.raises(DatasetError, match=r"hands_poses\.pt is an empty dict; expected at least one subset"):
            read_dataset(data_dir, "hands")

    @pytest.mark.parametrize("n", [1, N - 1, N + 1])
    @pytest.mark.parametrize("subset", [None, "A"])
    def test_with_another_number_of_poses_than_labels_tell_the_first_without_a_partner(self, data_dir, save, n, subset):
        poses = tensor(n, 14, 3)
        save("poses", poses if subset is None else {subset: poses})
        where = r"hands_poses\.pt" if subset is None else r"hands_poses\.pt, subset A"
        says = rf"{where} has {n} poses, but .*hands_labels\.pt has {N} labels; sample {min(n, N)} is the first"
        with pytest.raises(DatasetError, match=says):
            read_dataset(data_dir, "hands")

    def test_with_other_joints_than_the_labels_are_refused(self, data_dir, save):
        save("poses", tensor(N, 16, 3))
        with pytest.raises(DatasetError, match=r"hands_poses\.pt has 16 joints, but the labels have 14"):
            read_dataset(data_dir, "hands")

    def test_with_joints_of_no_known_skeleton_are_refused(self, data_dir):
        data_dir.mkdir()
        for part in ("labels", "poses"):
            torch.save(tensor(2, 17, 3), dataset_path(data_dir, "hands", part))
        with pytest.raises(DatasetError, match=r"hands_labels\.pt: there is no skeleton with 17 joints"):
            read_dataset(data_dir, "hands")

    @pytest.mark.parametrize(
        "subset", ["mean", "fused", "", "a" * 101, "a b", "a/b", "a\n", "ä", "a,b", 5, None, ("A",)]
    )
    def test_with_a_subset_that_cannot_be_called_so_are_refused(self, data_dir, save, subset):
        save("poses", {subset: torch.from_numpy(POSES)})
        says = re.escape(f"subset named {subset!r}") + r"; a name has 1 to 100 letters.*'mean' is reserved"
        with pytest.raises(DatasetError, match=says):
            read_dataset(data_dir, "hands")

    @pytest.mark.parametrize("subset", ["A", "DeepPrior++", "v2.1_x-y", DEFAULT_SUBSET])
    def test_are_not_those_with_an_ordinary_name_for_a_subset(self, data_dir, subset):
        write_dataset(data_dir, "hands", LABELS, {subset: POSES})
        assert list(read_dataset(data_dir, "hands").poses) == [subset]

    @pytest.mark.parametrize("content", [b"", b"12 34 56\n", b"PK\x03\x04", b"\x80\x02."])
    @pytest.mark.parametrize("part", ["labels", "poses"])
    def test_of_another_kind_are_named(self, data_dir, save, part, content):
        path = save(part, content)
        with pytest.raises(DatasetError, match=re.escape(f"{path} is not a file that torch.load")) as caught:
            read_dataset(data_dir, "hands")
        assert str(caught.value).endswith("reads: it is truncated, or torch.save did not write it")

    def test_that_were_cut_anywhere_are_refused(self, data_dir, save):
        write_dataset(data_dir, "hands", LABELS, POSES)
        whole = dataset_path(data_dir, "hands", "labels").read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 60)):
            save("labels", whole[:length])
            with pytest.raises(DatasetError, match=r"hands_labels\.pt is not a file that torch.load"):
                read_dataset(data_dir, "hands")

    @given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
    def test_with_a_changed_byte_are_read_or_refused_but_never_a_crash(self, tmp_path_factory, place, mask):
        folder = tmp_path_factory.getbasetemp() / "changed_byte"
        write_dataset(folder, "hands", LABELS, POSES)
        path = dataset_path(folder, "hands", "labels")
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= mask
        path.write_bytes(content)
        try:
            dataset = read_dataset(folder, "hands")
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017 - whether it is refused depends on the byte
        else:
            assert np.isfinite(dataset.labels).all()

    @pytest.mark.parametrize("part", ["labels", "poses"])
    def test_cannot_run_code(self, data_dir, save, tmp_path, part):
        class Bomb:
            def __reduce__(self):
                return Path.touch, (tmp_path / "executed",)

        path = save(part, Bomb())
        with pytest.raises(DatasetError, match=re.escape(f"{path} is not a file that torch.load")):
            read_dataset(data_dir, "hands")
        assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory):
    """A function that writes a dataset, reads it and returns the fingerprint."""
    folder = tmp_path_factory.mktemp("fingerprints")

    def fingerprint(labels=LABELS, poses=POSES, name="hands", frames=UNKNOWN_FRAMES, **arguments):
        by_subset = poses if isinstance(poses, dict) else {DEFAULT_SUBSET: poses}
        write_datasets(folder, {name: Samples(labels, by_subset, frames)})
        return read_dataset(folder, name, **arguments).fingerprint

    return fingerprint


class TestFingerprint:
    @given(index=st.tuples(st.integers(0, N - 1), st.integers(0, 13), st.integers(0, 2)), changed=st.integers(0, 2))
    def test_changes_with_any_number_by_a_single_bit(self, fingerprint, index, changed):
        contents = [LABELS.copy(), POSES.copy(), OTHER_POSES.copy()]
        contents[changed][index] = np.nextafter(contents[changed][index], np.float32(0))
        labels, a, b = contents
        assert fingerprint(labels, {"A": a, "B": b}) != fingerprint(LABELS, {"A": POSES, "B": OTHER_POSES})

    def test_changes_with_what_is_in_a_window_also_where_frames_share_a_place(self, fingerprint):
        sequence = ["a"] * len(LABELS)
        rest = range(20, 20 + len(LABELS) - 4)
        tables = [FrameTable.of(sequence=sequence, index=[*index, *rest]) for index in ([0, 1, 0, 1], [0, 6, 5, 10])]
        starts = [table.run_starts(len(LABELS)).tolist() for table in tables]
        assert starts[0] != starts[1]
        assert fingerprint(frames=tables[0]) != fingerprint(frames=tables[1])

    def test_changes_with_the_name_of_a_subset(self, fingerprint):
        assert len({fingerprint(poses={subset: POSES}) for subset in ("A", "B", "AB", DEFAULT_SUBSET)}) == 4

    def test_changes_with_what_belongs_to_which_name(self, fingerprint):
        one, other = {"A": POSES, "B": OTHER_POSES}, {"A": OTHER_POSES, "B": POSES}
        assert fingerprint(poses=one) != fingerprint(poses=other)
        assert fingerprint(labels=LABELS, poses=POSES) != fingerprint(labels=POSES, poses=LABELS)

    def test_changes_with_the_number_of_samples_and_of_subsets(self, fingerprint):
        subsets = {"A": POSES, "B": OTHER_POSES}
        fingerprints = {fingerprint(size=size) for size in range(1, N + 1)}
        fingerprints |= {fingerprint(poses=subsets), fingerprint(use_preset=False)}
        assert len(fingerprints) == N + 2

    def test_changes_with_what_decides_which_frames_are_successive(self, fingerprint):
        tables = [
            FrameTable.of(sequence=["a"] * N, index=range(N)),
            FrameTable.of(sequence=["a"] * (N - 2) + ["b"] * 2, index=range(N)),
            FrameTable.of(sequence=["a"] * N, index=[*range(N - 1), N]),
            FrameTable.of(sequence=["a"] * N, index=range(N)[::-1]),
            UNKNOWN_FRAMES,
        ]
        assert len({fingerprint(frames=frames) for frames in tables}) == len(tables)
        named = FrameTable.of(subject=["s"] * N, name=list(map(str, range(N))))
        assert fingerprint(frames=named) == fingerprint()

    def test_does_not_change_with_the_order_of_subsets(self, fingerprint):
        one, other = {"A": POSES, "B": OTHER_POSES}, {"B": OTHER_POSES, "A": POSES}
        assert fingerprint(poses=one) == fingerprint(poses=other)

    def test_does_not_change_with_the_name_of_the_dataset(self, fingerprint):
        assert fingerprint(name="hands") == fingerprint(name="nested/other.hands")

    def test_is_that_of_the_samples_taken_however_many_there_are(self, fingerprint):
        assert fingerprint(size=3) == fingerprint(LABELS[:3], POSES[:3])
        assert fingerprint(size=N) == fingerprint(size=None)

    def test_does_not_change_with_the_layout_in_memory(self, fingerprint):
        assert fingerprint(np.asfortranarray(LABELS), POSES.astype(np.float64)) == fingerprint()


class TestWriting:
    @pytest.mark.parametrize("n_sound", [0, 1])
    @pytest.mark.parametrize("kind", [OSError, RuntimeError])
    def test_that_is_cut_short_leaves_what_was_there_and_no_pieces(self, data_dir, monkeypatch, n_sound, kind):
        write_dataset(data_dir, "hands", LABELS, POSES)
        before = {path: path.read_bytes() for path in data_dir.iterdir()}
        save, written = torch.save, []

        def save_some(tensors, path):
            save(tensors, path)
            if len(written) == n_sound:
                path.write_bytes(path.read_bytes()[:100])
                raise kind("no space left on device\nframe #0")
            written.append(path)

        monkeypatch.setattr(torch, "save", save_some)
        with pytest.raises(UserError, match=r"data cannot be written to: no space left on device$"):
            write_dataset(data_dir, "hands", LABELS + 1, POSES + 1)
        assert {path: path.read_bytes() for path in data_dir.iterdir()} == before

        monkeypatch.undo()
        write_dataset(data_dir, "hands", LABELS + 1, POSES)
        np.testing.assert_array_equal(read_dataset(data_dir, "hands").labels, LABELS + 1)

    @pytest.mark.parametrize("cut", ["second", "third"])
    def test_of_several_that_is_cut_short_writes_none(self, data_dir, monkeypatch, cut):
        save = torch.save

        def save_some(tensors, path):
            if cut in path.name:
                raise OSError(28, "No space left on device")
            save(tensors, path)

        monkeypatch.setattr(torch, "save", save_some)
        with pytest.raises(UserError, match="data cannot be written to: No space left on device"):
            write_datasets(data_dir, {name: Samples(LABELS, {}) for name in ("first", "second", "third")})
        assert not list(data_dir.iterdir())

    @pytest.mark.parametrize(
        ("labels", "poses", "says"),
        [
            (
                with_value(LABELS, (3, 0, 0), np.nan).numpy(),
                POSES,
                "hands_labels.pt has NaN or infinite values; the first",
            ),
            (LABELS, {"A": POSES, "B": POSES[:3]}, "hands_poses.pt, subset B has 3 poses, but hands_labels.pt has 5"),
            (LABELS, POSES[:, :7], "hands_poses.pt has 7 joints, but the labels have 14"),
            (LABELS, {"a b": POSES}, "hands_poses.pt has a subset named 'a b'"),
            (LABELS, {"mean": POSES}, "hands_poses.pt has a subset named 'mean'"),
            (LABELS[:0], POSES[:0], "hands_labels.pt has the shape (0, 14, 3)"),
            (
                LABELS,
                np.full(POSES.shape, 1e300),
                "hands_poses.pt has NaN or infinite values; the first bad sample is 0",
            ),
            (LABELS, POSES + np.float32(2e6), "hands_poses.pt has values beyond 1000000 mm"),
            (np.ones((2, 17, 3)), np.ones((2, 17, 3)), "hands_labels.pt: there is no skeleton with 17 joints"),
        ],
    )
    def test_of_what_nobody_could_read_is_refused_and_leaves_what_was_there(self, data_dir, labels, poses, says):
        write_dataset(data_dir, "hands", LABELS, POSES)
        before = {path: path.read_bytes() for path in data_dir.iterdir()}
        with pytest.raises(DatasetError, match=f"^{re.escape(says)}"):
            write_dataset(data_dir, "hands", labels, poses)
        assert {path: path.read_bytes() for path in data_dir.iterdir()} == before

    def test_of_labels_alone_removes_the_poses_and_names_that_were_there(self, data_dir):
        write_datasets(data_dir, {"hands": Samples(LABELS, {"A": POSES}, FrameTable.of(name=list("abcde")))})
        write_datasets(data_dir, {"hands": Samples(LABELS + 1, {})})
        assert [path.name for path in data_dir.iterdir()] == ["hands_labels.pt"]

    def test_leaves_no_more_than_the_files_of_the_dataset(self, data_dir):
        write_datasets(data_dir, {"hands": Samples(LABELS, {"A": POSES}, FrameTable.of(name=list("abcde")))})
        names = sorted(path.name for path in data_dir.iterdir())
        assert names == ["hands_frames.parquet", "hands_labels.pt", "hands_poses.pt"]

    def test_replaces_a_dataset(self, data_dir):
        write_dataset(data_dir, "hands", LABELS, {"A": POSES})
        write_dataset(data_dir, "hands", LABELS[:2] + 1, OTHER_POSES[:2])
        dataset = read_dataset(data_dir, "hands")
        np.testing.assert_array_equal(dataset.labels, LABELS[:2] + 1)
        np.testing.assert_array_equal(dataset.poses[DEFAULT_SUBSET], OTHER_POSES[:2])

    def test_makes_the_folders_of_a_nested_name(self, data_dir):
        write_dataset(data_dir, "nyu/DeepPrior++/test", LABELS, POSES)
        assert dataset_names(data_dir) == ["nyu/DeepPrior++/test"]
        assert len(read_dataset(data_dir, "nyu/DeepPrior++/test")) == N

    def test_takes_the_numbers_of_any_layout_and_precision(self, data_dir):
        write_dataset(data_dir, "hands", np.asfortranarray(LABELS), {"A": POSES.astype(np.float64)[::-1]})
        dataset = read_dataset(data_dir, "hands")
        np.testing.assert_array_equal(dataset.labels, LABELS)
        np.testing.assert_array_equal(dataset.poses["A"], POSES[::-1])


def test_what_was_read_does_not_change_with_its_file(tmp_path):
    labels = np.ones((5, 21, 3), np.float32)
    write_dataset(tmp_path, "hands", labels, labels)
    dataset = read_dataset(tmp_path, "hands")
    for part in ("labels", "poses"):
        path = dataset_path(tmp_path, "hands", part)
        path.write_bytes(bytes(path.stat().st_size))  # in place, as torch.save does
    assert (dataset.labels == 1).all()
    assert (dataset.poses["DEFAULT"] == 1).all()
