"""Sentences about a table: its metric, data and number of repetitions, and which trials did not finish."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

from cluster.reports.tables.metric_labels import Measure
from cluster.results.change_intervals import ChangeIntervals
from cluster.results.experiment_description import DataSet
from cluster.results.results import Results
from cluster.results.rows import Row, column
from cluster.storage.run_file import different_origins
from data_pipeline.subsets import FUSED_SUBSET
from data_pipeline.words import count, listed

SPLIT_NAMES = {"val": "validation", "test": "test"}
SPLITS = {split: f"{name} set" for split, name in SPLIT_NAMES.items()}

_MAX_NAMES = 4


def measured(results: Results, rows: Sequence[Row], split: str, names: Sequence[str], measure: Measure | None) -> str:
    """Returns the metric and its data: '… (mm, lower is better) on the test set demo_test (1,000 frames)'.

    With folds: '… on the test sets of 5 folds of demo (1,000 frames, each tested exactly once)'.

    Args:
        results: The experiment's results.
        rows: The shown combinations.
        split: The shown split.
        names: The shown columns of the trials' table.
        measure: The shown metric; None for several metrics, which the headers name.
    """
    sets = results.data_sets.get(split, {})
    shown = list(dict.fromkeys(sets[row["key"]] for row in rows if row["key"] in sets))
    title = "Results"
    if measure is not None:
        title = f"{measure.title[0].upper()}{measure.title[1:]} ({measure.unit}, {measure.better})"
    on = folds_of(results, split, rows) if results.folds else _sets(shown, SPLIT_NAMES[split])
    return f"{title} on the {on}{_over(results, rows, split, names)}"


def repeated(rows: Sequence[Row]) -> str:
    """Returns how results summarise repetitions: 'mean ± sample standard deviation over n = 3 finished repetitions'."""
    counts = sorted({row["n"] for row in rows})
    if counts in ([], [0], [1]):
        return "one repetition" if counts == [1] else "no repetition has finished"
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean ± sample standard deviation over n = {n} finished repetitions"


def best_first(results: Results, rows: Sequence[Row]) -> list[str]:
    """Returns a sentence that says how combinations are sorted; none for one combination.

    The shown numbers may be of another split, which does not show the order.

    Args:
        results: The experiment's results.
        rows: The shown combinations.
    """
    if len(rows) < 2:
        return []
    sets = {results.data_sets.get("val", {}).get(row["key"]) for row in rows}
    text = f"Combinations are sorted by their mean distance {'in' if len(sets) == 1 else 'on each'} validation"
    text += f"{' set' * (len(sets) > 1)}{in_race(results)}, best first"
    if any(row["key"] in results.dropped for row in rows):
        text += "; those that the race dropped come last"
    elif any(0 < row[results.chosen_by.n] < results.n_repetitions for row in rows):
        text += f"; those with fewer than {results.n_repetitions} finished repetitions come last"
    return [f"{text}."]


def in_race(results: Results) -> str:
    """Returns ' over the 3 repetitions of the race' if fresh ones confirm its finalists; otherwise an empty text."""
    n = results.n_repetitions
    return "" if not results.n_confirming else f" over the {n} repetitions of the race" if n > 1 else " in the race"


def raced(results: Results) -> list[str]:
    """Returns sentences on how many combinations a race dropped, and on how its finalists are confirmed."""
    return [*dropped(results), *confirmed(results)]


def confirmed(results: Results) -> list[str]:
    """Returns a sentence on the fresh repetitions that confirm a race's finalists; none if there are none."""
    if not results.n_confirming:
        return []
    fresh = count(results.n_confirming, "fresh repetition")
    return [f"Means and tests come from {fresh} of each finalist, which took no part in the race."]


def dropped(results: Results) -> list[str]:
    """Returns a sentence on how many combinations a race dropped; none if it dropped none.

    For example '12 of 60 combinations were trained to the end; the race dropped the others.'
    """
    n_all, n_dropped = count(len(results.summary), "combination"), len(results.dropped)
    n_left = len(results.summary) - n_dropped
    if not n_dropped:
        return []
    if not n_left:
        return [f"The race dropped all {n_all}." if len(results.summary) > 1 else "The race dropped the combination."]
    if results.is_open:
        return [f"The race has dropped {n_dropped:,} of {n_all}; the others have not all been trained to the end yet."]
    were, others = "was" if n_left == 1 else "were", "other" if n_dropped == 1 else "others"
    n_diverged = sum(not results.is_complete(row) for row in results.ranked)
    trained = f"{n_left:,} of {n_all} {were} trained to the end"
    if n_diverged:
        trained = f"{n_left:,} of {n_all} stayed to the end, but {n_diverged:,} of these diverged in some repetitions"
    return [f"{trained}; the race dropped the {others}."]


def sorted_by(header: str, *, descending: bool) -> list[str]:
    """Returns a sentence that says by which column rows are sorted."""
    return [f"Rows are sorted by {header}{', from high to low' if descending else ''}."]


