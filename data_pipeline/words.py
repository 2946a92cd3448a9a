"""Parts of sentences for messages and captions: counts, lists, values and sizes."""

from collections.abc import Sequence


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
