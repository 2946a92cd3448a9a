import pytest

from data_pipeline.words import count, first_of, listed, size_text


@pytest.mark.parametrize(("n", "text"), [(0, "0 trials"), (1, "1 trial"), (2, "2 trials"), (10_000, "10,000 trials")])
def test_a_count_has_its_noun_in_the_right_number(n, text):
    assert count(n, "trial") == text


@pytest.mark.parametrize(("items", "text"), [("", ""), ("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")])
def test_a_list_has_an_and_before_its_last_item(items, text):
    assert listed(list(items)) == text


@pytest.mark.parametrize(("n", "text"), [(0, ""), (2, "0, 1"), (3, "0, 1, 2"), (5, "0, 1, 2 and 2 more")])
def test_of_many_items_only_the_first_are_named(n, text):
    assert first_of(range(n), 3) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1 kB"), (7_840_000, "7.8 MB"), (80_000_000, "80 MB")),
        *((99_400_000, "99.4 MB"), (99_600_000, "100 MB"), (999_499_999, "999 MB"), (999_500_000, "1 GB")),
        (2e15, "2000 TB"),
    ],
)
def test_a_size_has_two_or_three_digits(n_bytes, text):
    assert size_text(n_bytes) == text
