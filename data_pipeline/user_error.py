"""The base class of all errors that a user can fix, and how a script ends with one."""

import difflib
import os
import sys
from collections.abc import Callable, Sequence

from data_pipeline.words import first_of, say, visible

_MAX_NAMES = 30


class UserError(Exception):
    """Some input to the program is wrong: a config, a file, a command line.

    The message says what is wrong, where, and what to do. It needs no traceback; scripts and notebooks show none.
    """

    def _render_traceback_(self) -> list[str]:
        """Returns the lines that IPython shows in place of a traceback."""
        return [f"error: {visible(str(self))}"]


def exit_status(run: Callable[[], int]) -> int:
    """Runs a script and returns its exit status; an error that the user can fix becomes one line on stderr."""
    try:
        return run()
    except BrokenPipeError:
        # The reader has stopped, as `head` does. The rest goes nowhere; otherwise Python complains about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        say(f"error: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return 130


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """Returns "; did you mean 'x'?" if a known name, or the part after its last dot, is close to `name`.

    Otherwise it lists the known names; of many only the first.
    """
    by_end = {other.rpartition(".")[2]: other for other in reversed(known)}
    for names in (dict(zip(known, known, strict=True)), by_end):
        close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
        if close:
            return f"; did you mean {names[close[0]]!r}?"
    return f"; known: {first_of(known, _MAX_NAMES)}" if known else ""
