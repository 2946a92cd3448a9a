import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.frame_table import FrameTable
from data_pipeline.preparation.splits.groups import ByGroup
from data_pipeline.preparation.splits.split import ALL_PART, PARTS
from data_pipeline.preparation.splits.syntax import SPLIT_SYNTAX, parse_split
from data_pipeline.user_error import UserError

texts = st.one_of(
    st.builds("blocks:{}:{}".format, st.integers(1, 40), st.integers(3, 9)),
    st.builds("last:{}".format, st.integers(1, 99)),
    st.integers(0, 98).flatmap(lambda val: st.builds(f"last:{val}:{{}}".format, st.integers(1, 99 - val))),
    st.just("none"),
)


class TestEverySplit:
    @given(text=texts, n=st.integers(1, 2000))
    def test_puts_each_sample_into_exactly_one_part_in_order_and_leaves_none_empty(self, text, n):
        try:
            parts = parse_split(text).parts(n)
        except UserError as error:
            assert "empty" in str(error)  # noqa: PT017 - whether there are enough samples is the next test
            return
        assert all(len(indices) > 0 for indices in parts.values())
        assert all((np.diff(indices) > 0).all() for indices in parts.values())
        assert sorted(np.concatenate(list(parts.values()))) == list(range(n))

    @given(text=texts.filter(lambda text: text != "none"))
    def test_that_is_refused_for_too_few_samples_says_how_many_it_needs(self, text):
        with pytest.raises(UserError, match=f"'{text}' leaves the (validation|test) set empty") as caught:
            parse_split(text).parts(1)
        needed = int(str(caught.value).split("at least ")[1].split()[0])
        assert all(len(indices) > 0 for indices in parse_split(text).parts(needed).values())
        with pytest.raises(UserError):
            parse_split(text).parts(needed - 1)

    @given(text=texts)
    def test_knows_its_parts_before_there_are_samples(self, text):
        assert parse_split(text).part_names == tuple(parse_split(text).parts(5000))

    @given(text=texts)
    def test_is_written_as_it_is_read(self, text):
        assert str(parse_split(text)) == text
        assert parse_split(text) == parse_split(text)

    @pytest.mark.parametrize("text", ["blocks:1:3", "last:50", "none"])
    def test_of_no_samples_is_refused(self, text):
        with pytest.raises(UserError):
            parse_split(text).parts(0)


