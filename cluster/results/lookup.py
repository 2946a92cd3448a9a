"""Finds a combination or a repetition by what a person calls it: the beginning of its key, or "best"."""

from collections.abc import Mapping

from cluster.results.results import Results, Row
from data_pipeline.user_error import UserError, did_you_mean

_NAMED = 10


class NoCombinationError(UserError):
    """An experiment has no such combination, or several, or no such repetition of it."""


def find_combination(table: Results, wanted: str) -> Row:
    """Returns the row of the combination whose key begins with `wanted`; `best` is the first of the summary.

    Raises:
        NoCombinationError: If there is none, or several; if the best is wanted of what was measured on several data.
    """
    keys = short_keys(table)
    if wanted == "best":
        parts = table.by_data()
        if len(parts) > 1:
            raise NoCombinationError(
                f"{table.name} was measured on {len(parts)} sets of data; name a combination of one. The best of each: "
                f"{best_of_each(parts, keys)}"
            )
        return table.summary[0]
    found = [row for row in table.summary if row["key"].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(keys[row["key"]] for row in found[:5])
        raise NoCombinationError(f"{table.name} has {len(found)} combinations whose keys begin with {wanted!r}: {some}")
    hint = did_you_mean(wanted, list(keys.values())[:_NAMED])
    raise NoCombinationError(f"{table.name} has no combination {wanted!r}{hint} (`show` has all)")


def find_repetition(table: Results, combination: Row, wanted: str) -> Row:
    """Returns the row of a trial: of a combination's repetition by its number.

    Raises:
        NoCombinationError: If there is none of that number.
    """
    trials = [trial for trial in table.trials if trial["key"] == combination["key"]]
    found = next((trial for trial in trials if str(trial["repetition"]) == wanted), None)
    if found is None:
        known = f"repetitions 0 to {len(trials) - 1}" if len(trials) > 1 else "repetition 0 alone"
        raise NoCombinationError(f"{combination['key']} of {table.name} has no repetition {wanted!r}; it has {known}")
    return found


_KEY_LENGTH = 4


def short_keys(table: Results) -> dict[str, str]:
    """Returns the beginning of each combination's key that tells it from the others, at least four characters."""
    keys = [row["key"] for row in table.summary]
    longest = max(map(len, keys))
    n = next((n for n in range(_KEY_LENGTH, longest) if len({key[:n] for key in keys}) == len(keys)), longest)
    return {key: key[:n] for key in keys}


def best_of_each(parts: Mapping[str, Results], keys: Mapping[str, str]) -> str:
    """Returns the best combination on each of several data, as they are named in an error.

    Args:
        parts: The results on each data, as of `Results.by_data`.
        keys: The beginnings of the combinations' keys, as of `short_keys`.
    """
    return ", ".join(f"{keys[part.summary[0]['key']]} ({name})" for name, part in parts.items())
