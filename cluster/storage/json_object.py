"""JSON objects in files that may come from anywhere: parsed within bounds, and read into typed values."""

import json
import re
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any, TypedDict, get_type_hints

import msgspec

_MAX_LEVELS = 50  # a setting has about ten, and what shows settings is recursive
_MAX_DIGITS = 300  # so that every integer can be converted to a float
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_ALL_DIGITS_0 = bytes.maketrans(b"123456789", b"000000000")


def json_object(data: str | bytes) -> dict[str, Any]:
    """Parses a JSON object.

    An integer with more than 300 digits becomes a float. Half of a surrogate pair, which no text can contain, becomes a
    question mark.

    Raises:
        ValueError: If it is not a JSON object in UTF-8, or if it is nested more than 50 levels.
    """
    encoded = data if isinstance(data, bytes) else data.encode(errors="replace")
    try:
        content = _parsed(encoded)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    if _may_be_deep(encoded) and _n_levels(content) > _MAX_LEVELS:
        raise ValueError("it is nested too deeply")
    return content


def usual_object(data: str | bytes, decoder: msgspec.json.Decoder[Any]) -> dict[str, Any] | None:
    """Parses a JSON object whose fields have the types that a decoder expects, without building the others.

    Returns:
        None if it may not be such an object, or if `json_object` would refuse or change it. What is not built may be
        nested deeper than `json_object` allows.
    """
    try:
        encoded = data.encode() if isinstance(data, str) else data.decode().encode()  # the decoder skips invalid UTF-8
        found: dict[str, Any] = decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return found


def _parsed(data: bytes) -> Any:
    may_be_long = b"0" * _MAX_DIGITS in data.translate(_ALL_DIGITS_0)
    if not may_be_long:
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            pass  # it does not read NaN, infinity and half surrogates, which Python's json writes
    # Calling a function for each integer would take as long as everything else.
    parse_int = _integer if may_be_long else None
    content = json.loads(data.decode(), parse_int=parse_int)
    if b"\\ud" in data or b"\\uD" in data:
        content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"), parse_int=parse_int)
    return content


def _may_be_deep(text: bytes) -> bool:
    """Returns False if JSON has at most 50 levels; without looking at its values, which takes much longer."""
    if b"\\" in text:
        text = _ESCAPED.sub(b"", text)
    structure = text.translate(_SQUARE, _NO_STRUCTURE).replace(b'""', b"")
    if b'"' in structure:
        return True  # brackets in texts: without the texts, pairs of them could hide levels
    for _ in range(_MAX_LEVELS):
        if not structure:
            break
        structure = structure.replace(b"[]", b"")  # the innermost level
    return bool(structure)


def _n_levels(content: Any) -> int:
    level, n = [content], 0
    while level:
        n += 1
        values = chain.from_iterable(value.values() if type(value) is dict else value for value in level)
        level = [value for value in values if type(value) in (dict, list)]
    return n


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def fields_of(kind: type, without: Collection[str] = ()) -> Any:
    """Returns the type of a JSON object whose fields are the annotated attributes of a class; each may be missing.

    Args:
        kind: The class.
        without: Attributes that are not fields.
    """
    hints = get_type_hints(kind, include_extras=True)
    fields = {name: hint for name, hint in hints.items() if name not in without}
    return TypedDict(kind.__name__, fields, total=False)  # type: ignore[operator]


def read_fields(content: Mapping[str, Any], fields: Any) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields that are valid by their names, and for each other one a text that says what is wrong.

    A field that is missing or null, or that `fields` does not name, is in neither.
    """
    given = {name: value for name, value in content.items() if value is not None}
    valid: dict[str, Any] = {}
    problems: list[str] = []
    try:
        return msgspec.convert(given, fields), problems
    except msgspec.ValidationError:  # of one of them
        for name, value in given.items():
            try:
                valid |= read_as(fields, {name: value}, "")
            except ValueError as error:
                problems.append(str(error).removeprefix("."))
    return valid, problems


def read_as(kind: Any, value: Any, where: str) -> Any:
    """Returns a JSON value as a value of a type, by `msgspec.convert`; a ValueError's text begins with `where`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise ValueError(f"{where}{place.rstrip('`')} is not valid: {what[0].lower()}{what[1:]}") from error
