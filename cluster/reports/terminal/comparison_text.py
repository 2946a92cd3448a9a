"""Comparisons as text for the terminal and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from cluster.reports.formats.grid import Cell, Grid, p_text
from cluster.reports.formats.terminal import terminal_table, terminal_width
from cluster.reports.tables.captions import SPLITS
from cluster.reports.tables.summary import mean_and_std
from cluster.reports.terminal.comparison import CombinationComparison, ExperimentComparison
from cluster.results.names import option_texts, short_names
from cluster.results.rows import Row, SummaryColumns
from cluster.results.statistics import MIN_REPETITIONS, Comparison, repetitions_needed
from data_pipeline.words import count

_MAX_PAIRS = 40
_ADJUSTED = ", Holm-adjusted over all pairs"


def experiments_text(found: ExperimentComparison) -> str:
    """Returns two experiments' differences and their paired results as text."""
    first, second = found.names
    parts = [_differences(found.differences, found.names, "The two have the same settings.")]
    if found.pairs:
        paths, unlike = list(found.pairs[0].options), list(found.pairs[0].unlike)
        names = short_names([*paths, *unlike]).values()
        headers = [*names, "n", first, second, "difference (mm)", "p (Holm)"]
        options = [option_texts([pair.options[path] for pair in found.pairs]) for path in paths]
        rows = [
            [
                *(Cell(texts[place]) for texts in options),
                *(Cell(" → ".join(map(_short, both))) for both in pair.unlike.values()),
                Cell("–" if pair.comparison is None else str(pair.comparison.n), is_number=True),
                Cell(_result(pair.first, found.split), is_number=True),
                Cell(_result(pair.second, found.split), is_number=True),
                *map(Cell, comparison_cells(pair.comparison), (True, False)),
            ]
            for place, pair in enumerate(found.pairs[:_MAX_PAIRS])
        ]
        parts.append(terminal_table(Grid("", "", headers, rows, len(paths)), terminal_width()))
        if len(found.pairs) > _MAX_PAIRS:
            parts.append(f"and {count(len(found.pairs) - _MAX_PAIRS, 'more pair')}; --json has all")
        comparisons = [pair.comparison for pair in found.pairs]
        parts.append(_explanation(comparisons, found.n_tests, found.split, second, first, _ADJUSTED))
    else:
        parts.append("No combination of one has a counterpart in the other.")
    left = [f"{n} of {name}" for n, name in zip(found.unpaired, found.names, strict=True) if n]
    if left:
        parts.append(f"Without a counterpart: {' and '.join(left)}.")
    parts += found.raced
    return "\n\n".join(parts)


def combinations_text(found: CombinationComparison) -> str:
    """Returns two combinations' differences and their paired result as text."""
    keys = (found.rows[0]["key"], found.rows[1]["key"])
    results = [[key, str(row["n"]), _result(row, found.split)] for key, row in zip(keys, found.rows, strict=True)]
    parts = [
        _differences(found.differences, keys, "The two have the same settings."),
        tabulate(results, ["combination", "n", f"{SPLITS[found.split]} (mm)"], disable_numparse=True),
    ]
    if found.dropped:
        parts.append(f"Their results are not compared: the race dropped {' and '.join(found.dropped)}.")
    elif found.comparison is None:
        parts.append("Their results are not compared: they may have been measured on different data.")
    elif found.comparison.difference is None:
        parts.append("Their results are not compared: no repetition has finished in both.")
    else:
        difference, p_value = comparison_cells(found.comparison)
        parts.append(f"{keys[1]} minus {keys[0]}: {difference} mm, p: {p_value}")
        parts.append(_explanation([found.comparison], 1, found.split, keys[1], keys[0], ""))
    parts += found.confirmed
    return "\n\n".join(parts)


def experiments_json(found: ExperimentComparison) -> dict[str, Any]:
    """Returns a comparison of experiments for a script."""
    return {
        "experiments": list(found.names),
        "split": found.split,
        "differences": _differences_json(found.differences),
        "pairs": [
            {
                "options": dict(pair.options),
                "unlike": {path: list(both) for path, both in pair.unlike.items()},
                "first": pair.first,
                "second": pair.second,
                "comparison": _comparison_json(pair.comparison),
            }
            for pair in found.pairs
        ],
        "unpaired": list(found.unpaired),
        "raced": list(found.raced),
    }


def combinations_json(found: CombinationComparison) -> dict[str, Any]:
    """Returns a comparison of combinations for a script."""
    return {
        "combinations": list(found.rows),
        "split": found.split,
        "differences": _differences_json(found.differences),
        "comparison": _comparison_json(found.comparison),
        "confirmed": list(found.confirmed),
    }


def comparison_cells(comparison: Comparison | None) -> tuple[str, str]:
    """Returns the difference with its interval, and the adjusted p-value, with a star if it is significant."""
    if comparison is None or comparison.difference is None:
        return "–", "–"
    interval = comparison.interval
    difference = f"{comparison.difference:+.2f}"
    if interval is not None:
        difference += f" [{interval.low:+.2f}, {interval.high:+.2f}]"
    if comparison.p_adjusted is None:
        return difference, "too few"
    return difference, p_text(comparison.p_adjusted).removeprefix("= ") + (" *" if comparison.is_significant else "")


def _explanation(
    comparisons: Sequence[Comparison | None], n_tests: int, split: str, second: str, first: str, p_of: str
) -> str:
    lines = [
        f"Mean distance on the {SPLITS[split]}, mm. A difference is {second} minus {first}, paired by the",
        "repetitions' seeds; its 95 % interval is for this comparison only. Repetitions without a counterpart are in",
        "the means, but not in the difference.",
    ]
    known = [comparison for comparison in comparisons if comparison is not None]
    is_tested = any(not comparison.too_few for comparison in known)
    if any(comparison.too_few for comparison in known):
        n_needed = MIN_REPETITIONS if is_tested else repetitions_needed(n_tests)
        tests = "a test" if n_needed == MIN_REPETITIONS else f"{n_tests:,} tests"
        lines.append(f"Fewer than {n_needed} repetitions in both are too few for {tests}.")
    if is_tested:
        lines.append(f"p: sign-flip permutation test{p_of}; *: p ≤ 0.05.")
    if len(known) < len(comparisons):
        lines.append("– instead of a difference: possibly measured on different data, trained with different seeds, or")
        lines.append("dropped by a race.")
    return "\n".join(lines)


def _differences(differences: Mapping[str, tuple[str, str]], names: Sequence[str], none: str) -> str:
    if not differences:
        return none
    rows = [[path, *map(_short, both)] for path, both in differences.items()]
    return tabulate(rows, ["setting", *names], tablefmt="simple", disable_numparse=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:40]} … {line[-17:]}"


def _result(row: Row, split: str) -> str:
    columns = SummaryColumns.of(split)
    return mean_and_std(row[columns.mean], row[columns.std])


def _differences_json(differences: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    return {path: list(both) for path, both in differences.items()}


def _comparison_json(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    interval = comparison.interval
    return {
        "n": comparison.n,
        "difference_mm": comparison.difference,
        "low_mm": None if interval is None else interval.low,
        "high_mm": None if interval is None else interval.high,
        "p_value": comparison.p_value,
        "p_adjusted": comparison.p_adjusted,
        "is_significant": comparison.is_significant,
    }
