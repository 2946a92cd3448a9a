"""The logs of trials for the terminal: tables of log points, and learning curves drawn with characters."""

import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from tabulate import tabulate

from cluster.reports.tables.captions import SPLITS
from cluster.reports.tables.summary import mean_and_std
from cluster.results.combination_logs import read_combination_logs
from cluster.results.learning_curves import Curve, Numbers, read_logged
from cluster.results.lookup import find_combination, find_repetition, find_trained, short_keys
from cluster.results.names import NOT_APPLICABLE, setting_of, short_names
from cluster.results.results import Results
from cluster.results.rows import CONFIRMS, Row, SummaryColumns, column
from cluster.storage.trial_file import TrialFile
from data_pipeline.user_error import UserError
from data_pipeline.words import visible

_MAX_CURVES = 6
_MAX_WIDTH = 120
_HEIGHT = 20
_TICKS = 8


def trial_logs(table: Results, wanted: str) -> list[dict[str, Any]]:
    """Returns the logs of the repetitions of a combination, with folds those of each fold.

    Args:
        table: The experiment's results.
        wanted: The beginning of a key of a combination or a fold, or `best`; with `/N` appended, only repetition N.

    Returns:
        For each repetition the id, `status`, `seed`, `options`, `error`, `traceback`, `best_epoch`, the distances in mm
        before and after on each split, and the log points: `epochs`, `loss`, `train_mm`, `val_mm`.

    Raises:
        ChoiceError: If there is no such combination, or no such repetition of it.
    """
    key, slash, repetition = wanted.partition("/")
    rows, table = find_trained(table, key), table.single_folds
    if slash:
        trials = [find_repetition(table, row, repetition) for row in rows]
    else:
        trials = [trial for row in rows for trial in table.repetitions[row["key"]]]
    ids = {f"{trial['key']}/{trial['repetition']}" for trial in trials}
    files = table.files.read_trials(lambda trial: trial, ids.__contains__)
    curves = read_logged(
        table.files, split=table.split, wanted=ids.__contains__, is_metric=lambda name: name == "distance"
    ).curves
    return [
        _log(table, trial, files.get(trial_id, TrialFile()), curves.get(trial_id)) for trial_id, trial in _by_id(trials)
    ]


def logs_text(logs: Sequence[Mapping[str, Any]]) -> str:
    """Returns the result of `trial_logs` as text."""
    return "\n\n".join(map(_log_text, logs))


def curves_text(table: Results, keys: Sequence[str], *, in_colour: bool) -> str:
    """Draws the validation error over the epochs, the mean over repetitions, as text with the width of the terminal.

    Args:
        table: The experiment's results.
        keys: The beginnings of combinations' keys; empty for the best six, or the best on each data set.
        in_colour: Whether curves differ in colour; otherwise they differ in their characters.

    Returns:
        The drawing, with codes for colours; all names in it are `visible`.

    Raises:
        ChoiceError: If there is no such combination.
        UserError: If none of these combinations has logged anything.
    """
    # Imported here, because most commands draw nothing.
    import plotext

    named, short = _named_rows(table, keys), short_keys(table)
    rows = [row for _, row in named]
    curves = read_combination_logs(table.files, table, rows, split=table.split, is_metric=lambda name: False).curves
    plotext.clear_figure()
    plotext.theme("default" if in_colour else "clear")
    plotext.canvas_color("default")
    plotext.axes_color("default")
    plotext.ticks_color("default")
    plotext.plotsize(_width(), _HEIGHT)
    legend: list[str] = []
    last = 0.0
    for name, row in named:
        own = [curves[i] for i in _ids_to_draw(table, row) if i in curves]
        epochs, mean = _mean(own)
        if len(epochs):
            look = len(legend) % len(_MARKERS)
            marker = "braille" if in_colour else _MARKERS[look]
            plotext.plot(epochs.tolist(), mean.tolist(), marker=marker, color=_COLOURS[look] if in_colour else None)
            sign = plotext.colorize("██", _COLOURS[look]) if in_colour else marker * 2
            dropped = ", dropped by the race" if row["key"] in table.dropped else ""
            legend.append(f"{sign} {short[row['key']]}  {visible(name)} (n = {len(own)}{dropped})")
            last = max(last, float(epochs[-1]))
    if not legend:
        if table.folds:
            raise UserError(f"no repetition of these combinations of {table.name} has logged anything on all folds yet")
        raise UserError(f"no trial of these combinations of {table.name} has logged anything yet")
    plotext.xlim(0, last)
    ticks = _ticks(last)
    plotext.xticks(ticks, [f"{tick:g}" for tick in ticks])
    plotext.title(f"{visible(table.name)}: validation error (mm) over epochs, mean over repetitions")
    drawing = str(plotext.build())
    # The legend is below the plot, because inside it would hide the first epochs.
    return "\n".join([(drawing if in_colour else str(plotext.uncolorize(drawing))).rstrip("\n"), *legend])


