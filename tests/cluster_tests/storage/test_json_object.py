import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.json_object import fields_of, json_object, read_as, read_fields
from data_pipeline.files.json_numbers import Count, Number, Seconds


@dataclass
class Pair:
    name: str
    numbers: Sequence[Number] = ()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


def parsed(data):
    """What a strict reader of UTF-8 and Python's json find in bytes; None if it is not a JSON object."""
    try:
        content = json.loads(data.decode())
    except ValueError:
        return None
    return repr(content) if isinstance(content, dict) else None


class TestAnObject:
    @pytest.mark.parametrize("content", [{}, {"a": [1, 2.5, None, True, "ü✓"]}, {"big": 10**200}])
    def test_is_read_as_json_reads_it(self, content):
        assert json_object(json.dumps(content)) == json_object(json.dumps(content).encode()) == content

    @given(JSON_VALUES, st.booleans(), st.integers(0, 1000), st.binary(max_size=1))
    def test_is_what_pythons_json_finds_in_bytes_that_may_be_damaged(self, content, ascii, place, byte):
        data = json.dumps({"a": content}, ensure_ascii=ascii).encode()
        damaged = data[:place] + byte + data[place + 1 :]
        for each in (data, damaged):
            try:
                found = repr(json_object(each))
            except ValueError:
                found = None
            if b"\\ud" not in each.lower():  # half a surrogate pair
                assert found == parsed(each)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b'{"a": 1,}'])
    def test_is_nothing_else(self, data):
        with pytest.raises(ValueError, match=r"."):
            json_object(data)

    @pytest.mark.parametrize(
        ("before", "after"), [('{"a":', "}"), ("[", "]"), ('["]",', ',"["]'), (r'["\"]",', r',"[\\"]')]
    )
    def test_that_is_nested_too_deeply_is_an_error_at_any_depth(self, before, after):
        def nested(n):
            return '{"x":' + before * n + "1" + after * n + "}"

        json_object(nested(49))
        for n in (50, 800, 100_000):
            with pytest.raises(ValueError, match="nested too deeply"):
                json_object(nested(n))

    def test_has_only_texts_that_can_be_written(self):
        found = json_object(r'{"\ud800": ["a\uDFFFb", "\ud83d\ude00", "\\ud800"]}')
        assert found == {"?": ["a?b", "😀", r"\ud800"]}

    def test_has_only_integers_that_can_become_floats(self):
        assert json_object('{"a": 1' + 400 * "0" + "}") == {"a": math.inf}


VALID = [
    (str, "x"),
    (bool, True),
    (Count, 2**63 - 1),
    (Number, 5),
    (Number, -1e40),
    (Seconds, 0),
    (str | None, None),
    (Any, [{}]),
    (Sequence[int], [1, 2]),
    (Mapping[str, Sequence[int]], {"a": []}),
]

INVALID = [
    *((str, value) for value in (1, None, ["x"])),
    *((bool, value) for value in (1, "true")),
    *((Count, value) for value in (-1, 2**63, 1.0, True, "1")),
    *((Number, value) for value in (math.nan, math.inf, 1e41, 10**300, True, "1")),
    *((Seconds, value) for value in (-1, 1e18, math.nan)),
    *((Sequence[int], value) for value in ("ab", {}, [1, "2"])),
    *((tuple[str, int], value) for value in ([], ["a"], ["a", 1, 1], [1, "a"])),
    *((Mapping[str, int], value) for value in ([], {"a": "b"})),
    *((Pair, value) for value in ([], {}, {"name": None}, {"name": "a", "numbers": [None]})),
]


@pytest.mark.parametrize(("hint", "value"), VALID)
def test_a_value_of_a_type_stays_as_it_is(hint, value):
    assert read_as(hint, value, "x") == value


@pytest.mark.parametrize(("hint", "value"), INVALID)
def test_a_value_of_another_type_is_an_error_that_names_it(hint, value):
    with pytest.raises(ValueError, match=r"^x"):
        read_as(hint, value, "x")


def test_lists_and_objects_become_tuples_and_classes():
    found = read_as(tuple[Pair, ...], [{"name": "a", "numbers": [1], "more": 1}, {"name": "b"}], "x")
    assert found == (Pair("a", [1]), Pair("b"))


class Fields:
    a: Mapping[str, Sequence[Pair]]
    c: int
    d: int
    e: int
    f: int


def test_fields_that_are_not_valid_are_named_with_their_place_and_shortly():
    content = {"a": {"b": [{"name": "x"}, {"name": 5}]}, "c": "x" * 10_000, "d": None, "e": 1, "f": 1}
    valid, problems = read_fields(content, fields_of(Fields, without=["f"]))
    assert valid == {"e": 1}
    assert problems == [
        "a[...][1].name is not valid: expected `str`, got `int`",
        "c is not valid: expected `int`, got `str`",
    ]
