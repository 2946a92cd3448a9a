import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.splits import ALL_PART, SplitError, parse_split

texts = st.one_of(
    st.builds("blocks:{}:{}".format, st.integers(1, 40), st.integers(3, 9)),
    st.builds("last:{}".format, st.integers(1, 99)),
    st.just("none"),
)


class TestEverySplit:
    @given(text=texts, n=st.integers(1, 2000))
    def test_puts_each_sample_into_exactly_one_part_in_order_and_leaves_none_empty(self, text, n):
        try:
            parts = parse_split(text).parts(n)
        except SplitError as error:
            assert "empty" in str(error)  # noqa: PT017 - whether there are enough samples is the next test
            return
        assert all(len(indices) > 0 for indices in parts.values())
        assert all((np.diff(indices) > 0).all() for indices in parts.values())
        assert sorted(np.concatenate(list(parts.values()))) == list(range(n))

    @given(text=texts.filter(lambda text: text != "none"))
    def test_that_is_refused_for_too_few_samples_says_how_many_it_needs(self, text):
        with pytest.raises(SplitError, match=f"'{text}' leaves the validation set empty") as caught:
            parse_split(text).parts(1)
        needed = int(str(caught.value).split("at least ")[1].split()[0])
        assert all(len(indices) > 0 for indices in parse_split(text).parts(needed).values())
        with pytest.raises(SplitError):
            parse_split(text).parts(needed - 1)

    @given(text=texts)
    def test_is_written_as_it_is_read(self, text):
        assert str(parse_split(text)) == text
        assert parse_split(text) == parse_split(text)

    @pytest.mark.parametrize("text", ["blocks:1:3", "last:50", "none"])
    def test_of_no_samples_is_refused(self, text):
        with pytest.raises(SplitError):
            parse_split(text).parts(0)


class TestBlocks:
    @given(size=st.integers(1, 30), every=st.integers(3, 8), n=st.integers(300, 1000))
    def test_put_sample_i_where_a_count_by_hand_puts_it(self, size, every, n):
        expected = {"train": [], "val": [], "test": []}
        number, left = 0, size  # the block's number in its group, and how many of its samples are still to come
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

    def test_far_larger_than_any_dataset_are_refused_as_the_others(self):
        with pytest.raises(SplitError, match="at least 999999997000000003 frames, there are 5"):
            parse_split("blocks:999999999:999999999").parts(5)


class TestLastPercent:
    @pytest.mark.parametrize(("percent", "n", "n_val"), [(20, 8252, 1650), (1, 100, 1), (99, 100, 99), (50, 3, 1)])
    def test_is_rounded_down_and_taken_from_the_end(self, percent, n, n_val):
        parts = parse_split(f"last:{percent}").parts(n)
        assert list(parts) == ["train", "val"]
        assert parts["val"].tolist() == list(range(n - n_val, n))


def test_none_keeps_all_samples_in_one_part():
    parts = parse_split("none").parts(7)
    assert {part: indices.tolist() for part, indices in parts.items()} == {ALL_PART: list(range(7))}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("blocks:0:5", "at least 1 frame"),
        ("blocks:100:2", "K is 3 or more"),
        ("blocks:100:1", "K is 3 or more"),
        ("blocks:100:0", "K is 3 or more"),
        ("last:0", "from 1 to 99"),
        ("last:100", "from 1 to 99"),
        ("last:150", "from 1 to 99"),
        *((text, "is not a split: a split is 'blocks:M:K'") for text in ["", "all", "None", "block:100:5"]),
        *((text, "is not a split") for text in ["blocks:100", "blocks:100:5:1", "blocks:-1:5", "blocks:1.5:5"]),
        *(
            (text, "is not a split")
            for text in ["last", "last:", "last:x", "last:20%", "last:-5", " last:20", "last:٣"]
        ),
        *((text, "is not a split") for text in ["last:" + "9" * 5000, "last:20\n", "blocks:1_0:5"]),
    ],
)
def test_a_split_that_is_none_is_refused_with_what_is_possible(text, says):
    with pytest.raises(SplitError, match=says):
        parse_split(text)
