"""The summary of an experiment for a person: in the terminal and as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from cluster.reports.formats.grid import option_texts
from cluster.results.lookup import short_keys
from cluster.results.results import Results, Row, SummaryColumns

SPLIT_NAMES = {"val": "validation", "test": "test"}
SPLITS = {split: f"{name} set" for split, name in SPLIT_NAMES.items()}
_MAX_ROWS = 40
_MAX_FAILURES = 20


def summary_text(table: Results, *, with_keys: bool = False) -> str:
    """Returns the summary for a terminal: the first combinations, and what did not finish.

    Args:
        table: The results.
        with_keys: Whether the beginnings of their keys stand before them.
    """
    keys = short_keys(table) if with_keys else None
    lines = [_title(table), ""]
    lines.append(_grid(table, _rows(table)[:_MAX_ROWS], "simple", keys))
    if len(table.summary) > _MAX_ROWS:
        lines += ["", f"and {len(table.summary) - _MAX_ROWS} more combinations, all in tables/summary.csv"]
    lines += ["", *_notes(table)]
    return "\n".join(lines).rstrip() + "\n"


def summary_markdown(table: Results) -> str:
    """Returns the summary of all combinations as Markdown."""
    return "\n".join([f"# {table.name}", "", _grid(table, _rows(table), "github"), "", *_notes(table)]).rstrip() + "\n"


def mean_and_std(mean: float | None, std: float | None) -> str:
    """Writes a mean in mm with its standard deviation: '9.51 ± 0.06'."""
    if mean is None:
        return "–"
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _title(table: Results) -> str:
    counts = Counter(row["status"] for row in table.trials)
    parts = [f"{counts[status]} {status}" for status in counts]
    trials = "1 trial" if len(table.trials) == 1 else f"{len(table.trials)} trials"
    return f"{table.name}: {trials}, {', '.join(parts)}"


def _rows(table: Results) -> list[Row]:
    """Returns the summary with those together that were measured on the same data."""
    return [row for part in table.by_data().values() for row in part.summary]


def _grid(table: Results, rows: Sequence[Row], style: str, keys: Mapping[str, str] | None = None) -> str:
    paths = table.distinguishing_paths
    headers = [*paths, "n"]
    for split in table.splits:
        headers += [f"{SPLIT_NAMES[split]}:\nbefore", "\nafter", "\nchange"]
    options = [option_texts([row[path] for row in rows]) for path in paths]
    cells = [[*(column[i] for column in options), _n(row), *_results(row, table.splits)] for i, row in enumerate(rows)]
    alignment = [*["left"] * len(paths), *["right"] * (len(headers) - len(paths))]
    if keys is not None:
        headers, alignment = ["key", *headers], ["left", *alignment]
        cells = [[keys[row["key"]], *line] for row, line in zip(rows, cells, strict=True)]
    if style == "github":
        # A line is a row there, and a bar in a value would begin a new column.
        headers = [header.replace("\n", " ").strip() for header in headers]
        cells = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    else:
        headers = [header.replace(".", ".\n") for header in headers]
    return tabulate(cells, headers=headers, tablefmt=style, colalign=alignment, disable_numparse=True)


def _results(row: Row, splits: Sequence[str]) -> list[str]:
    cells = []
    for split in splits:
        before, mean, std, _, change = (row[name] for name in SummaryColumns.of(split))
        cells.append("–" if before is None else f"{before:.2f}")
        cells.append(mean_and_std(mean, std))
        cells.append("–" if change is None else f"{change:+.1f} %")
    return cells


def _n(row: Row) -> str:
    parts = [str(row["n"])]
    parts += [f"{row[status]} {status}" for status in ("failed", "diverged") if row[status]]
    return ", ".join(parts)


def _notes(table: Results) -> list[str]:
    notes = ["Mean distance per joint in mm, mean ± sample standard deviation over n finished repetitions, best in"]
    order = "validation first"
    if len(table.by_data()) > 1:
        order += "; those measured on the same data stand together"
    if any(0 < row["n"] < table.n_repetitions for row in table.summary):
        order += f"; combinations with fewer than {table.n_repetitions} finished repetitions come after the others"
    notes.append(f"{order}." + (" Epochs were chosen on the validation set." if "test" in table.splits else ""))
    if table.n_others:
        notes.append(f"{table.n_others} trials of other settings are kept in trials/ and are not shown.")
    failures = table.failures
    for row in failures[:_MAX_FAILURES]:
        error = str(row["error"] or "").split("\n")[0]
        options = ", ".join(f"{path} = {option_texts([row[path]])[0]}" for path in table.distinguishing_paths)
        notes.append(f"{row['status']}: {row['key']}/{row['repetition']} ({options or 'no options'}): {error}")
    if len(failures) > _MAX_FAILURES:
        n_more = len(failures) - _MAX_FAILURES
        notes.append(f"and {n_more} more that failed or diverged, see `error` in tables/trials.csv")
    return notes
