"""A paragraph for the methods section of a paper: what was searched, how, and which combination was chosen.

It contains only what is in the experiment's files.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from cluster.racing.decision_file import DecisionFile
from cluster.racing.dropped import of_plan
from cluster.reports.tables.captions import SPLITS, folds_of, in_race, n_folds
from cluster.reports.tables.summary import mean_and_std
from cluster.results.names import option_texts, short_names
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns
from cluster.results.settings_text import text
from cluster.storage.experiment_file import ExperimentFile, Range
from cluster.storage.run_file import REPOSITORIES, origins_of
from data_pipeline.words import count, first_of, listed

_MAX_VALUES = 8
_MAX_DATA = 12
_EPOCHS = "solver_config.num_epochs"


def methods_paragraph(results: Results) -> str:
    """Returns the paragraph about an experiment as plain text.

    Raises:
        NoResultsError: If its description is broken.
        StorageError: If its description cannot be read.
    """
    experiment = results.files.read_experiment()
    parts = results.by_data()
    shown = list(parts.items())[:_MAX_DATA]
    sentences = [_searched(results, experiment), *_trained(results, experiment)]
    for name, part in shown:
        on = f"On {name}: " if len(parts) > 1 else ""
        sentences += [f"{on}{sentence}" for sentence in (*_raced(part, experiment), *_confirmed(part), *_chosen(part))]
    if len(parts) > len(shown):
        sentences.append(f"{len(parts) - len(shown)} more sets of data are not described here.")
    return " ".join([*sentences, *_produced_by(results)])


def _searched(results: Results, experiment: ExperimentFile) -> str:
    """Says which options were combined, and how often each combination was trained."""
    paths = results.distinguishing_paths
    values = {path: results.option_values(path) for path in paths}
    n = len(results.summary)
    names = short_names(paths)
    ranges = {axis.paths[0]: axis.range for axis in experiment.options if axis.range is not None}
    options = [
        f"{names[path]} ({_range(ranges[path]) if path in ranges else _values(of_path)})"
        for path, of_path in values.items()
    ]
    is_grid = not ranges and n == prod(map(len, values.values()))
    combinations = f"{'All ' if is_grid and n > 1 else ''}{count(n, 'combination')}"
    of = f" of {listed(options)}" if options else ""
    seed = experiment.configs.get("experiment_config", {}).get("seed")
    n_repetitions = count(results.n_repetitions, "repetition")
    seeds = f" (seeds derived from {seed})" if isinstance(seed, int) else ""
    folds = f" on each of {n_folds(results, results.folds)} folds" if results.folds else ""
    was = "was" if n == 1 else "were"
    compared = "compared, each" if n > 1 else "trained"
    return f"{combinations}{of} {was} {compared} with {n_repetitions}{folds}{seeds}."


def _range(found: Range) -> str:
    return f"{found.low:g} to {found.high:g}{', logarithmic' * found.log}"


def _values(values: Sequence[Any]) -> str:
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if len(values) > _MAX_VALUES:
        numbers = option_texts([min(values), max(values)]) if are_numbers else []
        return f"{len(values)} values{f' from {numbers[0]} to {numbers[1]}' if numbers else ''}"
    return ", ".join(option_texts(values))


def _trained(results: Results, experiment: ExperimentFile) -> Iterator[str]:
    """Says how combinations were proposed, how long they were trained, and on which data, if all share this."""
    config = experiment.configs.get("experiment_config", {})
    search = config.get("search")
    arguments = search.get("args") if isinstance(search, Mapping) else None
    if isinstance(arguments, Mapping):
        sampler, round_size = (text(arguments.get(name)) for name in ("sampler", "round_size"))
        yield f"They were proposed by a search (sampler {sampler}, in rounds of {round_size})."
    train_set = config.get("train_set")
    if isinstance(train_set, str) and not results.folds and "experiment_config.train_set" not in results.option_paths:
        size = config.get("train_set_size")
        found = [entry.samples for entry in experiment.data if (entry.name, entry.size) == (train_set, size)]
        yield f"The training set is {train_set}{f' ({found[0]:,} frames)' if found else ''}."
    epochs = {_epochs_of(row, experiment) for row in results.summary}
    if len(epochs) == 1 and None not in epochs:
        yield f"A complete training takes {count(next(iter(epochs)) or 0, 'epoch')}."


def _epochs_of(row: Row, experiment: ExperimentFile) -> int | None:
    """Returns the epochs of a complete training; None if they are not known."""
    found = row.get(_EPOCHS, experiment.configs.get("solver_config", {}).get("num_epochs"))
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _raced(part: Results, experiment: ExperimentFile) -> Iterator[str]:
    """Says how combinations on the same data were raced, and at what cost; nothing if they were not."""
    if not part.dropped:
        return
    decisions = of_plan(part.decisions, part.repetitions)
    factor = decisions[0].rule.get("reduction_factor")
    words = f" with a reduction factor of {factor}" if isinstance(factor, int) else ""
    yield f"The combinations were raced with synchronous successive halving over epochs{words}: {_rungs(decisions)}."
    yield (
        "Each rung compares the best validation distance so far, averaged over repetitions; combinations close to the "
        "best one may stay too."
    )
    if all(map(part.is_complete, part.ranked)):
        n = len(part.ranked)
        yield f"{count(n, 'combination')} {'was' if n == 1 else 'were'} trained to the end{_cost(part, experiment)}."
    else:
        yield "The race has not ended yet."


def _rungs(decisions: Sequence[DecisionFile]) -> str:
    """Says what was decided at each rung: 'after epoch 4, 20 of 60 combinations stayed (3 repetitions)'."""
    texts = []
    for decision in decisions:
        epochs = sorted({c.epoch for c in decision.combinations})
        epoch = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
        stayed, n = sum(c.stays for c in decision.combinations), count(len(decision.combinations), "combination")
        repetitions = count(len(decision.leader.values), "repetition")
        bracket = f" of bracket {decision.bracket + 1}" if any(d.bracket for d in decisions) else ""
        texts.append(f"after {epoch}{bracket}, {stayed:,} of {n} stayed ({repetitions})")
    return "; ".join(texts)


def _cost(part: Results, experiment: ExperimentFile) -> str:
    """Returns the epochs of the race relative to those of the grid, for the end of a sentence; empty if unknown.

    Epochs that trials were trained beyond their rung, or for an earlier plan, do not count.
    """
    epochs = {row["key"]: _epochs_of(row, experiment) for row in part.summary}
    known = {key: n for key, n in epochs.items() if n is not None}
    if len(known) < len(epochs):
        return ""
    raced = sum(at.epoch * at.repetitions for at in part.dropped.values())
    raced += sum(known[row["key"]] * part.n_repetitions for row in part.ranked)
    share = raced / (sum(known.values()) * part.n_repetitions)
    return f"; the race takes {100 * share:.0f} % of the epochs that training all of them takes" if share <= 1 else ""


def _confirmed(part: Results) -> Iterator[str]:
    """Says how finalists are confirmed; nothing if they are not."""
    if part.n_confirming:
        fresh = count(part.n_confirming, "fresh repetition")
        yield (
            f"To confirm the finalists, each was trained with {fresh}, which took no part in the race; all results and "
            "tests come from these alone."
        )


def _chosen(part: Results) -> Iterator[str]:
    """Says which combination was chosen on which data, and its results."""
    best, val = part.summary[0], SummaryColumns.of("val")
    if best[val.mean] is None:
        yield "No combination has been trained to the end yet."
        return
    texts = ", ".join(f"{name} {text}" for name, text in part.described[best["key"]].items())
    on = f"the {_set(part, best, 'val')}"
    std = " ± sample standard deviation" if best[val.std] is not None else ""
    over = f"mean distance per joint{std} over {count(best['n'], 'repetition')}"
    distance = f"{mean_and_std(best[val.mean], best[val.std])} mm"
    if len(part.summary) > 1 and part.n_confirming:
        mean = mean_and_std(best[part.chosen_by.mean], None)
        yield (
            f"The combination with the lowest mean distance on {on}{in_race(part)} was chosen: {texts} ({mean} mm). "
            f"There, its fresh repetitions reach {distance} ({over})."
        )
    elif len(part.summary) > 1:
        yield f"The combination with the lowest mean distance on {on} was chosen: {texts} ({distance}; {over})."
    else:
        yield f"On {on}, it reaches {distance} ({over})."
    test = SummaryColumns.of(part.split)
    if part.split == "test" and best[test.mean] is not None:
        yield (
            f"On the {_set(part, best, 'test')}, which played no part in this choice, it reaches "
            f"{mean_and_std(best[test.mean], best[test.std])} mm, compared with {best[test.before]:.2f} mm before the "
            "correction."
        )


def _set(part: Results, row: Row, split: str) -> str:
    if part.folds:
        return folds_of(part, split, [row])
    found = part.data_sets.get(split, {}).get(row["key"])
    if found is None:
        return SPLITS[split]
    frames = "" if found.n_frames is None else f" ({found.n_frames:,} frames)"
    return f"{SPLITS[split]} {found.name}{frames}"


def _produced_by(results: Results) -> Iterator[str]:
    """Names the versions and commits that trained the finished trials, if they were recorded."""
    runs = list({id(run): run for of in results.trained_by(results.ranked).values() for run in of or ()}.values())
    origins = origins_of(runs)
    if origins:
        yield f"Trained with {', '.join(f'{name} {listed(values)}' for name, values in origins.items())}."
    for whose, what in REPOSITORIES.items():
        found = [run.git[whose] for run in runs if whose in run.git]
        commits = dict.fromkeys(f"{one.commit}{' with changes' if one.dirty else ''}" for one in found)
        if commits:
            yield f"Commit of the repository of {what}: {first_of(list(commits), _MAX_VALUES)}."
