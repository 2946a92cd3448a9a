"""The base of all errors that a person can mend, and how a script ends with one."""

import difflib
import os
import sys
from collections.abc import Callable, Sequence

_MAX_NAMES = 30


class UserError(Exception):
    """Something given to the program is wrong: a config, a file, a command line.

    The text says what is wrong, where, and what to do. It is complete without a traceback, and scripts show
    it without one.
    """


def exit_status(run: Callable[[], int]) -> int:
    """Runs a script and returns its exit status; an error that a person can mend becomes one line on stderr."""
    try:
        return run()
    except BrokenPipeError:
        # The reader has stopped, as `head` does. The rest goes nowhere; otherwise Python complains about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def first_line(error: BaseException) -> str:
    """Returns the first line of the text of an error that others raised, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """Returns "; did you mean 'x'?" where a known name or what is behind its last dot is close, else the known names.

    Of many names it returns the first.
    """
    by_end = {other.rpartition(".")[2]: other for other in reversed(known)}
    for names in (dict(zip(known, known, strict=True)), by_end):
        close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
        if close:
            return f"; did you mean {names[close[0]]!r}?"
    n_more = len(known) - _MAX_NAMES
    more = f" and {n_more} more" if n_more > 0 else ""
    return f"; known are {', '.join(known[:_MAX_NAMES])}{more}" if known else ""
