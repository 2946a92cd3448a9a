"""JSON objects in files that may come from anywhere: parsed within bounds, and read into typed values."""

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

_MAX_LEVELS = 50  # a setting has about ten, and what shows settings is recursive
_MAX_DIGITS = 300  # so that every integer can be converted to a float
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ALL_DIGITS_0 = bytes.maketrans(b"123456789", b"000000000")

LARGEST = 1e40
"""Distances between float32 numbers are smaller, and the square of a smaller number is a float."""

_YEAR_9999 = 253_370_764_800


def _is_time(value: float) -> bool:
    return 0 <= value < _YEAR_9999


Seconds = Annotated[float, _is_time]
"""Seconds since 1970, or a duration: a number that can be shown as a time."""

Reader = Callable[[Any], Any]
"""Returns a JSON value as a typed value; raises a ValueError that says where it is not valid, such as `[2].name`."""


def json_object(data: str | bytes) -> dict[str, Any]:
    """Parses a JSON object.

    An integer with more than 300 digits becomes a float. Half of a surrogate pair, which no text can contain, becomes a
    question mark.

    Raises:
        ValueError: If it is not a JSON object in UTF-8, or if it is nested more than 50 levels.
    """
    text = data.decode() if isinstance(data, bytes) else data
    encoded = data if isinstance(data, bytes) else data.encode(errors="replace")
    # Calling a function for each integer would take as long as everything else.
    may_be_long = b"0" * _MAX_DIGITS in encoded.translate(_ALL_DIGITS_0)
    parse_int = _integer if may_be_long else None
    try:
        content = json.loads(text, parse_int=parse_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if _may_be_deep(encoded) and _n_levels(content) > _MAX_LEVELS:
        raise ValueError("it is nested too deeply")
    if "\\ud" in text or "\\uD" in text:
        text = json.dumps(content, ensure_ascii=False).encode(errors="replace").decode()
        content = json.loads(text, parse_int=parse_int)
    return dict(content)


def _may_be_deep(text: bytes) -> bool:
    """Returns False if JSON has at most 50 levels; without looking at its values, which takes much longer."""
    brackets = text.translate(_SQUARE, _NO_BRACKETS)
    for _ in range(_MAX_LEVELS):
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return bool(brackets)  # more levels, or brackets in texts


def _n_levels(content: Any) -> int:
    level, n = [content], 0
    while level:
        n += 1
        values = chain.from_iterable(value.values() if type(value) is dict else value for value in level)
        level = [value for value in values if type(value) in (dict, list)]
    return n


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


@cache
def reader(hint: Any) -> Reader:
    """Returns a function that reads JSON values of a type.

    Args:
        hint: The type: `str`, `bool`, `int` (not negative, 64 bits), `float` (finite, also an integer), `None`, `Any`,
            a union of these, a sequence, a tuple, a mapping from texts, a class whose annotated attributes are the
            fields of a JSON object, or any of these annotated with a function that tells whether a value is valid.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if kind is Annotated:
        return _read_if(hint.__metadata__[0], reader(arguments[0]))
    if kind in (Union, UnionType):
        return _union([reader(argument) for argument in arguments])
    if kind is not None and issubclass(kind, Mapping):
        return _mapping(reader(arguments[1]))
    if kind is tuple and arguments[-1] is not ...:
        return _items([reader(argument) for argument in arguments])
    if kind is not None and issubclass(kind, Sequence):
        return _sequence(reader(arguments[0]), tuple if kind is tuple else list)
    if hint is float:
        return _exact(float, int, where=lambda value: abs(value) <= LARGEST)
    if hint is int:
        return _exact(int, where=lambda value: 0 <= value < 2**63)
    if hint in (str, bool, None, NoneType):
        return _exact(hint or NoneType)
    return _class(hint)


def read_as(hint: Any, value: Any, where: str) -> Any:
    """Returns a JSON value as a typed value, see `reader`; the text of a ValueError begins with `where`."""
    try:
        return reader(hint)(value)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def read_fields(content: Mapping[str, Any], hints: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields that are valid by their names, and for each other one a text that says what is wrong.

    A field that is missing or null, or that `hints` does not name, is in neither.
    """
    valid, problems = {}, []
    for name, hint in hints.items():
        value = content.get(name)
        if value is not None:
            try:
                valid[name] = read_as(hint, value, name)
            except ValueError as error:
                problems.append(str(error))
    return valid, problems


def invalid(value: Any) -> ValueError:
    """Returns the error of a value that is not valid."""
    return ValueError(f" is not valid: {reprlib.repr(value)}")


def _at(place: str | int, read: Reader, value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"[{reprlib.repr(place)}]{error}") from error


def _exact(*kinds: type, where: Callable[[Any], bool] = lambda value: True) -> Reader:
    def read(value: Any) -> Any:
        if type(value) in kinds and where(value):
            return value
        raise invalid(value)

    return read


def _read_if(is_valid: Callable[[Any], bool], read: Reader) -> Reader:
    def read_if(value: Any) -> Any:
        found = read(value)
        if not is_valid(found):
            raise invalid(value)
        return found

    return read_if


def _union(readers: Sequence[Reader]) -> Reader:
    def read(value: Any) -> Any:
        problems = []
        for one in readers:
            try:
                return one(value)
            except ValueError as error:
                problems.append(error)
        raise problems[0]

    return read


def _mapping(read: Reader) -> Reader:
    def read_all(value: Any) -> Any:
        if type(value) is not dict:
            raise invalid(value)
        return {name: _at(name, read, item) for name, item in value.items()}

    return read_all


def _sequence(read: Reader, kind: Callable[[Any], Any]) -> Reader:
    def read_all(value: Any) -> Any:
        if type(value) is not list:
            raise invalid(value)
        return kind(_at(place, read, item) for place, item in enumerate(value))

    return read_all


def _items(readers: Sequence[Reader]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise invalid(value)
        return tuple(
            _at(place, read_one, item) for place, (read_one, item) in enumerate(zip(readers, value, strict=True))
        )

    return read


def _class(kind: Any) -> Reader:
    hints = get_type_hints(kind, include_extras=True)

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise invalid(value)
        fields = {name: read_as(hint, value[name], f".{name}") for name, hint in hints.items() if name in value}
        try:
            return kind(**fields)
        except TypeError as error:  # a field without a default is missing
            raise ValueError(f" lacks {str(error).rpartition(': ')[2]}") from error

    return read
