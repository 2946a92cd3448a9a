import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.skeleton import HANDS17, NYU
from data_pipeline.tables import (
    NeighborTable,
    TableError,
    error_stats_file,
    errors_file,
    label_keys,
    neighbors_file,
    read_table,
    write_error_stats,
    write_errors,
    write_neighbors,
)
from tests.support import hands

N_BANK = 30


def errors(n=N_BANK, n_joints=14, seed=0):
    return np.random.default_rng(seed).normal(scale=8, size=(n, n_joints, 3)).astype(np.float32)


def neighbors(n=20, k=5):
    return np.random.default_rng(0).integers(0, N_BANK, (n, k)).astype(np.int32)


def labels(n=20, seed=0):
    return hands(NYU, n, seed)[1].numpy()


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


class TestAWrittenTable:
    def test_of_errors_is_read_as_it_was(self, data_dir):
        write_errors(data_dir, "folder/bank", errors())
        table = read_table(data_dir, errors_file("folder/bank"))
        assert table.array.dtype == np.float32
        np.testing.assert_array_equal(table.array, errors())

    def test_of_error_statistics_is_read_as_mean_and_standard_deviation(self, data_dir, skeleton):
        mean, std = errors(2, skeleton.n_joints)
        write_error_stats(data_dir, "stats", mean, np.abs(std), skeleton, 100)
        table = read_table(data_dir, error_stats_file("stats"))
        assert table.array.dtype == np.float32
        np.testing.assert_array_equal(table.array, [mean, np.abs(std)])
        content = json.loads((data_dir / "stats_error_stats.json").read_text())
        assert content["joints"] == list(skeleton.joint_names)
        assert content["samples"] == 100

    def test_of_neighbors_is_read_with_what_it_was_made_for(self, data_dir):
        write_neighbors(data_dir, "near", neighbors(), labels(), N_BANK, labels(N_BANK, seed=1))
        table = read_table(data_dir, neighbors_file("near"))
        assert isinstance(table, NeighborTable)
        assert table.array.dtype == np.int32
        assert table.n_bank == N_BANK
        np.testing.assert_array_equal(table.array, neighbors())
        np.testing.assert_array_equal(table.label_keys, label_keys(labels()))
        np.testing.assert_array_equal(table.bank_keys, label_keys(labels(N_BANK, seed=1)))

    def test_knows_the_labels_of_errors_and_of_a_bank_only_where_they_were_given(self, data_dir):
        write_errors(data_dir, "known", errors(), labels(N_BANK))
        write_errors(data_dir, "unknown", errors())
        write_neighbors(data_dir, "near", neighbors(), labels(), N_BANK)
        np.testing.assert_array_equal(read_table(data_dir, "known_errors.pt").label_keys, label_keys(labels(N_BANK)))
        assert read_table(data_dir, "unknown_errors.pt").label_keys is None
        assert read_table(data_dir, "near_neighbors.pt").bank_keys is None
        fingerprints = {read_table(data_dir, f"{name}_errors.pt").fingerprint for name in ("known", "unknown")}
        assert len(fingerprints) == 1

    @pytest.mark.parametrize("name", ["bank_errors.pt", "near_neighbors.pt"])
    def test_has_no_pickled_code(self, data_dir, name):
        write_errors(data_dir, "bank", errors(), labels(N_BANK))
        write_neighbors(data_dir, "near", neighbors(), labels(), N_BANK, labels(N_BANK))
        torch.load(data_dir / name, weights_only=True)


class TestTheFingerprint:
    @given(place=st.tuples(st.integers(0, 3), st.integers(0, 13), st.integers(0, 2)), change=st.floats(0.5, 2))
    def test_changes_with_every_number_and_with_nothing_else(self, tmp_path_factory, place, change):
        data_dir = tmp_path_factory.mktemp("fingerprint")
        changed = errors(4)
        changed[place] += change
        for name, array in {"one": errors(4), "same": errors(4), "other": changed}.items():
            write_errors(data_dir, name, array)
        one, same, other = (read_table(data_dir, errors_file(name)).fingerprint for name in ("one", "same", "other"))
        assert one == same != other

    def test_tells_arrays_of_other_shapes_apart(self, data_dir):
        write_errors(data_dir, "one", errors(4, 14))
        write_errors(data_dir, "other", errors(4, 14).reshape(14, 4, 3))
        assert read_table(data_dir, "one_errors.pt").fingerprint != read_table(data_dir, "other_errors.pt").fingerprint


