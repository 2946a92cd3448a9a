"""Draws the figures of an experiment: reads their data from its folder and passes them to `figures/`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.figures import curves, errors, frames, hands, options
from cluster.figures.style import COLUMN_IN, FigureError, Numbers
from cluster.reports.prediction_files import errors_of, read_errors, sets_of_errors, sets_of_predictions
from cluster.reports.tables.captions import SPLIT_NAMES
from cluster.results.combination_logs import read_combination_logs
from cluster.results.deserialize import decode_skeleton
from cluster.results.experiment_description import DataSet, setting_of
from cluster.results.lookup import find_combination
from cluster.results.names import named
from cluster.results.results import Results
from cluster.results.rows import Row
from cluster.storage.examples import FollowedExamples
from cluster.storage.folders import ExperimentFolder
from cluster.storage.frame_errors import FrameErrors
from data_pipeline.frame_table import in_order
from data_pipeline.skeleton import Skeleton
from data_pipeline.words import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_N_CURVES = 4
_NARROWEST_IN, _WIDEST_IN = 2, 40


@dataclass(frozen=True)
class FigureOptions:
    """What to draw.

    Attributes:
        combinations: The beginnings of combinations' keys. Empty means the best one, or for learning curves the best
            four. If combinations were measured on different data, curves show the best on each; any other figure
            needs one combination, which selects the data.
        option: For the error by option: the option of the axis; None for the first one with numbers.
        lines: For the error by option: the option with a line for each of its values; None for one line.
        rows: For a heat map: the option of the rows; None for the first.
        columns: For a heat map: the option of the columns; None for the second.
        others: For success rates: other methods by label, each a file of errors in mm, one number per frame, or with
            `labels` a file of predictions.
        labels: The true poses for these predictions.
        format: The format of both, a name that `predict.py` knows; None to detect it.
        measure: For success rates: which errors they count.
        sequences: For errors over time: the names of the sequences; empty for the first ones.
        n_examples: For hands: the largest number of examples.
        n_log_points: For hands: the largest number of log points.
        force: Accept files of poses that seem to be in another unit.
        width_in: The figure's width, inches.
    """

    combinations: Sequence[str] = ()
    option: str | None = None
    lines: str | None = None
    rows: str | None = None
    columns: str | None = None
    others: Sequence[tuple[str, Path]] = ()
    labels: Path | None = None
    format: str | None = None
    measure: curves.Measure = "worst"
    sequences: Sequence[str] = ()
    n_examples: int = 3
    n_log_points: int = 3
    force: bool = False
    width_in: float = COLUMN_IN


def draw(figure: str, table: Results, figure_options: FigureOptions) -> "Figure":
    """Draws one of `FIGURES` of an experiment's results.

    Raises:
        ChoiceError: If there is no such combination or option.
        FigureError: If there is nothing to draw, if there is too much for a figure, or if its width is not allowed.
    """
    if not _NARROWEST_IN <= figure_options.width_in <= _WIDEST_IN:
        raise FigureError(f"a figure is {_NARROWEST_IN} to {_WIDEST_IN} inches wide, not {figure_options.width_in:g}")
    return FIGURES[figure](figure_options, table)


def finished_ids(table: Results, row: Row) -> list[str]:
    """Returns the ids, 'KEY/REPETITION', of a combination's finished repetitions that count, in their order."""
    trials = table.counted[row["key"]]
    return [f"{trial['key']}/{trial['repetition']}" for trial in trials if trial["status"] == "finished"]


def combination_name(table: Results, row: Row) -> str:
    """Returns a combination's options in a few words."""
    return ", ".join(f"{name} {text}" for name, text in table.described[row["key"]].items()) or table.name


