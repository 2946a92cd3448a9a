"""The results at the first rung of a race, the only ones that cover all combinations that it started with."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cluster.racing.decision_file import Competitor
from cluster.racing.dropped import first_rung_of_each, of_plan
from cluster.results.results import Results
from cluster.results.rows import Row, column
from data_pipeline.words import count


class FirstRung(NamedTuple):
    """The first rung of a race.

    Attributes:
        results: The results there, of the repetitions that trained to it: only the best validation distances so far.
        at: Which rung it is, for a sentence: 'at epoch 4, the first rung of the race, where all …'.
    """

    results: Results
    at: str


def at_first_rung(results: Results) -> FirstRung | None:
    """Returns the results at the first rung of a race; None if its decision is missing.

    Later results lack the dropped combinations. The remaining ones are not a random sample, so they cannot show what an
    option does.

    Args:
        results: The results of combinations with the same validation set, of which the race dropped some.
    """
    data = results.data_sets["val"][results.summary[0]["key"]]
    there = first_rung_of_each(
        of_plan(results.decisions, results.repetitions), (data.name, data.size), results.stands_for
    )
    if not there:
        return None
    reached = {c.key: c.values_mm for c in there}
    trials = [_at_rung(trial, reached.get(trial["key"], [])) for trial in results.trials]
    n_repetitions = min(map(len, reached.values()))
    n_diverged = {key: sum(map(math.isinf, values[:n_repetitions])) for key, values in reached.items()}
    summary = [row | {"failed": 0, "diverged": n_diverged.get(row["key"], 0)} for row in results.summary]
    at_rung = Results(
        name=results.name,
        option_paths=results.option_paths,
        distinguishing_paths=results.distinguishing_paths,
        splits=["val"],
        trials=[trial for trial in trials if trial["repetition"] < n_repetitions],
        summary=summary,
        n_others=0,
        n_repetitions=n_repetitions,
        options=results.options,
        data_sets=results.data_sets,
        separations=results.separations,
        folds=results.folds,
        run_ids=results.run_ids,
        runs=results.runs,
        trained=results.trained,
        folder=results.folder,
    )
    return FirstRung(at_rung, _at(there, n_repetitions, len(results.summary)))


def _at_rung(trial: Row, values_mm: list[float]) -> Row:
    """Returns the row of a trial at the rung, from the values of its combination there."""
    place = trial["repetition"]
    value = values_mm[place] if place < len(values_mm) else None
    status = "pending" if value is None else "finished" if math.isfinite(value) else "diverged"
    return trial | {"status": status, column("val", "distance"): value if status == "finished" else None}


def _at(there: Sequence[Competitor], n_repetitions: int, n_planned: int) -> str:
    epochs = sorted({c.epoch for c in there})
    epoch = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
    n, repetitions = len(there), count(n_repetitions, "repetition")
    which = f"all {n:,}" if n == n_planned else f"{n:,} of {n_planned:,}"
    later = "" if n == n_planned else " (the others did not compete there)"
    return f"at {epoch}, the first rung of the race, where {which} combinations were trained with {repetitions}{later}"
