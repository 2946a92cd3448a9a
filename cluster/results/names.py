"""Short names of options and metrics."""

from collections.abc import Sequence

from data_pipeline.user_error import UserError, did_you_mean


class ChoiceError(UserError):
    """The experiment does not have what was requested, or several things match; the message says what it has."""


def named(name: str, known: Sequence[str], what: str) -> str:
    """Returns the known name that equals `name`, or the only one that ends in '.NAME'.

    Raises:
        ChoiceError: If no name or more than one matches; the message lists similar names, or the matches.
    """
    if name in known:
        return name
    ending = [other for other in known if other.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ChoiceError(f"{what} {name!r} may be {' or '.join(ending)}; write it in full")
    raise ChoiceError(f"there is no {what} {name!r}{did_you_mean(name, known)}")


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns for each dotted path its shortest ending that is unique."""
    names = {}
    for path in paths:
        parts = path.split(".")
        endings = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [f".{other}" for other in paths if other != path]
        names[path] = next((end for end in endings if not any(other.endswith(f".{end}") for other in others)), path)
    return names
