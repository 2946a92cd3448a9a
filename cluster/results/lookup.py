"""Finds a combination by the beginning of its key or as "best", a fold by its key, and a repetition by its number."""

from collections.abc import Mapping

from cluster.results.names import ChoiceError
from cluster.results.results import Results
from cluster.results.rows import Row
from data_pipeline.user_error import did_you_mean
from data_pipeline.words import first_of

_NAMED = 10


def find_combination(table: Results, wanted: str) -> Row:
    """Returns the row of the combination whose key begins with `wanted`; `best` is the first of the summary.

    Raises:
        ChoiceError: If no key or several keys match, or if `best` is requested but there are several sets of data.
    """
    keys = short_keys(table)
    if wanted == "best":
        by_data = table.by_data()
        if len(by_data) > 1:
            raise ChoiceError(
                f"{table.name} was measured on {len(by_data)} sets of data; name a combination. The best of each: "
                f"{best_of_each(by_data, keys)}"
            )
        return table.summary[0]
    found = [row for row in table.summary if row["key"].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(keys[row["key"]] for row in found[:5])
        raise ChoiceError(f"{table.name} has {len(found)} combinations whose keys begin with {wanted!r}: {some}")
    of_fold = next((key for key, folds in table.folds.items() if any(f.key.startswith(wanted) for f in folds)), None)
    if of_fold is not None:
        raise ChoiceError(f"{wanted!r} is a fold in {table.name}; name its combination, {keys[of_fold]}")
    hint = did_you_mean(wanted, [keys[row["key"]] for row in table.summary[:_NAMED]])
    raise ChoiceError(f"{table.name} has no combination {wanted!r}{hint} (`show` has all)")


def find_trained(table: Results, wanted: str) -> list[Row]:
    """Returns the rows of `single_folds` that a key selects: all folds of a combination, or the fold with that key.

    Raises:
        ChoiceError: As `find_combination`.
    """
    trained = table.single_folds
    folds = [row for row in trained.summary if table.folds and row["key"].startswith(wanted)]
    others = [row for row in table.summary if row["key"].startswith(wanted)]
    if len(folds) == 1 and not others:
        return folds
    if folds:
        some = first_of([row["key"] for row in (*others, *folds)], 5)
        raise ChoiceError(f"{table.name} has several combinations and folds whose keys begin with {wanted!r}: {some}")
    keys = table.trained_keys(find_combination(table, wanted)["key"])
    by_key = {row["key"]: row for row in trained.summary}
    return [by_key[key] for key in keys]


def find_one_trained(table: Results, wanted: str) -> Row:
    """Returns the row of `single_folds` that a key selects.

    Raises:
        ChoiceError: As `find_combination`; and if the combination has folds, since each fold has its own trainings.
    """
    found = find_trained(table, wanted)
    if len(found) == 1:
        return found[0]
    keys = short_keys(table)
    of_folds = next(folds for folds in table.folds.values() if folds[0].key == found[0]["key"])
    each = ", ".join(f"{keys[fold.key]} (fold {fold.number})" for fold in of_folds)
    raise ChoiceError(
        f"{wanted!r} of {table.name} has {len(found)} trainings, one for each fold; name one by its key: {each}"
    )


def find_repetition(table: Results, combination: Row, wanted: str) -> Row:
    """Returns the row of a combination's repetition, a trial, by its number.

    Raises:
        ChoiceError: If there is no repetition with that number.
    """
    trials = table.repetitions[combination["key"]]
    found = next((trial for trial in trials if str(trial["repetition"]) == wanted), None)
    if found is None:
        known = f"repetitions 0 to {len(trials) - 1}" if len(trials) > 1 else "only repetition 0"
        raise ChoiceError(f"{combination['key']} of {table.name} has no repetition {wanted!r}; it has {known}")
    return found


_KEY_LENGTH = 4


def short_keys(table: Results) -> dict[str, str]:
    """Returns the beginning of each key of a combination or a fold that is unique, at least four characters."""
    keys = list(dict.fromkeys(row["key"] for row in (*table.summary, *table.single_folds.summary)))
    longest = max(map(len, keys))
    n = next((n for n in range(_KEY_LENGTH, longest) if len({key[:n] for key in keys}) == len(keys)), longest)
    return {key: key[:n] for key in keys}


def best_of_each(by_data: Mapping[str, Results], keys: Mapping[str, str]) -> str:
    """Returns the best combination on each data set as a text for an error.

    Args:
        by_data: What `Results.by_data` returns.
        keys: What `short_keys` returns.
    """
    return ", ".join(f"{keys[table.summary[0]['key']]} ({name})" for name, table in by_data.items())
