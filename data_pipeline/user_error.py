"""The base of all errors that a person can mend."""


class UserError(Exception):
    """Something given to the program is wrong: a config, a file, a command line.

    The text says what is wrong, where, and what to do. It is complete without a traceback, and scripts show
    it without one.
    """


def first_line(error: BaseException) -> str:
    """Returns the first line of the text of an error that others raised, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