def over_folds(results: Results, rows: Sequence[Row]) -> list[str]:
    """Returns a sentence that says how results combine folds; none without folds."""
    if not results.folds:
        return []
    n = n_folds(results, [row["key"] for row in rows])
    return [f"The result of a repetition is the mean over the frames of all {n} folds."]


def folds_of(results: Results, split: str, rows: Sequence[Row]) -> str:
    """Returns the data of combinations with folds: 'test sets of 5 folds of demo (1,000 frames, each …)'."""
    of_split = results.data_sets[split]
    sets = list(dict.fromkeys(of_split[row["key"]] for row in rows))
    n = n_folds(results, [row["key"] for row in rows])
    datasets = f"{len(sets)} datasets" if len(sets) > _MAX_NAMES else listed([found.name for found in sets])
    once = f", {'all' if len(sets) > 1 else 'each'} tested exactly once" if split == "test" else ""
    return f"{SPLIT_NAMES[split]} sets of {n} folds of {datasets} ({_frames(sets)}{once})"


OVER_FOLDS = "± over folds: sample standard deviation of the folds' means."
"""Explains the column with the spread over folds."""


def in_brackets(intervals: Mapping[str, ChangeIntervals | None] | None) -> list[str]:
    """Returns a sentence that explains intervals of changes; none if no interval is known."""
    if intervals is None or not any(intervals.values()):
        return []
    return [
        "In brackets: 95 % interval of the change over frames, repetitions averaged (block bootstrap within "
        "recordings, because neighbouring frames are similar); other recordings and people may differ more."
    ]


def without_interval(rows: Sequence[Row], intervals: Mapping[str, ChangeIntervals | None] | None) -> list[str]:
    """Returns a sentence on combinations with results but without an interval; none without any.

    Args:
        rows: The shown combinations.
        intervals: Their intervals, by key; None for a table without intervals.
    """
    n = 0 if intervals is None else sum(row["n"] > 0 and intervals.get(row["key"]) is None for row in rows)
    if not n:
        return []
    return [
        f"{count(n, 'combination')} {'has' if n == 1 else 'have'} no interval: it needs frames for at least two "
        "blocks, and their errors in all finished repetitions, which are kept together with the weights "
        "(keep_weights), for the test set if there is one."
    ]


def n_folds(results: Results, keys: Iterable[str]) -> str:
    """Returns the number of folds of some combinations: '5', or '4 to 5'."""
    counts = sorted({len(results.folds[key]) for key in keys})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def unfinished(results: Results, rows: Sequence[Row]) -> list[str]:
    """Returns a sentence that counts failed and diverged repetitions of the rows; none if all finished.

    With folds, it counts the folds that did not finish, and the repetitions that lack them.
    """
    counts = {status: sum(row[status] for row in rows) for status in ("failed", "diverged")}
    if not any(counts.values()):
        return []
    if not results.folds:
        return [f"{excluded(counts, 'repetition')}."]
    keys = {key for row in rows for key in results.trained_keys(row["key"])}
    folds = Counter(trial["status"] for trial in results.failures if trial["key"] in keys)
    return [f"{excluded(folds, 'fold', sum(counts.values()))}."]


def excluded(counts: Mapping[str, int], noun: str, n_repetitions: int | None = None) -> str:
    """Says what is missing from means: '2 trials failed and are excluded from all means'.

    Args:
        counts: The numbers of failed and diverged ones, by status; at least one.
        noun: What is counted, such as 'trial'.
        n_repetitions: With folds, how many repetitions of all folds are excluded because of them.
    """
    lost = [f"{count(counts[status], noun)} {status}" for status in ("failed", "diverged") if counts[status]]
    if n_repetitions is not None:
        are = "is" if n_repetitions == 1 else "are"
        return f"{listed(lost)}, so {count(n_repetitions, 'repetition')} {are} incomplete and excluded from all means"
    are = "; they are" if len(lost) > 1 else " and is" if lost[0].startswith("1 ") else " and are"
    return f"{listed(lost)}{are} excluded from all means"


def passed_over(results: Results, chosen: Collection[Row], place: Callable[[Row], Hashable]) -> list[str]:
    """Returns a sentence on better combinations that were not chosen because they lack repetitions; none without any.

    A combination without all repetitions ranks after all complete ones, because its mean is less certain. The table
    alone does not show that there is a lower mean.

    Args:
        results: The experiment's results.
        chosen: The chosen combinations, the best first for each place.
        place: Returns the place in the table that a combination competes for with others of its validation set.
    """
    validated_on = results.data_sets.get("val", {})

    def group(row: Row) -> Hashable:
        return place(row), validated_on.get(row["key"])

    last = {group(row): row for row in chosen}
    keys, by, n = {row["key"] for row in chosen}, results.chosen_by, 0
    for row in results.summary:
        if row["key"] in keys or row[by.n] == results.n_repetitions or group(row) not in last:
            continue
        mean, of_last = row[by.mean], last[group(row)][by.mean]
        n += mean is not None and (of_last is None or mean < of_last)
    if not n:
        return []
    have, were = ("has", "was") if n == 1 else ("have", "were")
    why = f"because not all {results.n_repetitions} repetitions finished"
    return [f"{count(n, 'combination')} {have} a lower mean in validation but {were} not chosen {why}."]