class TestTheKeyOfALabel:
    @given(
        row=st.integers(0, 4),
        places=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 2)), min_size=1, max_size=4, unique=True),
        data=st.data(),
    )
    def test_changes_with_any_of_its_bits_and_leaves_those_of_others_alone(self, row, places, data):
        before = labels(5)
        after = before.copy()
        for place in places:
            after.view(np.uint32)[row][place] ^= np.uint32(data.draw(st.integers(1, 2**32 - 1)))
        assert (label_keys(before) != label_keys(after)).tolist() == [i == row for i in range(5)]

    def test_is_that_of_a_count_by_hand(self):
        (label,) = labels(1).reshape(1, -1).view(np.uint32).tolist()
        by_hand = sum(bits * pow(0x9E3779B97F4A7C15, i, 2**64) for i, bits in enumerate(label, start=1)) % 2**64
        assert label_keys(labels(1)).view(np.uint64).tolist() == [by_hand]

    def test_is_its_own_among_many(self):
        assert len(np.unique(label_keys(np.random.default_rng(0).integers(0, 9, (100_000, 21, 3))))) == 100_000

    def test_does_not_depend_on_the_layout_in_memory(self):
        np.testing.assert_array_equal(label_keys(np.asfortranarray(labels())), label_keys(labels()))


WITH_NAN = torch.from_numpy(errors())
WITH_NAN[7, 3, 1] = float("nan")
FAR = torch.from_numpy(errors())
FAR[[4, 6], 3, 1] = torch.tensor([-1e30, float("inf")])
KEYS = torch.from_numpy(label_keys(labels()))
SOUND = {"indices": torch.from_numpy(neighbors()), "label_keys": KEYS, "n_bank": N_BANK}
OUTSIDE = torch.from_numpy(neighbors())
OUTSIDE[3, 1] = N_BANK
STATS = {
    "mean_mm": np.zeros((14, 3)).tolist(),
    "std_mm": np.ones((14, 3)).tolist(),
    "joints": list(NYU.joint_names),
    "samples": 7,
}

BROKEN = [
    (
        "x_errors.pt",
        {"A": torch.zeros(3)},
        "holds a dict of A; expected a dict of errors, label_keys. Make the table again with posetune prepare",
    ),
    ("x_errors.pt", {"errors": 3, "label_keys": KEYS}, "holds a int; expected a tensor of torch.float32 numbers"),
    (
        "x_errors.pt",
        {"errors": torch.zeros(3, 14, 3), "label_keys": KEYS},
        r"label_keys have the shape \(20,\); expected",
    ),
    ("x_errors.pt", [1], "holds a list; expected a dict of errors, label_keys"),
    ("x_errors.pt", torch.zeros(3, 14, 3).double(), "holds torch.float64 numbers; expected torch.float32"),
    (
        "x_errors.pt",
        torch.zeros(0, 14, 3),
        r"has the shape \(0, 14, 3\); expected \(N, J, 3\) with at least one sample",
    ),
    ("x_errors.pt", torch.zeros(3, 42), r"has the shape \(3, 42\)"),
    ("x_errors.pt", torch.zeros(3, 14, 3).to_sparse(), "holds a tensor that numpy cannot read"),
    ("x_errors.pt", WITH_NAN, "has NaN or infinite values; the first bad sample is 7"),
    ("x_errors.pt", FAR, "has values beyond 1000000 mm; the first bad sample is 4"),
    ("x_neighbors.pt", SOUND["indices"], "expected a dict of indices, label_keys, n_bank"),
    (
        "x_neighbors.pt",
        {"indices": SOUND["indices"]},
        "holds a dict of indices; expected a dict of indices, label_keys",
    ),
    ("x_neighbors.pt", SOUND | {"indices": SOUND["indices"].long()}, "indices holds torch.int64 numbers; expected"),
    ("x_neighbors.pt", SOUND | {"indices": SOUND["indices"][0]}, r"indices have the shape \(5,\); expected \(N, K\)"),
    ("x_neighbors.pt", SOUND | {"indices": OUTSIDE}, "row 3 refers to samples outside of the bank, which has 30"),
    ("x_neighbors.pt", SOUND | {"indices": OUTSIDE - 31}, "row 0 refers to samples outside of the bank"),
    ("x_neighbors.pt", SOUND | {"label_keys": KEYS[:5]}, r"label_keys have the shape \(5,\); expected \(20,\)"),
    (
        "x_neighbors.pt",
        SOUND | {"label_keys": KEYS.int()},
        "label_keys holds torch.int32 numbers; expected torch.int64",
    ),
    ("x_neighbors.pt", SOUND | {"bank_keys": KEYS}, r"bank_keys have the shape \(20,\); expected \(30,\)"),
    ("x_neighbors.pt", SOUND | {"n_bank": 3.0}, "n_bank is 3.0; expected a number of samples"),
    ("x_error_stats.json", [], "expected a dict of mean_mm, std_mm, joints, samples"),
    ("x_error_stats.json", {"mean_mm": []}, "holds a dict of mean_mm; expected"),
    ("x_error_stats.json", STATS | {"joints": 3}, "joints: 'int' object is not iterable"),
    ("x_error_stats.json", STATS | {"joints": ["a"] * 17}, "joints: there is no skeleton with 17 joints"),
    (
        "x_error_stats.json",
        STATS | {"joints": list(reversed(NYU.joint_names))},
        "has statistics of the joints palm, .*; expected the 14 joints pinky_tip, .*, in this order",
    ),
    ("x_error_stats.json", STATS | {"mean_mm": [[0, 0, 0]]}, r"mean_mm has the shape \(1, 3\); expected \(14, 3\)"),
    ("x_error_stats.json", STATS | {"mean_mm": "much"}, "mean_mm is not an array of numbers"),
    ("x_error_stats.json", STATS | {"std_mm": (-np.eye(14, 3)).tolist()}, "std_mm of pinky_tip are not all finite"),
    *(
        (
            "x_error_stats.json",
            STATS | {"mean_mm": np.full((14, 3), value).tolist()},
            "mean_mm of pinky_tip are not all",
        )
        for value in (np.inf, np.nan, 1e7, -1e300)
    ),
    ("x_error_stats.json", STATS | {"mean_mm": [[10**400, 0, 0]] * 14}, "mean_mm is not an array of numbers"),
]