class TestBlocks:
    @given(size=st.integers(1, 30), every=st.integers(3, 8), n=st.integers(300, 1000))
    def test_put_sample_i_where_a_count_by_hand_puts_it(self, size, every, n):
        expected = {"train": [], "val": [], "test": []}
        number, left = 0, size  # the index of the block in its group, and the number of its remaining samples
        for i in range(n):
            if left == 0:
                number, left = (number + 1) % every, size
            left -= 1
            part = {every - 1: "val", every // 2: "test"}.get(number, "train")
            expected[part].append(i)
        parts = parse_split(f"blocks:{size}:{every}").parts(n)
        assert {part: indices.tolist() for part, indices in parts.items()} == expected

    def test_of_100_in_groups_of_5_divide_the_frames_of_nyu(self):
        parts = parse_split("blocks:100:5").parts(8252)
        assert {part: len(indices) for part, indices in parts.items()} == {"train": 5000, "val": 1600, "test": 1652}
        assert parts["val"][:100].tolist() == list(range(400, 500))
        assert parts["test"][:100].tolist() == list(range(200, 300))
        assert parts["train"][:201].tolist() == [*range(200), 300]
        # The last block is short: 52 frames, number 82, so 2 in its group.
        assert parts["test"][-52:].tolist() == list(range(8200, 8252))

    def test_of_one_frame_in_threes_train_test_and_validate_in_turn(self):
        parts = parse_split("blocks:1:3").parts(6)
        assert {part: indices.tolist() for part, indices in parts.items()} == {
            "train": [0, 3],
            "test": [1, 4],
            "val": [2, 5],
        }

    @given(size=st.integers(1, 30), every=st.integers(3, 8), gap=st.integers(0, 40), n=st.integers(300, 1000))
    def test_with_a_gap_drop_what_is_too_near_to_a_block_of_another_part(self, size, every, gap, n):
        parts = parse_split(f"blocks:{size}:{every}").parts(n)

        def far_from(own, *others):
            """The samples of a part that are more than the gap away from all of others."""
            of_others = np.concatenate([parts[other] for other in others])
            return [i for i in parts[own].tolist() if np.abs(of_others - i).min() > gap]

        expected = {
            "train": far_from("train", "val", "test"),
            "val": far_from("val", "test"),
            "test": parts["test"].tolist(),
        }
        split = parse_split(f"blocks:{size}:{every}:{gap}")
        if all(expected.values()):
            assert {part: indices.tolist() for part, indices in split.parts(n).items()} == expected
        else:
            with pytest.raises(UserError, match=f"set empty: GAP is too large for blocks of {size} frames"):
                split.parts(n)

    def test_of_500_with_a_gap_of_50_leave_more_of_nyu_than_those_of_100(self):
        sizes = {
            text: {part: len(indices) for part, indices in parse_split(text).parts(8252).items()}
            for text in ("blocks:500:5:50", "blocks:100:5:50")
        }
        assert sizes == {
            "blocks:500:5:50": {"train": 4652, "val": 1500, "test": 1500},
            "blocks:100:5:50": {"train": 1750, "val": 1600, "test": 1652},
        }

    def test_with_a_gap_of_zero_are_those_without_one(self):
        assert parse_split("blocks:100:5:0") == parse_split("blocks:100:5")

    def test_far_larger_than_any_dataset_are_refused_as_the_others(self):
        with pytest.raises(UserError, match="at least 999999997000000003 frames, there are 5"):
            parse_split("blocks:999999999:999999999").parts(5)


class TestFolds:
    @given(
        text=st.one_of(
            st.builds("blocks:{}:{}:{}".format, st.integers(1, 20), st.integers(3, 6), st.integers(0, 3)),
            st.builds("last:{}:{}:{}".format, st.integers(5, 40), st.integers(5, 40), st.integers(0, 3)),
        ),
        n=st.integers(200, 500),
    )
    def test_test_each_sample_exactly_once_and_keep_all_distances(self, text, n):
        split = parse_split(text)
        tested = []
        try:
            folds = [split.parts(n, fold=fold) for fold in range(split.n_folds(n))]
        except UserError as error:
            assert "GAP is too large" in str(error)  # noqa: PT017 - small blocks cannot keep the distance
            return
        for parts in folds:
            tested += parts["test"].tolist()
            for part, other in (("train", "val"), ("train", "test"), ("val", "test")):
                assert np.abs(parts[part][:, None] - parts[other]).min() > split.gap
        assert sorted(tested) == list(range(n))

    @pytest.mark.parametrize("text", ["blocks:10:5:2", "last:20:20:3"])
    def test_have_about_the_same_sizes(self, text):
        split = parse_split(text)
        sizes = [[len(rows) for rows in split.parts(500, fold=fold).values()] for fold in range(split.n_folds(500))]
        assert len(sizes) == 5
        assert np.ptp(sizes, axis=0).max() <= 8

    def test_of_the_end_validate_on_the_end_when_there_is_nothing_before_the_test_samples(self):
        parts = parse_split("last:20:20").parts(10, fold=4)
        assert {part: rows.tolist() for part, rows in parts.items()} == {
            "train": [2, 3, 4, 5, 6, 7],
            "val": [8, 9],
            "test": [0, 1],
        }

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("last:20", "has no test part"),
            ("none", "does not split"),
            ("clusters:f:1", "has no test part"),
        ],
    )
    def test_of_a_split_without_a_test_part_are_refused(self, text, says):
        with pytest.raises(UserError, match=says):
            parse_split(text).n_folds(100)

    def test_of_a_file_are_its_objects(self, file):
        folds = [{"train": [0, 1], "val": [2], "test": [3, 4]}, {"train": [3, 4], "val": [2], "test": [0]}]
        split = parse_split(f"indices:{file(json.dumps(folds), 'folds.json')}")
        assert split.n_folds(5) == 2
        assert {part: rows.tolist() for part, rows in split.parts(5, fold=1).items()} == folds[1]

    @pytest.mark.parametrize(
        ("folds", "says"),
        [
            ([{"train": [0], "val": [1], "test": [2]}], "has no folds"),
            ([{"train": [0], "val": [1], "test": [2]}, {"train": [0], "val": [1]}], "has no folds"),
            ([{"train": [0], "val": [1], "test": [2]}] * 2, "tests sample 2 in more than one fold"),
        ],
    )
    def test_of_a_file_that_has_none_are_refused(self, file, folds, says):
        split = parse_split(f"indices:{file(json.dumps(folds), 'folds.json')}")
        with pytest.raises(UserError, match=says):
            split.n_folds(5)


