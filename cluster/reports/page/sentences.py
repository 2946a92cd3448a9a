"""The results of an experiment in sentences."""

from collections import Counter
from collections.abc import Iterator, Sequence

from cluster.reports.formats.grid import p_text, signed
from cluster.reports.page.data import PageData
from cluster.reports.tables.by_group import GroupErrors
from cluster.reports.tables.captions import (
    SPLITS,
    distances,
    excluded,
    folds_of,
    in_race,
    n_folds,
    over_folds,
    raced,
    versions,
)
from cluster.reports.tables.summary import mean_and_std
from cluster.results import names
from cluster.results.change_intervals import intervals_of
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns, column, fold_std_column
from cluster.storage.frame_errors import FrameErrors
from data_pipeline.words import count, first_of, listed

_MAX_NAMED = 4
_SHOWN_MM = 0.005
"""A smaller change is shown as 0.00 mm."""


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns for each dotted path its last part with spaces, or as many parts as make it unique."""
    return list(map(_in_words, names.short_names(paths).values()))


def _in_words(name: str) -> str:
    return name if "." in name else name.replace("_", " ")


def name_of(table: Results, row: Row) -> str:
    """Returns a combination's name for a sentence, such as 'lr 0.001 with weight decay 0 and dropout 0.5'."""
    settings = [f"{_in_words(name)} {text}" for name, text in table.described[row["key"]].items()]
    if not settings:
        return "the only combination"
    first, *others = settings
    return f"{first} with {listed(others)}" if others else first


def progress(data: PageData) -> str:
    """Says how many trials there are and what their status is."""
    table = data.table
    trials = table.single_folds.trials
    counts = Counter(row["status"] for row in trials)
    folds = f" × {n_folds(table, table.folds)} folds" if table.folds else ""
    size = f"{count(len(table.summary), 'combination')}{folds} × {count(table.n_repetitions, 'repetition')}"
    if table.n_confirming:
        size += f", and {count(table.n_confirming, 'fresh repetition')} of each finalist"
    states = ", ".join(f"{counts[status]:,} {status}" for status in counts)
    running = " It is running now." if data.is_running else ""
    return f"{count(len(trials), 'trial')} ({size}): {states}.{running}"


def findings(data: PageData) -> list[str]:
    """Describes the results on one data set; the first sentence says which combination is best."""
    best = data.table.summary[0]
    table = data.table
    if best[SummaryColumns.of("val").mean] is None:
        trial = "fresh repetition of the best combination" if best[table.chosen_by.n] else "trial"
        return [f"No {trial} has finished, so there is no result yet.", *raced(table)]
    return [
        " ".join(_best(data)),
        *raced(table),
        *_folds(data),
        *distances(table, table.ranked, table.split),
        *versions(table, table.ranked),
        *_choice(data),
        *_against_the_next(data),
    ]


def _best(data: PageData) -> Iterator[str]:
    table, best = data.table, data.table.summary[0]
    split = table.split if best[SummaryColumns.of(table.split).mean] is not None else "val"
    _, mean, std, change, percent = (best[name] for name in SummaryColumns.of(split))
    name = name_of(table, best)
    subject = f"{name} is best:" if len(table.summary) > 1 else "The only combination has"
    share = "" if percent is None else f" ({abs(percent):.1f} %)"
    is_same = abs(change) < _SHOWN_MM
    side = "below" if change < 0 else "above"
    against = "the same as the backbone" if is_same else f"{abs(change):.2f} mm{share} {side} the backbone"
    sentence = f"{subject} {mean_and_std(mean, std)} mm on the {SPLITS[split]}"
    yield f"{sentence}, {against}; n = {best['n']}{_note_on_n(data)}."
    if change > 0 and not is_same:
        yield "The correction makes the poses worse."
    else:
        yield from _worsened(data)


def _worsened(data: PageData) -> Iterator[str]:
    """Names the backbones and the people whose poses get worse although the mean improves."""
    groupings = data.groups.get(data.table.summary[0]["key"], {})
    for by in ("subset", "subject"):
        changes = {group.name: GroupErrors.of(group.before, group.after).change for group in groupings.get(by, ())[1:]}
        worse = [f"{name} ({signed(mm)} mm)" for name, mm in changes.items() if mm is not None and mm > 0]
        if worse:
            yield f"Poses of {by}{'s' * (len(worse) > 1)} {first_of(worse, _MAX_NAMED)} get worse."


def _folds(data: PageData) -> Iterator[str]:
    """Says what the folds are, and how much the best differs between them."""
    table, best = data.table, data.table.summary[0]
    if not table.folds:
        return
    [combined] = over_folds(table, [best])
    yield f"Measured on the {folds_of(table, table.split, [best])}. {combined}"
    means = table.fold_means(column(table.split, "distance"))[best["key"]]
    known = [mean for mean in means if mean is not None]
    if len(known) == len(means):
        std = best[fold_std_column(table.split, "distance")]
        yield (
            f"Its folds’ means range from {min(known):.2f} to {max(known):.2f} mm; their sample standard deviation is "
            f"{std:.2f} mm."
        )


