import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.words import count, first_of, listed, say, size_text, visible

HOSTILE = "\x1b[2J \x1b]0;title\x07 \x9b31m \r \x08 \x7f \u202eevil\u2066 \udcff"
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(HOSTILE)))


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


class TestAVisibleText:
    @given(TEXTS)
    def test_has_no_character_that_controls_a_terminal_or_the_direction_of_text(self, text):
        shown = visible(text).replace("\n", "").replace("\t", "")
        assert {unicodedata.category(sign) for sign in shown}.isdisjoint({"Cc", "Cs"})
        assert {unicodedata.bidirectional(sign) for sign in shown}.isdisjoint(
            {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
        )

    @pytest.mark.parametrize("text", ["5 µm → 3 µm", "手部姿态", "יד", "👩🏽‍🔬", "a\tb\nc", "9.51 ± 0.06 · −12 %"])
    def test_is_the_text_where_nothing_controls(self, text):
        assert visible(text) == text

    def test_shows_what_it_replaces(self):
        assert visible("a\x1b[31mb\u202ec") == "a\\u001b[31mb\\u202ec"

    @given(TEXTS)
    def test_of_json_is_json_with_the_same_content(self, text):
        assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text


def test_a_file_name_that_is_not_utf_8_is_printed_where_python_cannot_encode_it():
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    say("a\udcffb", file)
    assert file.buffer.getvalue() == b"a\\udcffb\n"