def chosen_epochs(split: str) -> list[str]:
    """Returns a sentence on how epochs were chosen, if the results are on the test set."""
    return ["Epochs were chosen on the validation set."] if split == "test" else []


def distances(results: Results, rows: Sequence[Row], split: str) -> list[str]:
    """Returns how far the frames of a split are from the training frames of the rows, and what results then measure.

    Of several sets, the sentence is about the one whose frames are the closest.
    """
    known = results.single_folds.separations.get(split, {})
    keys = [key for row in rows for key in results.trained_keys(row["key"])]
    found = {known[key]: None for key in keys if key in known}
    if not found:
        return []
    closest = max(found, key=lambda separation: (separation.is_interpolation, separation.correlation or 0.0))
    sentences = [closest.sentence(SPLIT_NAMES[split])]
    if len(found) > 1:
        sentences.append(f"Of the {len(found)} pairs of training and {SPLIT_NAMES[split]} sets, these are the closest.")
    if closest.meaning is not None:
        sentences.append(closest.meaning)
    return [" ".join(sentences)]


def versions(results: Results, rows: Sequence[Row]) -> list[str]:
    """Returns a sentence if different versions or devices trained the finished trials of the rows; none otherwise.

    Trials whose versions were not recorded may be of any version. They count only if those of others were.
    """
    trained_by = results.trained_by(rows).values()
    different = different_origins(run for runs in trained_by for run in runs or ())
    n_unknown = sum(runs is None for runs in trained_by)
    sentences = [f"Different versions trained these trials: {different}."] if different else []
    devices = _devices(results, rows)
    if len(devices) > 1:
        sentences.append(f"Different devices trained these trials: {listed(devices)}; their random numbers may differ.")
    if 0 < n_unknown < len(trained_by):
        sentences.append(f"Which versions trained {n_unknown:,} of {len(trained_by):,} trials was not recorded.")
    return sentences


def _devices(results: Results, rows: Sequence[Row]) -> list[str]:
    """Returns the names of the GPUs that trained the finished trials of the rows, and `cpu` if that did."""
    keys = {key for row in rows for key in results.trained_keys(row["key"])}
    trials = [row for row in results.single_folds.trials if row["key"] in keys and row["status"] == "finished"]
    names = {row.get("gpu") or str(row.get("device") or "").partition(":")[0] for row in trials}
    return sorted(names - {""})


def _over(results: Results, rows: Sequence[Row], split: str, names: Sequence[str]) -> str:
    """Returns which subsets are averaged in columns without the name of a subset."""
    subsets = results.subsets(split)
    are_of_one = [name.endswith(tuple(f"[{subset}]" for subset in subsets)) for name in names]
    if not subsets or (are_of_one and all(are_of_one)):
        return ""
    keys = {row["key"] for row in rows}
    # Combinations that were measured on different sets may have different subsets.
    found = {
        tuple(subset for subset in subsets if trial[column(split, "distance", subset=subset)] is not None)
        for trial in results.trials
        if trial["key"] in keys
    } - {()}
    fused, averaged = (FUSED_SUBSET,) in found, found - {(FUSED_SUBSET,)}
    texts = []
    if averaged or not fused:
        over = listed(next(iter(averaged))) if len(averaged) == 1 else "the subsets of each"
        texts.append(f"mean over {over}{' unless a subset is named' * any(are_of_one)}")
    if fused:
        which = " for models that fuse subsets" if averaged else ""
        texts.append(f"of the one fused pose{which} (before: of the mean pose over the subsets)")
    return f", {', or '.join(texts)}"


def _frames(sets: Sequence[DataSet]) -> str:
    """Returns the number of frames: '1,000 frames', or for several sets '900 to 1,000 frames each'."""
    sizes = sorted({found.n_frames for found in sets if found.n_frames is not None})
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}" if sizes else ""
    return f"{size} frames{' each' if len(sets) > 1 else ''}" if size else ""


def _sets(sets: Sequence[DataSet], split: str) -> str:
    if not sets:
        return f"{split} set"
    frames = f" ({_frames(sets)})" if _frames(sets) else ""
    names = list(dict.fromkeys(found.name for found in sets))
    is_short = len(names) <= _MAX_NAMES
    shown = f"{split} set{'s' * (len(names) > 1)} {listed(names)}" if is_short else f"{len(names)} {split} sets"
    return f"{shown}{frames}"