def success_rates_of(
    folder: ExperimentFolder, table: Results, row: Row, measure: curves.Measure
) -> tuple[list[Numbers], list[Numbers]]:
    """Returns a combination's success rates before and after, (81,) each, a pair for each repetition that has them."""
    names = [f"success_{measure}@{mm:.0f}" for mm in curves.THRESHOLDS_MM]
    wanted = {f"{name}{suffix}" for name in names for suffix in ("", "_before")}
    found = read_combination_logs(folder, table, [row], split=table.split, is_metric=wanted.__contains__)
    places = {metric: place for place, metric in enumerate(found.metrics)}
    if not wanted <= places.keys():
        return [], []
    before, after = ([places[f"{name}{suffix}"] for name in names] for suffix in ("_before", ""))
    finals = [found.final[trial_id] for trial_id in finished_ids(table, row) if trial_id in found.final]
    return [final[before] for final in finals], [final[after] for final in finals]


def frame_errors_of(folder: ExperimentFolder, table: Results, ids: Sequence[str]) -> FrameErrors | None:
    """Returns the frame errors of the first repetition that kept them; with folds, those of all folds."""
    for trial_id in ids:
        found = FrameErrors.read_folds(folder, table.trained_ids(trial_id))
        if found is not None:
            return found
    return None


def recordings_of(found: FrameErrors) -> dict[str, frames.Recording]:
    """Returns the errors of the frames of each sequence in the order of their indices, by its name."""
    known, (before, after) = found.frames, found.means
    completed = known.completed(len(before), "")
    assert completed.sequence is not None
    assert completed.index is not None
    recordings = {}
    for sequence in in_order(completed.sequence):
        rows = np.flatnonzero(completed.sequence == sequence)
        rows = rows[np.argsort(completed.index[rows], kind="stable")]  # (n,)
        subjects = [] if known.subject is None else in_order(known.subject[rows])
        of_whom = f" ({'subject' if len(subjects) == 1 else 'subjects'} {', '.join(subjects)})" if subjects else ""
        recordings[sequence] = frames.Recording(
            f"sequence {sequence}{of_whom}", completed.index[rows], before[rows], after[rows]
        )
    return recordings


def skeleton_of(folder: ExperimentFolder, trial_id: str) -> Skeleton:
    """Returns the skeleton of a trial's poses.

    Raises:
        FigureError: If its file does not say.
    """
    trial = folder.read_trial(trial_id)
    try:
        return decode_skeleton(trial)
    except (LookupError, TypeError, ValueError) as error:
        raise FigureError(f"the trial.json of {trial_id} does not say which skeleton it uses") from error


def _learning_curves(figure_options: FigureOptions, table: Results) -> "Figure":
    rows = _rows(figure_options, table, "val", _N_CURVES)
    logged = read_combination_logs(
        table.files, table, list(rows.values()), split=table.split, is_metric=lambda name: False
    )
    groups = {}
    for name, row in rows.items():
        known = [logged.curves.get(trial_id) for trial_id in finished_ids(table, row)]
        groups[name] = [curve for curve in known if curve is not None]
    return curves.learning_curves(groups, n_planned=table.n_counted, width_in=figure_options.width_in)


def _success_curves(figure_options: FigureOptions, table: Results) -> "Figure":
    rates: dict[str, Sequence[Numbers]] = {}
    uncorrected: dict[str, Numbers] = {}
    rows = _rows(figure_options, table, table.split)
    part_of = {row["key"]: part for part in table.by_data().values() for row in part.summary}
    # The sets of one split only: a combination without a test set is not drawn next to others that were tested.
    split = max((part_of[row["key"]].split for row in rows.values()), key=table.splits.index)
    missing = {}
    for name, row in rows.items():
        part = part_of[row["key"]]
        is_shown = part.split == split
        before, after = success_rates_of(table.files, part, row, figure_options.measure) if is_shown else ([], [])
        if not after:
            missing[row["key"]] = name
            continue
        label = "corrected" if len(rows) == 1 else name
        uncorrected[label], rates[label] = before[0], after
    if not rates:
        raise FigureError(f"no finished trial of {listed(list(missing))} logged its success rates")
    others, remarks = _other_methods(figure_options, table, split, list(rows.values()))
    if missing:
        on = f"a {SPLIT_NAMES[split]} set"
        remarks = [f"No finished trial of {listed(list(missing.values()))} logged success rates on {on}.", *remarks]
    return curves.success_curves(
        uncorrected,
        rates,
        others=others,
        of=figure_options.measure,
        n_planned=table.n_counted,
        remarks=remarks,
        width_in=figure_options.width_in,
    )