def _ids_to_draw(table: Results, row: Row) -> list[str]:
    """Returns the ids of a combination's finished trials; if it has no result yet, of all that have not failed."""
    if row["n"]:
        trials = [trial for trial in table.counted[row["key"]] if trial["status"] == "finished"]
    else:
        trials = [trial for trial in table.repetitions[row["key"]] if trial["status"] not in ("failed", "diverged")]
    return [f"{trial['key']}/{trial['repetition']}" for trial in trials]


_MARKERS = "x*+o.#"
_COLOURS = ("blue", "orange", "green", "red", "magenta", "cyan")


def _log(table: Results, trial: Row, file: TrialFile, curve: Curve | None) -> dict[str, Any]:
    numbers = {} if curve is None else {name: _json_numbers(values) for name, values in curve._asdict().items()}
    return {
        "trial": f"{trial['key']}/{trial['repetition']}",
        **{name: trial[name] for name in ("status", "seed", "best_epoch", "train_seconds", "device", "node")},
        "role": trial.get("role"),
        "options": {path: trial[path] for path in table.option_paths},
        "error": trial["error"],
        "traceback": file.traceback,
        "distance_mm": {
            split: [trial[column(split, "distance", before=True)], trial[column(split, "distance")]]
            for split in table.splits
        },
        "curve": numbers,
    }


def _log_text(log: Mapping[str, Any]) -> str:
    names = short_names(list(log["options"]))
    # Next to the settings, their label is named as such.
    full = {path: names[path] + path.removeprefix(setting_of(path)) for path in names}
    applied = {path: value for path, value in log["options"].items() if value != NOT_APPLICABLE}
    options = ", ".join(f"{full[path]} = {value}" for path, value in applied.items()) or "no options"
    seconds = (
        "" if log["train_seconds"] is None else f", {log['train_seconds']:.1f} s on {log['device']} of {log['node']}"
    )
    fresh = ", a fresh repetition" if log["role"] == CONFIRMS else ""
    head = f"{log['trial']}: {log['status']} ({options}), seed {log['seed']}{fresh}{seconds}"
    lines = textwrap.wrap(head, _width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    curve = log["curve"]
    if curve:
        rows = [
            [f"{epoch:.4g}", *(_cell(curve[name][i], digits) for name, digits in _COLUMNS.items())]
            for i, epoch in enumerate(curve["epochs"])
        ]
        headers = ["epoch", "training loss", "training (mm)", "validation (mm)"]
        lines += ["", tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=["right"] * 4)]
    for split, (before, after) in log["distance_mm"].items():
        if after is not None:
            text = f"{SPLITS[split]}: {before:.3f} mm before, {after:.3f} mm after, with the weights of epoch"
            lines += ["", f"{text} {log['best_epoch']}"]
    if log["error"]:
        lines += ["", log["traceback"] or log["error"]]
    return "\n".join(lines).rstrip()


_COLUMNS = {"loss": 5, "train_mm": 3, "val_mm": 3}


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _json_numbers(values: Numbers) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _by_id(trials: Sequence[Row]) -> list[tuple[str, Row]]:
    return [(f"{trial['key']}/{trial['repetition']}", trial) for trial in trials]


def _mean(curves: Sequence[Curve]) -> tuple[Numbers, Numbers]:
    """Returns epochs and mean validation error, mm, of the log points that all curves have."""
    if not curves:
        return np.empty(0), np.empty(0)
    epochs = reduce(np.intersect1d, [curve.epochs for curve in curves])  # (L,)
    shared = [curve.val_mm[np.isin(curve.epochs, epochs)] for curve in curves]
    return epochs, np.mean(shared, axis=0)  # (repetitions, L) -> (L,)


def _named_rows(table: Results, keys: Sequence[str]) -> list[tuple[str, Row]]:
    """Returns the combinations to draw, with their names."""
    if keys:
        return [(_name(table, row), row) for row in (find_combination(table, key) for key in keys)]
    parts = table.by_data()
    if len(parts) > 1:
        best = [(f"{data}: {_name(part, part.summary[0])}", part.summary[0]) for data, part in parts.items()]
        return best[:_MAX_CURVES]
    return [(_name(table, row), row) for row in (table.ranked or table.summary)[:_MAX_CURVES]]


def _ticks(last: float) -> list[float]:
    """Returns at most nine ticks, round numbers from 0 on, and the last epoch."""
    power = 10 ** max(0, math.floor(math.log10(max(last, 1) / _TICKS)))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= last)
    ticks = [float(tick) for tick in range(0, math.ceil(last), step) if last - tick >= step / 2]
    return [*ticks, last]


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _MAX_WIDTH)


def _name(table: Results, row: Row) -> str:
    options = ", ".join(f"{name} {text}" for name, text in table.described[row["key"]].items()) or row["key"]
    columns = SummaryColumns.of("val")
    return f"{options}: {mean_and_std(row[columns.mean], row[columns.std])}"
