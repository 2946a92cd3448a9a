"""The sections on the choice of the best combination: how certain it is, its test regret, and the epochs it took."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cluster.reports.formats.grid import Cell, Grid
from cluster.reports.formats.html import Markup, tag
from cluster.reports.formats.html_table import html_table
from cluster.reports.page.charts import Axis, Chart, figure, key, within_fence
from cluster.reports.page.data import PageData, trial_id
from cluster.reports.page.sections import scrolling, section_of
from cluster.reports.page.sentences import name_of
from cluster.reports.tables.first_rung import at_first_rung
from cluster.results.choice.best_so_far import best_in_order, best_in_random_order
from cluster.results.choice.ranks import ValidationAndTest
from cluster.results.choice.seeds import MAX_REPETITIONS, repetitions_to_separate, variances
from cluster.results.results import Results
from cluster.results.rows import CONFIRMS, Row, SummaryColumns, column
from cluster.results.statistics import Array
from cluster.storage.trial_file import FINAL
from data_pipeline.words import count

_MIN_COMBINATIONS = 6
"""With fewer combinations, shares of variance and charts would say nothing."""

_MIN_FINALISTS = 3
"""A race may have no more; with fewer, ranks would say nothing."""

_MIN_HALVED = 20
"""With fewer combinations, the better half is too small to be shown separately."""

_CAUSES = "Results differ because combinations have different options, and repetitions have different seeds."

_N_LISTED = 5
_BAND = (0.05, 0.5, 0.95)


def choice(data: PageData) -> Iterator[Markup]:
    """Yields the sections that can be computed.

    A race does not drop combinations at random, so the remaining ones show neither the shares of the variance, which
    come from its first rung, nor what a search of the grid would have found.
    """
    complete = _complete(data, data.table.ranked, "val")
    if len(complete) < 2:
        return
    yield section_of(data, "seeds", "Options or chance", *(tag("p", text) for text in _seeds(data, complete)))
    with_test = _complete(data, complete, "test") if data.table.split == "test" else []
    if len(with_test) >= (_MIN_FINALISTS if data.table.decisions else _MIN_COMBINATIONS):
        yield section_of(data, "ranks", "Validation and test", *_ranks(data, with_test))
    rows = _ended(data) if _is_search(data) else complete
    epochs = np.array([_epochs(data, row) for row in rows])
    if len(rows) < _MIN_COMBINATIONS or not np.isfinite(epochs).all() or not epochs.any():
        return
    if _is_search(data):
        yield section_of(data, "cost", "How soon the search found the best", *_found(data, rows, complete, epochs))
    elif not data.table.decisions:  # the section on a race shows its cost
        yield section_of(data, "cost", "What a search could save", *_cost(data, rows, epochs))


def _complete(data: PageData, rows: list[Row], split: str) -> list[Row]:
    """Returns the combinations whose repetitions all have a result."""
    values = data.table.values(column(split, "distance"))
    return [
        row
        for row in rows
        if data.table.is_complete(row) and all(mm is not None and math.isfinite(mm) for mm in values[row["key"]])
    ]


def _ended(data: PageData) -> list[Row]:
    """Returns the combinations that a race has dropped, and those whose trials have all finished or diverged."""
    table = data.table
    statuses = {key: {trial["status"] for trial in trials} for key, trials in table.repetitions.items()}
    return [row for row in table.summary if row["key"] in table.dropped or statuses[row["key"]] <= set(FINAL)]


def _combinations(data: PageData, rows: list[Row]) -> str:
    limited = ""
    if len(rows) < len(data.table.summary):
        is_race = data.table.dropped and len(rows) == len(data.table.ranked)
        limited = " that were trained to the end" if is_race else " that finished all repetitions"
    return f"{count(len(rows), 'combination')}{limited}"


def _seeds(data: PageData, rows: list[Row]) -> Iterator[str]:
    table = data.table
    if table.dropped:
        yield from _seeds_at_first_rung(table)
    if table.n_counted == 1:
        once = "has only one fresh repetition" if table.n_confirming else "was trained only once"
        yield (
            f"Each combination {once}, so it is not known how much of their differences comes from the "
            "options and how much from the seeds, or how many repetitions it would take to separate the best two. "
            "Three repetitions (n_repetitions = 3) give a first idea; finished trials are not trained again."
        )
        return
    values = table.values(column("val", "distance"))
    results = np.array([values[row["key"]] for row in rows], dtype=np.float64)  # (C, R)
    n = len(results)
    if n >= _MIN_COMBINATIONS and not table.dropped:
        shares = [_shares(results, f"Over all {_combinations(data, rows)}")]
        if n >= _MIN_HALVED:
            shares.append(_shares(results[: n // 2], f"Over the better half of them ({n // 2:,})"))
        yield " ".join([_CAUSES, *shares])
        yield _scatter(results)
    yield _separation(data, rows, results)


def _seeds_at_first_rung(table: Results) -> Iterator[str]:
    rung = at_first_rung(table)
    if rung is None or rung.results.n_repetitions < 2:
        return
    of_each = [of_one for of_one in rung.results.values(column("val", "distance")).values() if None not in of_one]
    results = np.array(of_each, dtype=np.float64)  # (C, R)
    if len(results) < _MIN_COMBINATIONS:
        return
    n_diverged = sum(row["diverged"] > 0 for row in rung.results.summary)
    without = f", without the {n_diverged:,} that diverged" if n_diverged else ""
    yield f"{_CAUSES} {_shares(results, rung.at[0].upper() + rung.at[1:] + without)}"
    yield _scatter(results)


def _shares(results: Array, where: str) -> str:
    share = variances(results).share_of_options
    if share is None:
        return f"{where}, all results are equal."
    return (
        f"{where}, {_percent(share)} of the variance of validation errors comes from the options and "
        f"{_percent(1 - share)} from the seeds."
    )


def _percent(share: float) -> str:
    # With a decimal, so that a small share is not 0 %.
    return f"{100 * share:.{0 if 0.01 <= share <= 0.99 else 1}f} %"


def _scatter(results: Array) -> str:
    found = variances(results)
    of_all, of_own = (f"{math.sqrt(variance):.2f}" for variance in (found.seeds, found.own))
    words = f"Trainings that differ only in their seed vary by {of_all} mm (standard deviation)"
    return f"{words}." if of_all == of_own else f"{words}, and by {of_own} mm if they are compared within a repetition."


def _separation(data: PageData, rows: list[Row], results: Array) -> str:
    differences = results[1] - results[0]  # (R,)
    n, n_done = repetitions_to_separate(differences.tolist()), len(differences)
    words = (
        f"The best two in validation, {name_of(data.table, rows[0])} and {name_of(data.table, rows[1])}, differ by "
        f"{abs(differences.mean()):.3f} mm on average over {n_done} repetitions; the difference has a standard "
        f"deviation of {differences.std(ddof=1):.3f} mm between repetitions."
    )
    if n is None:
        return (
            f"{words} If this is their true difference, a test would need more than {MAX_REPETITIONS} repetitions to "
            "separate them: treat them as equally good."
        )
    needed = f"{words} If this is their true difference, a paired t test would need about {n} repetitions"
    if n <= n_done:
        needed += f" (there are {n_done})"
    needed += " to separate them with a power of 80 % (two-sided, 5 % level"
    if data.n_needed is not None and max(n, n_done) < data.n_needed:
        needed += f"; the test in this report needs {data.n_needed} repetitions"
    chosen = ", and the best was chosen because its errors are low, partly by chance"
    return (
        f"{needed}). This is a rough estimate: {n_done} repetitions show the spread only roughly"
        f"{'' if data.table.n_confirming else chosen}."
    )


def _ranks(data: PageData, rows: list[Row]) -> Iterator[Markup]:
    table = data.table
    # Fresh repetitions would order finalists differently from those that chose the best.
    means = table.chosen_by.mean, SummaryColumns.of("test").mean
    val, test = (np.array([row[mean] for row in rows], dtype=np.float64) for mean in means)  # (N,) each
    found = ValidationAndTest(val, test)
    ranks, n, best = found.test_ranks, len(rows), found.best_in_test
    named, first = _combinations(data, rows), name_of(table, rows[0])
    if best == 0:
        words = f"In validation, the best of {named} is {first}. It also has the lowest error on the test set."
    else:
        words = (
            f"In validation, the best of {named} is {first}. On the test set it has rank {ranks[0]:g}; there, "
            f"{name_of(table, rows[best])} has the lowest error, {found.gap_mm:.2f} mm lower. Part of this gap is "
            f"chance: the lowest of {n:,} numbers is low partly by chance."
        )
    yield tag("p", words)
    yield tag(
        "p",
        "Do not choose by the test set: the test error of a combination that was chosen by it is too low, and no "
        "unbiased error would be left.",
    )
    shown = np.arange(n if n < _MIN_HALVED else n // 2)
    chart = Chart(
        Axis.around("validation set, mm", val[shown]), Axis.around("test set, mm", test[np.append(shown, best)])
    )
    drawn = [chart.dots(val[shown], test[shown], "dots")]
    if best in shown:
        drawn.append(chart.mark(val[best], test[best], "before"))
    drawn.append(chart.mark(val[0], test[0], "after"))
    which = f"the {named}" if len(shown) == n else "the better half of the combinations in validation"
    correlations = [_correlation(found, "all")] + ([_correlation(found.first(len(shown)), "these")] * (len(shown) < n))
    yield figure(
        chart.drawn(f"Test error against validation error of {len(shown):,} combinations.", *drawn),
        f"Mean errors of {which}: ",
        key("after", "best in validation"),
        ", ",
        key("before", "best on the test set"),
        f". Rank correlation of validation and test: {', '.join(correlations)}.",
    )
    listed = [
        [
            *(Cell(text, is_number=True) for text in (f"{i + 1}", f"{ranks[i]:g}", f"{val[i]:.2f}", f"{test[i]:.2f}")),
            Cell(name_of(table, rows[i])),
        ]
        for i in range(min(n, _N_LISTED))
    ]
    headers = ["rank", "rank on the test set", "validation, mm", "test, mm", "combination"]
    grid = Grid("ranks", "The best in validation, and their ranks on the test set.", headers, listed, n_labels=1)
    yield scrolling(html_table(grid), "Ranks in validation and test")


def _correlation(found: ValidationAndTest, of: str) -> str:
    known = found.correlation
    return f"{'unknown' if known is None else f'{known:.2f}'.replace('-', '−')} over {of} ({len(found.val_mm):,})"


def _epochs(data: PageData, row: Row) -> float:
    """Returns the epochs of a combination, summed over its repetitions and folds; NaN if they are not known.

    A combination that a race dropped has not begun all of its repetitions, and one that diverged at once has logged
    nothing. Fresh repetitions found nothing. Of folds, the curve ends with the first that diverged.
    """
    table, ends = data.table, []
    for trial in table.repetitions[row["key"]]:
        curve, has_diverged = data.logged.curves.get(trial_id(trial)), trial["status"] == "diverged"
        if trial.get("role") == CONFIRMS:
            continue
        if has_diverged and table.folds:
            ends.append(math.nan)
        elif curve is not None and len(curve.epochs):
            ends.append(float(curve.epochs[-1]))
        elif row["key"] not in table.dropped and not has_diverged:
            ends.append(math.nan)
    return len(table.trained_keys(row["key"])) * math.fsum(ends)


def _is_search(data: PageData) -> bool:
    """Returns whether a search proposed the combinations."""
    return data.experiment.configs.get("experiment_config", {}).get("search") is not None


def _in_plan(data: PageData, rows: list[Row]) -> npt.NDArray[np.intp]:
    """Returns the places of rows in the order of the plan, (N,): for a search, that of its proposals."""
    planned = {trial["key"]: place for place, trial in enumerate(data.table.trials[: len(data.table.summary)])}
    return np.array([planned[row["key"]] for row in rows])


def _found(data: PageData, rows: list[Row], complete: list[Row], epochs: Array) -> Iterator[Markup]:
    places, known = _in_plan(data, rows), {row["key"] for row in complete}
    order = np.argsort(places)
    means = [row[data.table.chosen_by.mean] if row["key"] in known else math.inf for row in rows]
    errors, every_spent = np.array(means, dtype=np.float64)[order], np.cumsum(epochs[order])  # (N,) each
    n, total, found = len(errors), every_spent[-1], int(errors.argmin())
    half = best_in_order(errors)[(n + 1) // 2 - 1] - errors[found]
    same = "the same" if half == 0 else "less than 0.01 mm worse"
    worse = same if half < 0.01 else f"{half:.2f} mm worse" if math.isfinite(half) else "not known yet"
    n_all = len(data.table.summary)
    which = "The" if n == n_all else f"{n:,} of {n_all:,} combinations have ended. These"
    yield tag(
        "p",
        f"{which} {n:,} combinations of the search took {total:,.0f} epochs. The best one was proposed as number "
        f"{places[order[found]] + 1:,}: the search had found it after "
        f"{100 * every_spent[found] / total:.0f} % of the epochs. After half of the combinations, the best so far was "
        f"{worse}.",
    )
    is_known = np.isfinite(errors)  # (N,)
    errors, spent = errors[is_known], every_spent[is_known]  # (n,) each
    so_far, shown = best_in_order(errors), within_fence(errors)
    chart = Chart(Axis("epochs", 0, total), Axis.around("validation error, mm", shown))
    edge = " Errors above the chart are drawn at its edge." if (errors > shown).any() else ""
    kept = "" if is_known.all() else " that finished all repetitions"
    yield figure(
        chart.drawn(
            f"Best validation error against epochs, from {so_far[0]:.2f} to {so_far[-1]:.2f} mm.",
            chart.dots(spent, shown, "dots"),
            chart.stairs(spent, so_far, "line validation"),
        ),
        "Validation errors in the order of the proposals, against the epochs trained so far in all repetitions. Dots "
        f"are combinations{kept}; ",
        key("validation", "the best so far"),
        f".{edge}",
    )


def _cost(data: PageData, rows: list[Row], epochs: Array) -> Iterator[Markup]:
    order = np.argsort(_in_plan(data, rows))
    errors = np.array([row[data.table.chosen_by.mean] for row in rows], dtype=np.float64)  # (N,), ascending
    in_plan, spent = best_in_order(errors[order]), np.cumsum(epochs[order])  # (N,) each
    low, middle, high = best_in_random_order(errors, _BAND)  # (N,) each
    n, total = len(errors), spent[-1]
    mean_spent = np.arange(1, n + 1) * total / n  # (N,)
    found = int(np.argmax(in_plan <= errors[0])) + 1
    n_quarter = max(1, n // 4)
    half, most = (f"{quantile[n_quarter - 1] - errors[0]:.2f}" for quantile in (middle, high))
    yield tag(
        "p",
        f"All {_combinations(data, rows)} took {total:,.0f} epochs. In the order of the plan, the best one was number "
        f"{found:,}, after {100 * spent[found - 1] / total:.0f} % of the epochs. If only a random quarter of them "
        f"({n_quarter:,}) is trained, its best is within {half} mm of the best of all in half of the cases, and within "
        f"{most} mm in 95 % of them.",
    )
    # Errors of hopeless combinations would flatten the rest.
    chart = Chart(Axis("epochs", 0, total), Axis.around("best validation error so far, mm", errors[: 1 + 3 * n // 4]))
    yield figure(
        chart.drawn(
            f"Best validation error against epochs, from {in_plan[0]:.2f} to {errors[0]:.2f} mm.",
            chart.band_of_stairs(mean_spent, low, high, "band validation"),
            chart.stairs(mean_spent, middle, "line validation"),
            chart.stairs(spent, in_plan, "line planned"),
        ),
        "The best validation error so far against the epochs trained in all repetitions: ",
        key("planned", "in the order of the plan"),
        ", ",
        key("validation", "median over all random orders of the same combinations"),
        "; the band covers 90 % of these orders. A random search of this grid follows the band. Errors above the chart "
        "are drawn at its edge.",
    )