def _errors_by_joint(figure_options: FigureOptions, table: Results) -> "Figure":
    table = _on_same_data(figure_options, table)
    row = _row(figure_options, table)
    logged = read_combination_logs(
        table.files,
        table,
        [row],
        split=table.split,
        is_metric=lambda name: name.startswith("distance["),
        only_finished=True,
    )
    finals = [logged.final[trial_id] for trial_id in finished_ids(table, row) if trial_id in logged.final]
    if not finals:
        raise FigureError(f"no finished trial of {row['key']} of {table.name} logged the errors of its joints")
    values = np.stack(finals, axis=1)  # (M, repetitions)
    by_name = dict(zip(logged.metrics, values.tolist(), strict=True))
    before, after = (
        {
            name.removeprefix("distance[").removesuffix(f"]{suffix}"): numbers
            for name, numbers in by_name.items()
            if name.endswith(f"]{suffix}")
        }
        for suffix in ("_before", "")
    )
    return errors.errors_by_joint(
        skeleton_of(table.files, _trained_ids(table, row)[0]),
        before,
        after,
        n_planned=table.n_counted,
        width_in=figure_options.width_in,
    )


def _error_by_option(figure_options: FigureOptions, table: Results) -> "Figure":
    table = _on_same_data(figure_options, table)
    summary = _with_whole_sizes(table)
    option, lines = (
        None if path is None else named(path, table.option_paths, "option")
        for path in (figure_options.option, figure_options.lines)
    )
    numeric = [path for path in table.option_paths if options.has_axis(summary, path) and path != lines]
    if option is None and not numeric:
        raise FigureError(
            f"this figure needs an option with at least two numbers; {table.name} has "
            f"{', '.join(table.option_paths) or 'no options'}"
        )
    if option is not None and option == lines:
        raise FigureError(f"the axis and the lines name the same option, {option}; leave out --lines or name another")
    split: options.Split = "test" if table.split == "test" else "val"
    return options.error_by_option(
        summary,
        option or numeric[0],
        lines=lines,
        split=split,
        n_planned=table.n_counted,
        width_in=figure_options.width_in,
    )


def _with_whole_sizes(table: Results) -> list[Row]:
    """Returns the summary with the number of frames in place of a training set's size None, which means all of them.

    With folds it is the mean over the training sets of all folds.
    """
    size, file = "experiment_config.train_set_size", table.files.read_experiment()
    known = {entry.name: entry.samples for entry in file.data if entry.size is None}
    train_sets = {one.key: setting_of(file, one, "experiment_config.train_set") for one in file.plan.combinations}

    def n_frames(row: Row) -> int | None:
        found = [known[train_sets[key]] for key in table.trained_keys(row["key"]) if train_sets[key] in known]
        return round(sum(found) / len(found)) if len(found) == len(table.trained_keys(row["key"])) else None

    return [row | {size: n_frames(row)} if size in row and row[size] is None else row for row in table.summary]


def _heat_map(figure_options: FigureOptions, table: Results) -> "Figure":
    table = _on_same_data(figure_options, table)
    down, across = _two_options(figure_options, table)
    split: options.Split = "test" if table.split == "test" else "val"
    return options.heat_map(
        table.summary, down, across, split=split, n_planned=table.n_counted, width_in=figure_options.width_in
    )


def _parallel_coordinates(figure_options: FigureOptions, table: Results) -> "Figure":
    table = _on_same_data(figure_options, table)
    split: options.Split = "test" if table.split == "test" else "val"
    return options.parallel_coordinates(
        table.summary,
        table.distinguishing_paths,
        split=split,
        n_planned=table.n_counted,
        width_in=figure_options.width_in,
    )


def _error_histogram(figure_options: FigureOptions, table: Results) -> "Figure":
    found, of = _frames(figure_options, table)
    return errors.error_histogram(*found.joined, of=of, width_in=figure_options.width_in)


