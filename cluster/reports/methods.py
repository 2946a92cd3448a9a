"""A paragraph for the methods section of a paper: what was searched, how, and which combination was chosen.

It contains only what is in the experiment's files.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from cluster.racing.decision_file import DecisionFile
from cluster.racing.dropped import of_plan, shortest
from cluster.reports.tables import captions
from cluster.reports.tables.captions import SPLITS, folds_of, in_race, n_folds
from cluster.reports.tables.combinations import anywhere
from cluster.reports.tables.summary import mean_and_std
from cluster.results.choice.race_course import RaceCourse, race_courses
from cluster.results.experiment_description import setting_of, where_options_apply
from cluster.results.names import option_texts, short_names
from cluster.results.results import Results
from cluster.results.rows import Row, SummaryColumns
from cluster.results.settings_text import text
from cluster.storage.experiment_file import ExperimentFile, Range
from cluster.storage.run_file import REPOSITORIES, origins_of
from data_pipeline.words import count, first_of, listed

_MAX_VALUES = 8
_MAX_DATA = 12


def methods_paragraph(results: Results) -> str:
    """Returns the paragraph about an experiment as plain text.

    Raises:
        NoResultsError: If its description is broken.
        StorageError: If its description cannot be read.
    """
    experiment = results.files.read_experiment()
    sentences = [_searched(results, experiment), *_trained(results, experiment), *_raced(results, experiment)]
    sentences += [*_unfinished(results, experiment), *_confirmed(results), *_chosen(results)]
    return " ".join([*sentences, *_produced_by(results)])


def _searched(results: Results, experiment: ExperimentFile) -> str:
    """Says which options were combined, and how often each combination was trained."""
    paths = results.distinguishing_paths
    values = {path: results.option_values(path) for path in paths}
    n = len(results.summary)
    names = short_names(paths)
    ranges = {axis.paths[0]: axis.range for axis in experiment.options if axis.range is not None}
    conditions = dict(where_options_apply(experiment.options, names))
    options = []
    for path, of_path in values.items():
        shown = _range(ranges[path]) if path in ranges else _values(of_path)
        condition = conditions.get(path, "")
        options.append(f"{names[path]} ({shown}{f'; only for {condition}' * bool(condition)})")
    is_grid = not ranges and n == prod(map(len, values.values()))
    combinations = "Both combinations" if n == 2 else f"{'All ' * (n > 2)}{count(n, 'combination')}"
    combinations = combinations if is_grid else count(n, "combination")
    of = f" of {listed(options)}" if options else ""
    seed = experiment.configs.get("experiment_config", {}).get("seed")
    # Combinations that a race dropped at its first rung may have fewer.
    n_repetitions = _repetitions([results.n_repetitions, *(at.repetitions for at in results.dropped.values())])
    seeds = f" (seeds derived from {seed})" if isinstance(seed, int) else ""
    folds = f" on each of {n_folds(results, results.folds)} folds" if results.folds else ""
    was = "was" if n == 1 else "were"
    compared = "planned" if _goes_on(results) else "compared" if n > 1 else "trained"
    compared += ", each" if n > 1 else ""
    return f"{combinations}{of} {was} {compared} with {n_repetitions}{folds}{seeds}."


def _goes_on(results: Results) -> bool:
    """Returns whether some trainings have neither finished nor stopped with an error."""
    rows = (trial for row in results.ranked for trial in results.repetitions[row["key"]])
    return any(trial["status"] in ("interrupted", "pending") for trial in rows)


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
    keys = {key for row in results.summary for key in results.trained_keys(row["key"])}
    trained = [combination for combination in experiment.plan.combinations if combination.key in keys]

    def values(path: str) -> list[Any]:
        found = {repr(value): value for value in (setting_of(experiment, one, path) for one in trained)}
        return list(found.values())

    train_sets, sizes = values("experiment_config.train_set"), values("experiment_config.train_set_size")
    if not results.folds and len(train_sets) == 1 and isinstance(train_sets[0], str):
        found = [entry.samples for entry in experiment.data if [entry.name, entry.size] == [*train_sets, *sizes]]
        yield f"The training set is {train_sets[0]}{f' ({found[0]:,} frames)' if found else ''}."
    epochs = values("solver_config.num_epochs")
    if len(epochs) == 1 and isinstance(epochs[0], int) and not isinstance(epochs[0], bool) and epochs[0] > 0:
        yield f"A complete training takes {count(epochs[0], 'epoch')}."


def _is_raced(experiment: ExperimentFile) -> bool:
    return experiment.configs.get("experiment_config", {}).get("race") is not None


def _raced(results: Results, experiment: ExperimentFile) -> Iterator[str]:
    """Says how combinations were raced, and at what cost; nothing if they were not."""
    if not _is_raced(experiment):
        return
    decisions = of_plan(results.decisions, results.repetitions)
    factors = {text(decision.rule.get("reduction_factor")) for decision in decisions}
    words = f" with a reduction factor of {next(iter(factors))}" if len(factors) == 1 else ""
    raced = f"were raced with synchronous successive halving over epochs{words}"
    by_data: dict[str, list[DecisionFile]] = {}
    for decision in decisions:
        size = "" if decision.size is None else f" (first {decision.size:,})"
        by_data.setdefault(f"{decision.data}{size}", []).append(decision)
    if len(by_data) > 1:
        what = "folds of each dataset" if results.folds else "each validation set"
        yield f"The combinations on {what} {raced}."
        for name, of_data in list(by_data.items())[:_MAX_DATA]:
            yield f"On {name}, {_rungs(of_data, results.stands_for)}."
    else:
        texts = [f": {_rungs(of_data, results.stands_for)}" for of_data in by_data.values()]  # at most one
        yield f"The combinations {raced}{''.join(texts)}."
    if decisions:
        yield (
            "Each time, combinations were compared by their best validation distance so far, averaged over "
            "repetitions; those close to the best one could stay too."
        )
    n = len(results.ranked)
    several = len(by_data) > 1
    race_has, race_takes = ("The races have", "the races take") if several else ("The race has", "the race takes")
    courses = race_courses(results, {})
    n_completed = sum(len(course.completed) for course in courses)
    if results.is_open or results.n_not_proposed:
        yield f"{race_has} not ended yet."
    elif not results.dropped and not n_completed:
        yield f"{race_has} dropped none of them."
    else:
        were = f"{count(n, 'combination')} {'was' if n == 1 else 'were'}" if n else "No combination was"
        n_diverged = sum(not results.is_complete(row) for row in results.ranked)
        but = f", except that {n_diverged:,} diverged in some repetitions" if n_diverged else ""
        also = f", {n_completed:,} of them without the race, which dropped them" if n_completed else ""
        yield f"{were} trained to the end{but}{also}{_cost(results, courses, race_takes)}."


def _unfinished(results: Results, experiment: ExperimentFile) -> Iterator[str]:
    """Says what has not finished, and what is missing from means; nothing if all is there."""
    if not _is_raced(experiment):
        if results.n_not_proposed:
            yield f"The search has not proposed {count(results.n_not_proposed, 'combination')} yet."
        if _goes_on(results):
            n_finished = sum(trial["status"] == "finished" for trial in results.trials)
            yield f"Finished so far: {n_finished:,} of {count(len(results.trials), 'training')}."
    yield from captions.unfinished(results, results.ranked)


def _rungs(decisions: Sequence[DecisionFile], stands_for: Mapping[str, str]) -> str:
    """Says what was decided at each rung: 'after epoch 4, 20 of 60 combinations stayed (3 repetitions)'.

    Combinations that were added later are only counted.
    """
    texts = []
    brackets = dict.fromkeys(decision.bracket for decision in decisions)
    for decision in decisions:
        if decision.bracket == next(iter(brackets)):
            epochs = sorted({c.epoch for c in decision.combinations})
            epoch = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
            n_stay, n = len(decision.stay), len(decision.combinations)
            of = "both combinations" if n == 2 else f"all {count(n, 'combination')}"
            stayed = of if 1 < n_stay == n else f"{f'{n_stay:,}' if n_stay else 'none'} of {count(n, 'combination')}"
            repetitions = count(len(decision.leader.values), "repetition")
            texts.append(f"after {epoch}, {stayed} stayed ({repetitions})")
    return "; ".join([*texts, *_added(decisions, stands_for, len(brackets) - 1)])


def _added(decisions: Sequence[DecisionFile], stands_for: Mapping[str, str], n_groups: int) -> Iterator[str]:
    """Says how many combinations raced later, and against which; nothing if none did."""
    raced = [(shortest(c.key, stands_for), decision.bracket) for decision in decisions for c in decision.combinations]
    entered: dict[str, int] = {}  # the bracket in which each combination entered the race
    for key, bracket in raced:
        entered.setdefault(key, bracket)
    n = sum(bracket != decisions[0].bracket for bracket in entered.values())
    if n:
        have_guests = any(entered[key] != bracket for key, bracket in raced)
        groups = f" in {n_groups} groups" if n_groups > 1 else ""
        with_guests = f", {'each ' * (n_groups > 1)}together with the finalists so far" * have_guests
        yield f"{n:,} more raced later{groups}{with_guests}"


def _cost(results: Results, courses: Sequence[RaceCourse], race_takes: str) -> str:
    """Returns the epochs of the races relative to those of the grid, for the end of a sentence.

    It is empty if not all combinations raced. Epochs that trials were trained beyond their rung, or for an earlier
    plan, do not count.
    """
    raced = {key for course in courses for key in course.last}
    if not raced.issuperset(results.repetitions):
        return ""
    share = sum(course.n_epochs for course in courses) / max(1, sum(course.n_epochs_of_grid for course in courses))
    return f"; {race_takes} {100 * share:.0f} % of the epochs that training all of them takes" if share <= 1 else ""


def _confirmed(part: Results) -> Iterator[str]:
    """Says how finalists are confirmed; nothing if they are not."""
    if part.n_confirming:
        fresh = count(part.n_confirming, "fresh repetition")
        yield (
            f"To confirm the finalists, each was trained with {fresh}, which took no part in the race; all results and "
            "tests come from these alone."
        )


def _chosen(results: Results) -> Iterator[str]:
    """Says which combination was chosen on which data, and its results."""
    parts = list(results.by_data().values())
    if len(parts) == 1:
        yield from _chosen_on_only_data(results)
        return
    shown = parts[:_MAX_DATA]
    if any(len(part.summary) > 1 for part in shown):
        no_part = "; test sets played no part in this" * any(part.split == "test" for part in shown)
        among = next(filter(None, map(_among, shown)), "")
        lowest = f"the combination with the lowest mean distance{in_race(results)}{among}"
        yield f"On each validation set, {lowest} was chosen{no_part}."
    bests = [part.summary[0] for part in shown]
    numbers = [row["n"] for row in bests if row["n"]]
    if numbers:
        std = " ± sample standard deviations" if max(numbers) > 1 else ""
        over = _repetitions(numbers, "fresh " * bool(results.n_confirming))
        yield f"Distances are means per joint{std} over {over}."
    yield from map(_chosen_on, shown)
    if len(parts) > len(shown):
        yield f"{len(parts) - len(shown)} more sets of data are not described here."


def _among(part: Results) -> str:
    """Says where the choice was made if a combination that lacks repetitions has a lower mean."""
    passed_over = captions.passed_over(part, part.summary[:1], anywhere)
    return " among those with all repetitions" if passed_over else ""


def _repetitions(numbers: Sequence[int], kind: str = "") -> str:
    """Returns '3 repetitions', or '1 to 3 repetitions' for different numbers."""
    fewer = f"{min(numbers)} to " if len(set(numbers)) > 1 else ""
    return f"{fewer}{count(max(numbers), f'{kind}repetition')}"


def _chosen_on(part: Results) -> str:
    """Says which combination was chosen on one of several data sets, and its results."""
    best, val, test = part.summary[0], SummaryColumns.of("val"), SummaryColumns.of(part.split)
    on = f"On the {_set(part, best, 'val')}"
    if best[val.mean] is None:
        return f"{on}, {_nothing(part)}."
    distance = f"{mean_and_std(best[val.mean], best[val.std])} mm"
    in_the_race = f"{mean_and_std(best[part.chosen_by.mean], None)} mm in the race, " * bool(part.n_confirming)
    is_chosen = len(part.summary) > 1
    reached = (
        f"this is {_options(part, best)} ({in_the_race}{distance})" if is_chosen else f"the distance is {distance}"
    )
    if part.split == "test" and best[test.mean] is not None:
        it = "it reaches" if is_chosen else "it is"
        reached += f"; on the {_set(part, best, 'test')}, {it} {_compared(best, test)}"
    return f"{on}, {reached}."


def _options(part: Results, row: Row) -> str:
    return ", ".join(f"{name} {text}" for name, text in part.described[row["key"]].items())


def _compared(row: Row, test: SummaryColumns) -> str:
    result = mean_and_std(row[test.mean], row[test.std])
    return f"{result} mm, compared with {row[test.before]:.2f} mm before the correction"


def _nothing(part: Results) -> str:
    """Explains why there is no result."""
    if part.n_confirming and part.ranked:
        return "no fresh repetition of the best combination has finished"
    return "no combination has been trained to the end"


def _chosen_on_only_data(part: Results) -> Iterator[str]:
    """Says which combination was chosen, and its results."""
    best, val = part.summary[0], SummaryColumns.of("val")
    if best[val.mean] is None:
        if part.ranked:  # otherwise the race dropped all
            nothing = _nothing(part)
            yield f"{nothing[0].upper()}{nothing[1:]}."
        return
    on = f"the {_set(part, best, 'val')}"
    std = " ± sample standard deviation" if best[val.std] is not None else ""
    over = f"mean distance per joint{std} over {count(best['n'], 'repetition')}"
    distance = f"{mean_and_std(best[val.mean], best[val.std])} mm"
    if len(part.summary) > 1 and part.n_confirming:
        mean = mean_and_std(best[part.chosen_by.mean], None)
        yield (
            f"The combination with the lowest mean distance on {on}{in_race(part)}{_among(part)} was chosen: "
            f"{_options(part, best)} ({mean} mm). There, its fresh repetitions reach {distance} ({over})."
        )
    elif len(part.summary) > 1:
        chosen = f"{_options(part, best)} ({distance}; {over})"
        yield f"The combination with the lowest mean distance on {on}{_among(part)} was chosen: {chosen}."
    else:
        yield f"On {on}, it reaches {distance} ({over})."
    test = SummaryColumns.of(part.split)
    if part.split == "test" and best[test.mean] is not None:
        yield (
            f"On the {_set(part, best, 'test')}, which played no part in this choice, it reaches "
            f"{_compared(best, test)}."
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