class TestGroups:
    FRAMES = FrameTable.of(subject=list("aaaabbbbccccdddd"), sequence=["x"] * 16, index=range(16))

    def test_go_to_the_part_that_names_them_and_the_others_train(self):
        parts = parse_split("subjects:b:a,d").parts(16, self.FRAMES)
        assert {part: rows.tolist() for part, rows in parts.items()} == {
            "train": [8, 9, 10, 11],
            "val": [4, 5, 6, 7],
            "test": [0, 1, 2, 3, 12, 13, 14, 15],
        }

    @given(
        subjects=st.lists(st.sampled_from("abc"), min_size=30, max_size=60).filter(lambda names: len({*names}) == 3),
        percent=st.integers(30, 60),
        gap=st.integers(0, 2),
    )
    def test_validate_on_the_end_of_each_group_that_is_not_tested_at_a_distance(self, subjects, percent, gap):
        try:
            parts = parse_split(f"subjects:{percent}%:b:{gap}").parts(len(subjects), FrameTable.of(subject=subjects))
        except UserError as error:
            assert "set empty" in str(error)  # noqa: PT017 - groups may have a single frame
            return
        part_of = {row: part for part, rows in parts.items() for row in rows.tolist()}
        for name in "abc":
            rows = [i for i, subject in enumerate(subjects) if subject == name]
            n_val = len(rows) * percent // 100
            n_train = max(0, len(rows) - n_val - gap) if n_val else len(rows)
            expected = ["train"] * n_train + [None] * (len(rows) - n_val - n_train) + ["val"] * n_val
            assert [part_of.get(row) for row in rows] == (["test"] * len(rows) if name == "b" else expected)

    @pytest.mark.parametrize("text", ["subjects:b:a", "subjects:a:d", "subjects:50%:c", "subjects:b:a,c"])
    def test_are_each_tested_in_exactly_one_fold(self, text):
        split = parse_split(text)
        folds = [split.parts(16, self.FRAMES, fold) for fold in range(split.n_folds(16, self.FRAMES))]
        assert sorted(np.concatenate([parts["test"] for parts in folds])) == list(range(16))
        assert all(set(parts["test"]).isdisjoint([*parts["train"], *parts["val"]]) for parts in folds)

    def test_that_are_too_short_for_validation_keep_all_their_frames_for_training(self):
        frames = FrameTable.of(sequence=["long"] * 100 + ["short"] * 9 + ["test"] * 9)
        parts = parse_split("sequences:10%:test:9").parts(118, frames)
        assert parts["train"].tolist() == [*range(81), *range(100, 109)]
        assert parts["val"].tolist() == [*range(90, 100)]

    def test_may_be_sequences_with_any_text_as_names(self):
        frames = FrameTable.of(sequence=["P0/1", "P0/1", "P0/ü", "P1/1"])
        parts = parse_split("sequences:P0/ü:P1/1").parts(4, frames)
        assert {part: rows.tolist() for part, rows in parts.items()} == {"train": [0, 1], "val": [2], "test": [3]}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("subjects:a:x", "the dataset has no subject x; it has a, b, c, d"),
            ("sequences:20%:x", "leaves the training set empty: there are no other sequences"),
            ("subjects:a,b:c,d", "leaves the training set empty: there are no other subjects"),
            ("subjects:50%:a:2", "leaves the training set empty: GAP is too large"),
            ("subjects:20%:a", "leaves the validation set empty: the percentage is too small"),
        ],
    )
    def test_that_do_not_fit_the_frames_are_refused(self, text, says):
        with pytest.raises(UserError, match=says):
            parse_split(text).parts(16, self.FRAMES)

    @pytest.mark.parametrize("frames", [None, FrameTable.of(name=["a", "b"])])
    def test_that_are_not_known_are_refused_with_what_to_do(self, frames):
        with pytest.raises(UserError, match=r"the subjects of these frames are not known; add them to .*parquet"):
            parse_split("subjects:1:2").parts(2, frames)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("subjects:a:a", "names a more than once; each subject belongs to one part"),
            ("subjects:0%:a", "from 1 to 99"),
            ("subjects:b:a:5", "GAP is for validation by a percentage"),
            ("subjects:a", "is not a split"),
            ("sequences:20%", "is not a split"),
            ("subjects:a:20%", "is not a split"),
        ],
    )
    def test_of_a_text_that_is_none_are_refused(self, text, says):
        with pytest.raises(UserError, match=says):
            parse_split(text)

    @pytest.mark.parametrize(
        "text", ["subjects:20%:2:50", "subjects:a,b:c", "sequences:P0/1:P0/2", "clusters:f:20%:1:5"]
    )
    def test_are_written_as_they_are_read(self, text):
        assert str(parse_split(text)) == text