def _improvement(figure_options: FigureOptions, table: Results) -> "Figure":
    found, of = _frames(figure_options, table)
    return errors.improvement_by_error(*found.joined, of=of, width_in=figure_options.width_in)


def _improvement_by_distance(figure_options: FigureOptions, table: Results) -> "Figure":
    found, of = _frames(figure_options, table)
    if found.training_distance is None:
        raise FigureError(
            f"{_without(figure_options, table)} no distances from training frames: they need training frames in the "
            "same sequences, and sequences in the frame tables of both sets (NAME_frames.parquet); older versions of "
            "PoseTune did not record them"
        )
    return frames.improvement_by_distance(
        *found.means, found.training_distance, of=of, width_in=figure_options.width_in
    )


def _error_over_time(figure_options: FigureOptions, table: Results) -> "Figure":
    found, of = _frames(figure_options, table)
    if found.frames.sequence is None:
        raise FigureError(
            f"{_without(figure_options, table)} no sequences: the frame table of the dataset (NAME_frames.parquet) has "
            "none, or an older version of PoseTune trained it"
        )
    recordings = recordings_of(found)
    names = [named(name, list(recordings), "sequence") for name in figure_options.sequences]
    return frames.error_over_time(
        [recordings[name] for name in names or recordings], of=of, width_in=figure_options.width_in
    )


def _hands(figure_options: FigureOptions, table: Results) -> "Figure":
    row = _row(figure_options, table)
    for trial_id in _trained_ids(table, row):
        try:
            found = FollowedExamples.read(table.files.trial(trial_id))
        except ValueError as error:
            raise FigureError(f"{trial_id}: {error}") from error
        if found is not None:
            points = zip(found.epochs, found.batches, found.predictions_mm, strict=True)
            return hands.skeletons(
                found.inputs_mm,
                {f"epoch {epoch}, batch {batch}": poses for epoch, batch, poses in points},
                found.labels_mm,
                skeleton_of(table.files, trial_id),
                of=_repetition(trial_id),
                n_examples=figure_options.n_examples,
                n_log_points=figure_options.n_log_points,
                width_in=figure_options.width_in,
            )
    raise FigureError(f"{row['key']} of {table.name} followed no examples: set val_example_indices")


FIGURES: Mapping[str, Callable[[FigureOptions, Results], "Figure"]] = {
    "curves": _learning_curves,
    "success": _success_curves,
    "joints": _errors_by_joint,
    "option": _error_by_option,
    "heatmap": _heat_map,
    "parallel": _parallel_coordinates,
    "histogram": _error_histogram,
    "improvement": _improvement,
    "distance": _improvement_by_distance,
    "time": _error_over_time,
    "hands": _hands,
}


def _rows(figure_options: FigureOptions, table: Results, split: str, n_best: int = 1) -> dict[str, Row]:
    """Returns the combinations to draw, by their names; without a choice the best, or the best on each data set.

    The best on each data set are named after their set of the shown split, if that distinguishes them.
    """
    if figure_options.combinations:
        chosen = [find_combination(table, key) for key in figure_options.combinations]
        return {combination_name(table, row): row for row in chosen}
    parts = table.by_data()
    if len(parts) > 1:
        best = [part.summary[0] for part in parts.values()]
        sets = [table.data_sets.get(split, {}).get(row["key"]) for row in best]
        names = [found.name for found in sets if found is not None]
        return dict(zip(names if len(set(names)) == len(best) else parts, best, strict=True))
    return {combination_name(table, row): row for row in (table.ranked or table.summary)[:n_best]}


def _row(figure_options: FigureOptions, table: Results) -> Row:
    _on_same_data(figure_options, table)
    (row,) = _rows(figure_options, table, table.split).values()
    return row