class TestABrokenTable:
    @pytest.mark.parametrize(("name", "content", "says"), BROKEN, ids=lambda value: str(value)[:40])
    def test_is_an_error_that_names_the_file_and_what_is_wrong(self, tmp_path, name, content, says):
        path = tmp_path / name
        if path.suffix == ".json":
            path.write_text(json.dumps(content))
        else:
            torch.save(content, path)
        with pytest.raises(TableError, match=says) as caught:
            read_table(tmp_path, name)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("kind", ["errors.pt", "neighbors.pt", "error_stats.json"])
    @given(content=st.binary(max_size=200))
    def test_is_an_error_for_any_bytes(self, tmp_path_factory, kind, content):
        folder = tmp_path_factory.mktemp("bytes")
        (folder / f"x_{kind}").write_bytes(content)
        with pytest.raises(TableError, match=f"x_{kind} "):
            read_table(folder, f"x_{kind}")

    @pytest.mark.parametrize(
        ("write", "says"),
        [
            (lambda folder: write_errors(folder, "x", WITH_NAN.numpy()), "x_errors.pt has NaN"),
            (
                lambda folder: write_error_stats(folder, "x", np.zeros((14, 3)), -np.ones((14, 3)), NYU, 7),
                "x_error_stats.json: std_mm of pinky_tip",
            ),
            (
                lambda folder: write_error_stats(folder, "x", np.zeros((14, 3)), np.ones((14, 3)), HANDS17, 7),
                r"mean_mm has the shape \(14, 3\); expected \(21, 3\)",
            ),
            (lambda folder: write_neighbors(folder, "x", neighbors(), labels(), 10), "outside of the bank"),
        ],
    )
    def test_is_not_written(self, data_dir, write, says):
        with pytest.raises(TableError, match=says):
            write(data_dir)
        assert not data_dir.exists()


class TestAMissingTable:
    def test_is_no_reason_to_name_files_that_are_being_written(self, data_dir):
        write_errors(data_dir / ".writing", "half", errors())
        write_errors(data_dir, "other", errors())
        with pytest.raises(TableError, match=r"data has other_errors\.pt\. "):
            read_table(data_dir, "bnak_errors.pt")

    def test_may_be_one_whose_writer_was_killed_before_it_was_in_its_place(self, data_dir):
        write_errors(data_dir / ".written", "bank", errors())
        np.testing.assert_array_equal(read_table(data_dir, "bank_errors.pt").array, errors())

    def test_is_not_looked_for_outside_of_the_data_folder(self, data_dir):
        write_errors(data_dir.parent, "bank", errors())
        with pytest.raises(TableError, match=r"'\.\./bank_errors\.pt' is not the name of a table: a name has letters"):
            read_table(data_dir, "../bank_errors.pt")

    def test_is_an_error_that_tells_what_there_is_and_how_to_make_one(self, data_dir):
        write_errors(data_dir, "folder/bank", errors())
        write_errors(data_dir, "other", errors())
        with pytest.raises(
            TableError,
            match=r"bnak_errors.pt does not exist; .* has folder/bank_errors.pt, other_errors.pt\. "
            "Make tables with posetune prepare",
        ):
            read_table(data_dir, "bnak_errors.pt")

    def test_is_told_where_there_is_none_at_all(self, tmp_path):
        with pytest.raises(TableError, match=r"has no file \*_neighbors.pt"):
            read_table(tmp_path, "near_neighbors.pt")

    def test_is_what_has_the_name_of_no_table(self, tmp_path):
        with pytest.raises(TableError, match=r"names of tables end in _errors.pt, _error_stats.json or _neighbors.pt"):
            read_table(tmp_path, "hands_labels.pt")


def test_a_file_that_may_not_be_read_is_an_error(data_dir, monkeypatch):
    write_errors(data_dir, "bank", errors())

    def refuse(*arguments, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(TableError, match=r"bank_errors.pt cannot be read: Permission denied"):
        read_table(data_dir, "bank_errors.pt")