class TestLastPercent:
    @pytest.mark.parametrize(("percent", "n", "n_val"), [(20, 8252, 1650), (1, 100, 1), (99, 100, 99), (50, 3, 1)])
    def test_is_rounded_down_and_taken_from_the_end(self, percent, n, n_val):
        parts = parse_split(f"last:{percent}").parts(n)
        assert list(parts) == ["train", "val"]
        assert parts["val"].tolist() == list(range(n - n_val, n))

    @pytest.mark.parametrize(
        ("text", "n", "n_val", "n_test"), [("last:20:10", 8252, 1650, 825), ("last:1:98", 100, 1, 98)]
    )
    def test_of_two_kinds_tests_on_the_very_last(self, text, n, n_val, n_test):
        parts = parse_split(text).parts(n)
        assert list(parts) == ["train", "val", "test"]
        assert parts["val"].tolist() == list(range(n - n_test - n_val, n - n_test))
        assert parts["test"].tolist() == list(range(n - n_test, n))

    def test_of_zero_for_validation_trains_on_all_that_is_at_a_distance_from_the_test_samples(self):
        parts = parse_split("last:0:70:100").parts(1000)
        assert {part: rows.tolist() for part, rows in parts.items()} == {
            "train": list(range(200)),
            "test": list(range(300, 1000)),
        }


