"""The base of all errors that a person can mend."""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """Something given to the program is wrong: a config, a file, a command line.

    The text says what is wrong, where, and what to do. It is complete without a traceback, and scripts show
    it without one.
    """


def first_line(error: BaseException) -> str:
    """Returns the first line of the text of an error that others raised, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """Returns "; did you mean 'x'?" where a known name is close, else the known names."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""
