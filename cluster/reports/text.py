"""The summary of an experiment for a person: in the terminal and as Markdown."""

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from cluster.reports.grid import option_texts
from cluster.results import Results, Row

_SPLIT_NAMES = {"val": "validation", "test": "test"}
_MAX_ROWS = 40
_MAX_FAILURES = 20


def summary_text(table: Results, *, max_rows: int = _MAX_ROWS) -> str:
    """Returns the summary for a terminal: at most `max_rows` combinations, and what did not finish."""
    lines = [_title(table), ""]
    lines.append(_grid(table, table.summary[:max_rows], "simple"))
    if len(table.summary) > max_rows:
        lines += ["", f"and {len(table.summary) - max_rows} more combinations, all in tables/summary.csv"]
    lines += ["", *_notes(table)]
    return "\n".join(lines).rstrip() + "\n"


def summary_markdown(table: Results) -> str:
    """Returns the summary of all combinations as Markdown."""
    return "\n".join([f"# {table.name}", "", _grid(table, table.summary, "github"), "", *_notes(table)]).rstrip() + "\n"


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


def _grid(table: Results, rows: Sequence[Row], style: str) -> str:
    paths = table.telling_paths
    headers = [*paths, "n"]
    for split in table.splits:
        headers += [f"{_SPLIT_NAMES[split]}:\nbefore", "\nafter", "\nchange"]
    options = [option_texts([row[path] for row in rows]) for path in paths]
    cells = [[*(column[i] for column in options), _n(row), *_results(row, table.splits)] for i, row in enumerate(rows)]
    alignment = [*["left"] * len(paths), *["right"] * (len(headers) - len(paths))]
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
        before, change = row[f"{split}_distance_before_mm"], row[f"{split}_change_percent"]
        cells.append("–" if before is None else f"{before:.2f}")
        cells.append(mean_and_std(row[f"{split}_distance_mm_mean"], row[f"{split}_distance_mm_std"]))
        cells.append("–" if change is None else f"{change:+.1f} %")
    return cells


def _n(row: Row) -> str:
    parts = [str(row["n"])]
    parts += [f"{row[status]} {status}" for status in ("failed", "diverged") if row[status]]
    return ", ".join(parts)


def _notes(table: Results) -> list[str]:
    notes = ["Mean distance per joint in mm, mean ± sample standard deviation over n finished repetitions, best in"]
    order = "validation first"
    if any(0 < row["n"] < table.n_repetitions for row in table.summary):
        order += f"; combinations with fewer than {table.n_repetitions} finished repetitions come after the others"
    notes.append(f"{order}." + (" Epochs were chosen on the validation set." if "test" in table.splits else ""))
    if table.n_others:
        notes.append(f"{table.n_others} trials of other settings are kept in trials/ and are not shown.")
    failures = table.failures
    for row in failures[:_MAX_FAILURES]:
        error = str(row["error"] or "").split("\n")[0]
        options = ", ".join(f"{path} = {option_texts([row[path]])[0]}" for path in table.telling_paths)
        notes.append(f"{row['status']}: {row['key']}/{row['repetition']} ({options or 'no options'}): {error}")
    if len(failures) > _MAX_FAILURES:
        n_more = len(failures) - _MAX_FAILURES
        notes.append(f"and {n_more} more that failed or diverged, see `error` in tables/trials.csv")
    return notes