@pytest.fixture
def file(tmp_path):
    """A function that writes a file and returns its path."""

    def write(content, name="file.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class TestClusters:
    @given(
        clusters=st.lists(st.integers(0, 4), min_size=1, max_size=50),
        val=st.sets(st.integers(0, 4), min_size=1),
        test=st.sets(st.integers(0, 4)),
    )
    def test_go_to_one_part_as_a_whole(self, tmp_path_factory, clusters, val, test):
        path = tmp_path_factory.getbasetemp() / "clusters.txt"
        path.write_text("# a comment\n" + "".join(f"{number}  # of this sample\n" for number in clusters))
        test = test - val
        text = ":".join(["clusters", str(path), *(",".join(map(str, sorted(part))) for part in (val, test) if part)])
        split = parse_split(text)
        assert str(split) == text
        if not (val | test <= set(clusters)) or val | test >= set(clusters):
            with pytest.raises(UserError, match=r"has no cluster|training set empty"):
                split.parts(len(clusters))
            return
        parts = split.parts(len(clusters))
        assert tuple(parts) == split.part_names == (PARTS if test else PARTS[:2])
        of_part = {part: [clusters[i] for i in indices] for part, indices in parts.items()}
        assert set(of_part["val"]) == val
        assert set(of_part.get("test", [])) == test
        assert sorted(np.concatenate(list(parts.values()))) == list(range(len(clusters)))
        assert all((np.diff(indices) > 0).all() for indices in parts.values())

    def test_may_be_in_a_file_with_colons_in_its_name(self):
        assert parse_split("clusters:a:b.txt:1,2:3") == ByGroup("clusters", ("1", "2"), ("3",), path=Path("a:b.txt"))

    @pytest.mark.parametrize(
        ("text", "content", "says"),
        [
            ("1", "0\n1\n", r"file\.txt has the clusters of 2 frames, but there are 3"),
            ("1,5:7", "0\n1\n1", r"file\.txt has no cluster 5, 7; it has 0, 1"),
            ("0:1", "0\n1\n1\n", "leaves the training set empty: there are no other clusters"),
            ("1", "0\none\n1\n", r"file\.txt, line 2: 'one' is not a whole number of at least 0"),
            ("1", "# c\n0\n\n-1\n1\n", r"file\.txt, line 4: '-1' is not a whole number of at least 0"),
            ("1", "0 1\n", r"file\.txt, line 1: '0 1' is not a whole number of at least 0"),
            ("1", "", r"file\.txt has no numbers; expected one on each line"),
            ("1", "# 0\n", r"file\.txt has no numbers; expected one on each line"),
            ("1", b"\xff\xfe", r"file\.txt is not text"),
        ],
    )
    def test_that_do_not_fit_the_samples_are_refused(self, file, text, content, says):
        split = parse_split(f"clusters:{file(content)}:{text}")
        with pytest.raises(UserError, match=says):
            split.parts(3)

    def test_of_a_file_that_is_missing_are_refused_when_they_are_needed(self, tmp_path):
        split = parse_split(f"clusters:{tmp_path / 'none.txt'}:1")
        with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file"):
            split.parts(3)

    def test_in_two_parts_are_refused(self):
        with pytest.raises(UserError, match="names 1, 3 more than once"):
            parse_split("clusters:f:1,2,3:3,1")


class TestIndices:
    @given(data=st.data(), n=st.integers(1, 30))
    def test_of_a_json_file_are_the_parts_in_order_without_what_is_not_listed(self, tmp_path_factory, data, n):
        names = data.draw(st.lists(st.sampled_from(PARTS), min_size=1, unique=True))
        part_of = data.draw(st.lists(st.sampled_from([*names, None]), min_size=n, max_size=n))
        order = data.draw(st.permutations(range(n)))
        listed = {name: [i for i in order if part_of[i] == name] for name in names}
        path = tmp_path_factory.getbasetemp() / "indices.JSON"
        path.write_text(json.dumps(listed))
        split = parse_split(f"indices:{path}")
        assert split.part_names == tuple(part for part in PARTS if part in names)
        if not all(listed.values()):
            with pytest.raises(UserError, match="without samples"):
                split.parts(n)
            return
        parts = {part: indices.tolist() for part, indices in split.parts(n).items()}
        assert parts == {part: sorted(listed[part]) for part in PARTS if part in names}
        assert tuple(parts) == split.part_names

    def test_of_a_text_file_validate_and_the_others_train(self, file):
        path = file("4\n 1 # a hard one\n")
        split = parse_split(f"indices:{path}")
        assert split.part_names == ("train", "val")
        assert {part: indices.tolist() for part, indices in split.parts(5).items()} == {
            "train": [0, 2, 3],
            "val": [1, 4],
        }

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ({"train": [0, 1], "val": [2, 5]}, "lists sample 5, but there are 5 samples, counted from 0"),
            ({"train": [0, -1], "val": [2]}, "lists sample -1, but there are 5"),
            ({"train": [0, 1, 1], "val": [2]}, "lists sample 1 more than once, in train"),
            ({"train": [0, 1], "val": [2], "test": [3, 1]}, "lists sample 1 more than once, in train and test"),
            ({"train": [0, 1], "val": []}, "leaves the part 'val' without samples"),
            ({}, "holds an object with nothing; expected an object with lists named train, val, test"),
            ({"training": [0]}, "holds an object with training"),
            ([0, 1], "holds list"),
            ({"train": 3}, "'train' is not a list of whole numbers"),
            *(({"train": [bad]}, "'train' is not a list") for bad in ("0", 1.0, None, True, [0], 10**30)),
            ("{", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
        ],
    )
    def test_of_a_json_file_that_are_none_are_refused(self, file, content, says):
        path = file(content if isinstance(content, str) else json.dumps(content), "file.json")
        with pytest.raises(UserError, match=rf"file\.json.* {says}"):
            parse_split(f"indices:{path}").parts(5)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("1\n5\n", "lists sample 5, but there are 5"),
            ("1\n1\n", "lists sample 1 more than once, in val"),
            ("0\n1\n2\n3\n4\n", "leaves the part 'train' without samples"),
            ("1.5", "line 1: '1.5' is not a whole number of at least 0"),
            ("9" * 30, "line 1: .* is not a whole number of at least 0"),
        ],
    )
    def test_of_a_text_file_that_are_none_are_refused(self, file, content, says):
        with pytest.raises(UserError, match=rf"file\.txt.* {says}"):
            parse_split(f"indices:{file(content)}").parts(5)


