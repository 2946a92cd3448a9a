"""Words for people: parts of sentences (counts, lists, values, sizes), and how text reaches a terminal."""

import re
import sys
from collections.abc import Sequence
from typing import TextIO

# Control characters except tab and newline, lone surrogates (bytes of file names that are not UTF-8), and characters
# that change the direction of the text around them (see "Trojan Source", Boucher and Anderson 2021).
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def say(text: object, file: TextIO | None = None) -> None:
    """Prints a text, as `visible`; to standard output unless `file` is given.

    All commands print with this function, because names, errors and hosts in other people's files may hold anything.
    """
    print(visible(str(text)), file=sys.stdout if file is None else file, flush=True)


def visible(text: str) -> str:
    r"""Returns a text in which no character can control a terminal: each such character becomes its escape, \u001b.

    JSON stays JSON with the same content, since it has the same escapes.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def count(n: int, noun: str) -> str:
    """Returns '1 trial' or '18 trials'."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """Returns 'a', 'a and b' or 'a, b and c'."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def first_of(items: Sequence[object], at_most: int) -> str:
    """Returns the first items, separated by commas, and the number of the others: 'a, b and 7 more'."""
    n_more = len(items) - at_most
    return ", ".join(map(str, items[:at_most])) + (f" and {n_more} more" if n_more > 0 else "")


def value_text(value: object) -> str:
    """Returns the `repr` of a value that may come from anywhere; its type if it has no `repr`."""
    try:
        return repr(value)
    except Exception:  # of a user's class, of a list nested a thousand levels deep, of a number with 5,000 digits
        return f"a value of type {type(value).__name__} that cannot be shown"


def size_text(n_bytes: int) -> str:
    """Returns a number of bytes as '950 B', '7.8 MB' or '125 GB'."""
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    text = f"{size:.0f}" if size >= 99.5 else f"{size:.1f}".removesuffix(".0")
    return f"{text} {units[0]}"