def _note_on_n(data: PageData) -> str:
    comparisons = data.comparisons.values()
    return ", too few for a test" if comparisons and all(comparison.too_few for comparison in comparisons) else ""


def _choice(data: PageData) -> Iterator[str]:
    table, best = data.table, data.table.summary[0]
    # Means over different numbers of repetitions are not compared.
    by = table.chosen_by
    alike = [row for row in table.ranked if row[by.n] == best[by.n]]
    if len(alike) < 2:
        return
    val_columns, test_columns = SummaryColumns.of("val"), SummaryColumns.of("test")
    std = None if table.n_confirming else best[val_columns.std]
    val = f"{mean_and_std(best[by.mean], std)} mm{in_race(table)}"
    sentence = f"It was chosen on the validation set ({val}), where it is the best of {len(alike):,} combinations"
    if table.dropped:
        sentence += " that were trained to the end"
    if len(alike) < sum(row[by.n] > 0 for row in table.summary):
        sentence += f" with {count(best[by.n], 'repetition')}"
    if table.split == "val":
        yield f"{sentence}; there is no test set, so its number is slightly optimistic."
        return
    on_test = [row for row in alike if row[test_columns.mean] is not None]
    lowest = min(on_test, key=lambda row: row[test_columns.mean], default=best)
    yield f"{sentence}; the test set played no part in the choice." + (
        ""
        if lowest is best
        else f" On the test set {name_of(table, lowest)} has the lowest mean,"
        f" {mean_and_std(lowest[test_columns.mean], lowest[test_columns.std])} mm."
    )


def _against_the_next(data: PageData) -> Iterator[str]:
    table = data.table
    following = [row for row in table.ranked[1:] if row["n"] > 0]
    if not following:
        return
    compared = data.comparisons[following[0]["key"]]
    if compared.difference is None:
        return
    name = name_of(table, following[0])
    text = f"The second best in validation, {name}, is {abs(compared.difference):.2f} mm"
    text += f" {'worse' if compared.difference >= 0 else 'better'} on the {SPLITS[table.split]}"
    if compared.interval is not None:
        low, high = sorted((compared.interval.low, compared.interval.high))
        text += f" (difference {signed(compared.difference)} mm, 95 % interval {signed(low)} to {signed(high)}"
        text += f", paired over {count(compared.n, 'repetition')})"
    if compared.p_adjusted is None:
        supposing = "" if compared.interval is None else "; the interval assumes normally distributed differences"
        yield f"{text}: too few repetitions for a significance test{supposing}."
    else:
        verdict = "significant" if compared.is_significant else "not distinguishable from chance"
        yield f"{text}: {verdict} (sign-flip test, p {p_text(compared.p_adjusted)} after Holm correction)."


def on_frames(frames: FrameErrors, n_repetitions: int = 1) -> str:
    """Says by how much frames change on average, with a confidence interval for correlated frames.

    Args:
        frames: Their errors, as means over repetitions.
        n_repetitions: The number of repetitions.
    """
    before, after = frames.means
    n_subsets, n_pieces = len(frames.by_subset), len(frames.runs.lengths)
    means = f", each the mean of {n_subsets} subsets" if n_subsets > 1 else ""
    repeated = f", as means over {n_repetitions} repetitions" if n_repetitions > 1 else ""
    words = f"Mean change over the {count(len(after), 'frame')}{means}{repeated}: {signed((after - before).mean())} mm"
    intervals = intervals_of(frames)
    if intervals is None:
        return f"{words}."
    mm, _, length = intervals
    within = f" within {n_pieces} pieces of recordings" if n_pieces > 1 else ""
    return (
        f"{words}, 95 % interval {signed(mm.low)} to {signed(mm.high)} (block bootstrap with blocks of "
        f"{count(length, 'frame')}{within}, because neighbouring frames are similar)."
    )


def gaps(data: PageData) -> Iterator[str]:
    """Says which trials are missing: those that failed, diverged or have not finished."""
    table = data.table
    trials = table.single_folds.trials
    counts = Counter(row["status"] for row in trials)
    if counts["failed"] or counts["diverged"]:
        lost = sum(row[status] for row in table.summary for status in ("failed", "diverged")) if table.folds else None
        yield f"{excluded(counts, 'fold' if table.folds else 'trial', lost)}; see “Failed and diverged trials”."
    waiting = counts["pending"] + counts["interrupted"]
    if waiting:
        have = "has" if waiting == 1 else "have"
        yield f"{waiting:,} of {count(len(trials), 'trial')} {have} not finished yet."
    incomplete = sum(0 < row[table.chosen_by.n] < table.n_repetitions for row in table.summary)
    if incomplete:
        have, come = ("has", "comes") if incomplete == 1 else ("have", "come")
        yield f"{count(incomplete, 'combination')} {have} fewer repetitions and {come} after the others."
    if table.n_others:
        are = "is" if table.n_others == 1 else "are"
        yield f"{count(table.n_others, 'trial')} with other settings in the folder {are} not shown."


def measured(rows: Sequence[Row], split: str, metric: str, *, before: bool = False) -> list[float]:
    """Returns a metric of the finished trials among some rows."""
    values = (row.get(column(split, metric, before=before)) for row in rows)
    return [value for value in values if value is not None]