@pytest.mark.parametrize("content", ['{"val": [1], "train": [0], "val": [2]}', '{"val": [1], "val": [1]}'])
def test_a_json_file_that_names_a_part_twice_is_refused(tmp_path, content):
    (tmp_path / "parts.json").write_text(content)
    with pytest.raises(UserError, match=r"parts\.json has the keys val, .*val; each part may appear only once"):
        parse_split(f"indices:{tmp_path / 'parts.json'}").parts(5)


def test_every_kind_is_among_the_spellings():
    kinds = {line.split(":")[0].split()[0] for line in SPLIT_SYNTAX.splitlines() if not line.startswith(" ")}
    assert kinds == {"subjects", "sequences", "clusters", "blocks", "last", "indices", "none"}


def test_none_keeps_all_samples_in_one_part():
    parts = parse_split("none").parts(7)
    assert {part: indices.tolist() for part, indices in parts.items()} == {ALL_PART: list(range(7))}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("blocks:0:5", "at least 1 frame"),
        ("blocks:100:2", "K must be at least 3"),
        ("blocks:100:1", "K must be at least 3"),
        ("blocks:100:0", "K must be at least 3"),
        ("last:0", "from 1 to 99"),
        ("last:100", "from 1 to 99"),
        ("last:150", "from 1 to 99"),
        ("last:20:0", "from 1 to 99"),
        ("last:50:50", "leaves the training set empty"),
        *(
            (text, "is not a split")
            for text in ["last:20:", "last:20:10:5:5", "clusters:f", "clusters:f:", "clusters::1"]
        ),
        *((text, "is not a split") for text in ["clusters:f:a", "clusters:f:1,", "indices:", "indices", "random:20"]),
        *((text, "is not a split: a split is 'subjects:V:T'") for text in ["", "all", "None", "block:100:5"]),
        *((text, "is not a split") for text in ["blocks:100", "blocks:100:5:1:1", "blocks:-1:5", "blocks:1.5:5"]),
        *(
            (text, "is not a split")
            for text in ["last", "last:", "last:x", "last:20%", "last:-5", " last:20", "last:٣"]
        ),
        *((text, "is not a split") for text in ["last:" + "9" * 5000, "last:20\n", "blocks:1_0:5"]),
    ],
)
def test_a_split_that_is_none_is_refused_with_what_is_possible(text, says):
    with pytest.raises(UserError, match=says):
        parse_split(text)