def _on_same_data(figure_options: FigureOptions, table: Results) -> Results:
    """Returns the results that were measured on the same data as the chosen combination."""
    if len(figure_options.combinations) > 1:
        raise FigureError(f"this figure takes one combination, not {len(figure_options.combinations)}")
    parts = table.by_data()
    keys = {find_combination(table, key)["key"] for key in figure_options.combinations}
    fitting = [part for part in parts.values() if keys <= {row["key"] for row in part.summary}]
    if len(fitting) == 1:
        return fitting[0]
    best = ", ".join(f"{part.summary[0]['key']} ({name})" for name, part in parts.items())
    raise FigureError(
        f"{table.name} was measured on {len(parts)} sets of data, but this figure shows one. Select it by one of its "
        f"combinations (--combination); the best of each: {best}"
    )


def _two_options(figure_options: FigureOptions, table: Results) -> tuple[str, str]:
    paths = [path for path in table.distinguishing_paths if path not in table.ranges]
    if figure_options.rows is None and figure_options.columns is None and len(paths) >= 2:
        return paths[0], paths[1]
    if figure_options.rows is None or figure_options.columns is None:
        raise FigureError(
            f"a heat map needs two options, --rows and --columns; {table.name} has {', '.join(paths) or 'none'}"
        )
    down, across = (named(path, table.option_paths, "option") for path in (figure_options.rows, figure_options.columns))
    if down == across:
        raise FigureError(f"rows and columns name the same option, {down}; a heat map needs two")
    return down, across


def _trained_ids(table: Results, row: Row) -> list[str]:
    """Returns the ids of the trials on disk of a combination's finished repetitions."""
    return [trained for trial_id in finished_ids(table, row) for trained in table.trained_ids(trial_id)]


def _frames(figure_options: FigureOptions, table: Results) -> tuple[FrameErrors, str]:
    """Returns the errors of frames in the first repetition that has them, and its name."""
    row = _row(figure_options, table)
    for trial_id in finished_ids(table, row):
        found = frame_errors_of(table.files, table, [trial_id])
        if found is not None:
            return found, _repetition(trial_id)
    raise FigureError(
        f"no trial of {row['key']} of {table.name} has kept the errors of its frames; they are kept together with the "
        "weights, see keep_weights"
    )


def _without(figure_options: FigureOptions, table: Results) -> str:
    return f"the errors of frames of {_row(figure_options, table)['key']} of {table.name} have"


def _repetition(trial_id: str) -> str:
    return f"repetition {trial_id.partition('/')[2]}"


def _other_methods(
    figure_options: FigureOptions, table: Results, split: str, rows: Sequence[Row]
) -> tuple[list[tuple[str, Numbers]], list[str]]:
    """Returns labels and success rates of other methods, (81,) each, and remarks on their data.

    A method was measured on one set. If the curves are of several sets, its label says which one, if the number of
    frames shows it.
    """
    of_split = table.data_sets.get(split, {})
    sets = list(dict.fromkeys(of_split[row["key"]] for row in rows if row["key"] in of_split))
    others, is_open = [], False
    for label, path in figure_options.others:
        found, fitting = _errors_of_other(figure_options, table, rows[0], path, sets)
        is_open |= len(fitting) > 1
        on = f" (on {' or '.join(one.name for one in fitting)})" if len(fitting) < len(sets) else ""
        others.append((f"{label}{on}", curves.success_rates(found)))
    if not others or len(sets) < 2:
        return others, []
    which = ", which its number of frames does not determine" if is_open else ""
    return others, [f"A dotted curve is comparable only with curves on the same data{which}."]


def _errors_of_other(
    figure_options: FigureOptions, table: Results, row: Row, path: Path, sets: Sequence[DataSet]
) -> tuple[Numbers, Collection[DataSet]]:
    """Returns the errors of another method, (E,), mm, and the sets on which it may have been measured."""
    if figure_options.labels is not None:
        found = errors_of(
            path, figure_options.labels, figure_options.measure, figure_options.format, force=figure_options.force
        )
        return found.ravel(), sets_of_predictions(path, len(found), sets)
    found = read_errors(path)
    is_by_joint = figure_options.measure == "joint"
    n_joints = skeleton_of(table.files, _trained_ids(table, row)[0]).n_joints if is_by_joint else None
    return found.ravel(), sets_of_errors(path, found.size, sets, n_joints)
