import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import pytest

from cluster.storage.json_object import Seconds, json_object, read_as, read_fields


class Pair(NamedTuple):
    name: str
    numbers: Sequence[float] = ()


class TestAnObject:
    @pytest.mark.parametrize("content", [{}, {"a": [1, 2.5, None, True, "ü✓"]}, {"big": 10**200}])
    def test_is_read_as_json_reads_it(self, content):
        assert json_object(json.dumps(content)) == json_object(json.dumps(content).encode()) == content

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b'{"a": 1,}'])
    def test_is_nothing_else(self, data):
        with pytest.raises(ValueError, match=r"."):
            json_object(data)

    @pytest.mark.parametrize(("before", "after"), [('{"a":', "}"), ("[", "]")])
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
    (int, 2**63 - 1),
    (float, 5),
    (float, -1e40),
    (Seconds, 0),
    (str | None, None),
    (Any, [{}]),
    (Sequence[int], [1, 2]),
    (Mapping[str, Sequence[int]], {"a": []}),
]

INVALID = [
    *((str, value) for value in (1, None, ["x"])),
    *((bool, value) for value in (1, "true")),
    *((int, value) for value in (-1, 2**63, 1.0, True, "1")),
    *((float, value) for value in (math.nan, math.inf, 1e41, 10**300, True, "1")),
    *((Seconds, value) for value in (-1, 1e18, math.nan)),
    *((Sequence[int], value) for value in ("ab", {}, [1, "2"])),
    *((tuple[str, int], value) for value in ([], ["a"], ["a", 1, 1], [1, "a"])),
    *((Mapping[str, int], value) for value in ([], {"a": "b"})),
    *((Pair, value) for value in ([], {}, {"name": None}, {"name": "a", "numbers": [None]})),
    (Annotated[Sequence[int], bool], []),
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


def test_fields_that_are_not_valid_are_named_with_their_place_and_shortly():
    content = {"a": {"b": [{"name": "x"}, {"name": 5}]}, "c": "x" * 10_000, "d": None, "e": 1, "f": 1}
    hints = {"a": Mapping[str, Sequence[Pair]], "c": int, "d": int, "e": int}
    valid, problems = read_fields(content, hints)
    assert valid == {"e": 1}
    assert problems[0] == "a['b'][1].name is not valid: 5"
    assert problems[1].startswith("c is not valid: 'xxx")
    assert len(problems[1]) < 60
