"""What a race is expected to train, and warnings about races that make little sense."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NamedTuple

import torch
from tabulate import tabulate

from cluster.planning.builders import build_optimizer, build_scheduler
from cluster.planning.combination_checks import MAX_STEPS
from cluster.planning.config import Problem, Settings
from cluster.planning.inputs import Inputs, SetKey
from cluster.planning.search_space import TEST_SET_PATHS, SearchSpace
from cluster.racing.decision_file import DecisionFile
from cluster.racing.successive_halving import MIN_COMBINATIONS
from cluster.schedules.brackets import Bracket, Entrant
from cluster.schedules.planned_brackets import stands_for
from data_pipeline.words import count

_SET, _SIZE = "experiment_config.train_set", "experiment_config.train_set_size"
_PRESET = "experiment_config.use_preset"

_SIMILAR = 1.1
"""Training sets may race against each other if their sizes differ by at most this factor."""


class PlannedRung(NamedTuple):
    """A rung of a bracket.

    Attributes:
        epochs: The lowest and the highest epoch of the rung; equal unless combinations differ in their epochs.
        n_combinations: How many combinations train to it; for later rungs an estimate without close combinations.
        n_repetitions: How many repetitions of each of them do.
        n_trials: Their trials: one for each repetition and fold.
        n_epochs: The epochs that these train from the previous rung on.
        is_decided: Whether its decision has been made.
    """

    epochs: tuple[int, int]
    n_combinations: int
    n_repetitions: int
    n_trials: int
    n_epochs: int
    is_decided: bool


def planned_rungs(bracket: Bracket) -> list[PlannedRung]:
    """Returns the rungs of a bracket. Guests do not count, since other brackets train them."""
    n_folds = len(next(iter(bracket.entrants.values())).trained) if bracket.entrants else 0
    planned, size = list[PlannedRung](), len(bracket.entrants)
    for place, rung in enumerate(bracket.rungs):
        is_last, is_decided = place == bracket.n_rungs - 1, place < bracket.place
        repetitions = bracket.n_planned if is_last else min(rung.n_repetitions, bracket.n_planned)
        ends = _ends(bracket, place)
        if is_decided:  # it was made with the shorter trainings alone
            ends = {key: epoch for key, epoch in ends.items() if _shorter(bracket, key, place) not in ends}
        if place <= bracket.place:
            size = len(ends)
        elif size:
            size = min(size, bracket.race.n_best(size + len(bracket.guests)))
        starts = _starts(bracket, place, ends)
        of_all = sum(
            repetitions * epoch - min(repetitions, starts[key].n_repetitions) * starts[key].epoch
            for key, epoch in ends.items()
        )
        n_epochs = round(n_folds * of_all * size / max(1, len(ends)))
        epochs = min(ends.values(), default=0), max(ends.values(), default=0)
        planned.append(PlannedRung(epochs, size, repetitions, size * repetitions * n_folds, n_epochs, is_decided))
    return planned


def _ends(bracket: Bracket, place: int) -> dict[str, int]:
    """Returns the epoch of a rung for each entrant, by key; of rungs to come, for each that is still in the race."""
    if place >= bracket.place:
        rung = bracket.rungs[place]
        return {key: rung.epoch(entrant.num_epochs) for key, entrant in bracket.own_competing.items()}
    # A longer training that took the place of a shorter one was decided at the rungs of the latter.
    there = bracket.decisions[place].by_key
    return {key: there[name].epoch for key in bracket.entrants if (name := bracket.listed(key, place)) in there}


def _shorter(bracket: Bracket, key: str, place: int) -> str | None:
    """Returns the key of the shorter training that an entrant replaces, if that one is planned too."""
    name = bracket.listed(key, min(place, bracket.place - 1)) if bracket.place else key
    return name if name != key and name in bracket.entrants else None


class _Start(NamedTuple):
    """The epoch from which the trials of an entrant count for a rung; that of later repetitions is 0."""

    epoch: int
    n_repetitions: int


def _starts(bracket: Bracket, place: int, ends: Mapping[str, int]) -> dict[str, _Start]:
    """Returns where the entrants that train to a rung start, by key; `ends` has the epoch of the rung for each."""
    before = _ends(bracket, place - 1) if place else {}
    n_before = min(bracket.rungs[place - 1].n_repetitions, bracket.n_planned) if place else 0
    starts = {}
    for key in ends:
        starts[key] = _Start(before.get(key, 0), n_before)
        shorter = _shorter(bracket, key, place)
        if shorter is not None and shorter in ends:
            # Only a finished training continues to a longer one.
            starts[key] = _Start(ends[shorter] if bracket.is_decided else 0, bracket.n_planned)
    return starts


def planned_to_confirm(bracket: Bracket) -> PlannedRung:
    """Returns the fresh repetitions of a bracket's finalists, which are trained after its last rung."""
    lengths = [entrant.num_epochs for entrant in bracket.own_competing.values() for _ in entrant.trained]
    last, n = planned_rungs(bracket)[-1], bracket.n_fresh
    n_trials = last.n_trials // last.n_repetitions * n
    n_epochs = round(n_trials * sum(lengths) / max(1, len(lengths)))
    return last._replace(n_repetitions=n, n_trials=n_trials, n_epochs=n_epochs)


def dropped_trials(brackets: Sequence[Bracket]) -> set[str]:
    """Returns the ids of the trials that races have dropped, in all repetitions."""
    return {
        f"{combination.key}/{repetition}"
        for bracket in brackets
        for key in bracket.entrants.keys() - bracket.own_competing.keys()
        for combination in bracket.entrants[key].trained
        for repetition in range(bracket.n_of_finalists)
    }


def n_epochs_left(brackets: Sequence[Bracket], trained: Mapping[str, int], *, n_not_proposed: int = 0) -> int:
    """Estimates how many epochs the races still have to train.

    Args:
        brackets: The brackets.
        trained: The epochs that each trial need not train any more, by its id; 0 for others.
        n_not_proposed: How many combinations a search has still to propose. They are expected to take as many epochs as
            those of the last round.
    """
    n = 0
    if n_not_proposed and brackets[-1].entrants:
        of_round = sum(rung.n_epochs for rung in [*planned_rungs(brackets[-1]), planned_to_confirm(brackets[-1])])
        n += round(n_not_proposed * of_round / len(brackets[-1].entrants))
    for bracket in brackets:
        n += sum(rung.n_epochs for rung in planned_rungs(bracket) if not rung.is_decided)
        n += planned_to_confirm(bracket).n_epochs
        starts = _starts(bracket, bracket.place, _ends(bracket, bracket.place))
        for key, entrant in bracket.own_competing.items():
            is_longer = bracket.place and bracket.listed(key, bracket.place - 1) != key
            for repetition in range(bracket.n_of_finalists):
                counted = starts[key].epoch if repetition < starts[key].n_repetitions else 0
                done = [trained.get(f"{one.key}/{repetition}", 0) for one in entrant.trained]
                # A longer training has not reached the rung itself: without a kept state it starts from the beginning.
                n -= sum(epochs - counted if is_longer else max(0, epochs - counted) for epochs in done)
    return max(0, n)


def race_texts(brackets: Sequence[Bracket], ended: AbstractSet[str]) -> list[str]:
    """Describes what each race trains, in a sentence and a table.

    Args:
        brackets: The brackets.
        ended: The ids of the trials that have ended.
    """
    texts = []
    for bracket in brackets:
        if not bracket.entrants:  # none of its combinations is planned any more
            continue
        rungs = planned_rungs(bracket)
        lengths = {key: entrant.num_epochs for key, entrant in bracket.entrants.items()}
        of_one = sum(lengths.values())
        if bracket.is_decided:  # a longer training continues a finished one that is planned too
            of_one -= sum(lengths[shorter] for key in lengths if (shorter := _shorter(bracket, key, 0)) is not None)
        in_grid = bracket.n_planned * of_one * len(next(iter(bracket.entrants.values())).trained)
        in_race = sum(rung.n_epochs for rung in rungs)
        cost = f"{in_race:,} of {in_grid:,} epochs ({100 * in_race / max(1, in_grid):.1f} %)"
        about = "" if bracket.is_decided else "about "
        where = f"{bracket.data.name}{_number(bracket.number)}"
        first = f"race of {count(len(bracket.entrants), 'combination')} on {where}: {about}{cost}"
        rows = [_row(f"{number}", rung, "decided" * rung.is_decided) for number, rung in enumerate(rungs, 1)]
        if bracket.n_fresh:
            fresh = planned_to_confirm(bracket)
            first += f", plus {about}{fresh.n_epochs:,} in fresh repetitions"
            rows.append(_row("fresh", fresh, _progress(bracket, ended)))
        texts.append(f"{first}\n{_table(rows)}")
    return texts


def _progress(bracket: Bracket, ended: AbstractSet[str]) -> str:
    """Says how many trials in fresh repetitions have ended; empty until the finalists are known."""
    if not bracket.is_decided:
        return ""
    trained = [one.key for entrant in bracket.own_competing.values() for one in entrant.trained]
    fresh = range(bracket.n_planned, bracket.n_of_finalists)
    ids = {f"{key}/{repetition}" for key in trained for repetition in fresh}
    return f"{len(ids & ended):,} of {len(ids):,} have ended"


def _row(name: str, rung: PlannedRung, note: str) -> list[str]:
    return [
        f"  {name}",
        _epochs(rung),
        f"{rung.n_combinations:,}",
        f"{rung.n_repetitions}",
        f"{rung.n_trials:,}",
        f"{rung.n_epochs:,}",
        note,
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    headers = ["  rung", "to epoch", "combinations", "repetitions", "trials", "epochs", ""]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=("right",) * 6 + ("left",))


def standing_text(brackets: Sequence[Bracket], leader_of: Callable[[Entrant], str]) -> str:
    """Describes the state of a race in a sentence: the rung that is trained, and the leader of the last decision.

    Args:
        brackets: The brackets, at least one.
        leader_of: Returns the options of a combination as a short text.
    """
    bracket = next((one for one in brackets if not one.is_decided), brackets[-1])
    rung, n = planned_rungs(bracket)[bracket.place], len(bracket.own_competing)
    where = _where(bracket.data.name, bracket.number, bracket.place, bracket.n_rungs)
    if not n:
        return f"{where}: no combination is left"
    what = count(n, "finalist" if bracket.decisions and bracket.is_decided else "combination")
    text = f"{where}: {what} {'trains' if n == 1 else 'train'} to epoch {_epochs(rung)}"
    if not bracket.decisions:
        return text
    best = bracket.decisions[-1].leader
    of_key = {key: entrant for one in brackets for key, entrant in one.entrants.items()}
    longer = {shorter: key for key, shorter in stands_for(brackets).items()}
    name = best.key
    while name not in of_key and name in longer:
        name = longer[name]
    leader = leader_of(of_key[name]) if name in of_key else "not planned any more"
    return f"{text}; the leader had a validation error of {best.mean_mm:.2f} mm after epoch {best.epoch} ({leader})"


def _where(data: str, bracket: int, rung: int, n_rungs: int) -> str:
    return f"race on {data}{_number(bracket)}, rung {rung + 1} of {n_rungs}"


def _number(bracket: int) -> str:
    return f", bracket {bracket + 1}" if bracket else ""


def _epochs(rung: PlannedRung) -> str:
    low, high = rung.epochs
    return f"{low}" if low == high else f"{low}–{high}"


def decision_text(decision: DecisionFile, leader: str) -> str:
    """Returns a sentence about a decision, for the terminal.

    Args:
        decision: The decision.
        leader: The options of the best combination, as a short text.
    """
    n, n_stay = len(decision.combinations), sum(competitor.stays for competitor in decision.combinations)
    diverged = sum(competitor.reason == "diverged" for competitor in decision.combinations)
    lost = f" ({diverged} diverged)" if diverged else ""
    where = _where(decision.data, decision.bracket, decision.rung, decision.n_rungs)
    is_last, is_one = decision.rung == decision.n_rungs - 2, n_stay == 1
    stay = ("is a finalist" if is_one else "are finalists") if is_last else "stays" if is_one else "stay"
    best = decision.leader
    of_leader = f"; the leader has a validation error of {best.mean_mm:.2f} mm ({leader})"
    return (
        f"{where}: {n_stay} of {count(n, 'combination')} {stay} after epoch {best.epoch}{lost}"
        f"{of_leader if n > diverged else ''}"
    )


def race_problems(space: SearchSpace) -> list[Problem]:
    """Returns the problems that rule out a race."""
    if space.base.experiment.race is None:
        return []
    problems = [
        Problem(axis.name, "a race compares validation errors, on which the test set has no influence; choose one")
        for axis in space.axes
        if not axis.folds and set(axis.paths) <= set(TEST_SET_PATHS)
    ]
    if _SIZE in space.paths:
        text = (
            f"{_SIZE} is an option, but after a few epochs larger training sets are ahead only because their epochs "
            "have more batches. Train the whole grid (race: None), or run a separate experiment for each size"
        )
        problems.append(Problem("experiment_config.race", text))
    return problems


def race_warnings(brackets: Sequence[Bracket], space: SearchSpace, inputs: Inputs) -> list[str]:
    """Returns warnings about races that are useless or unfair. All data must have been read."""
    rule = space.base.experiment.race
    if rule is None:
        return []
    warnings, is_search = [], space.base.experiment.search is not None
    for bracket in brackets:
        is_new = not bracket.earlier and not bracket.decisions
        if is_new and bracket.n_rungs > 1 and bracket.rule.min_finalists >= len(bracket.entrants):
            warnings.append(
                f"the {'first round of the ' * is_search}race drops only combinations that diverge: it has "
                f"{count(len(bracket.entrants), 'combination')}, and min_finalists is {bracket.rule.min_finalists}"
            )
        elif is_new and len(bracket.entrants) < MIN_COMBINATIONS:
            warnings.append(
                f"a race of {count(len(bracket.entrants), 'combination')} saves little, because at least "
                f"{bracket.rule.min_finalists} are trained to the end; races are meant for {MIN_COMBINATIONS} or more"
            )
        if bracket.n_rungs == 1:
            shortest = min(entrant.num_epochs for entrant in bracket.entrants.values())
            warnings.append(
                f"the race drops nothing: trainings of {count(shortest, 'epoch')} are too short for a first rung at "
                f"epoch {bracket.rule.min_epochs} or later; lower min_epochs"
            )
        kept = replace(bracket.rule, confirm=rule.confirm)  # decisions do not depend on it, so they do not record it
        if kept != rule and not bracket.is_decided:
            warnings.append(
                f"the race on {bracket.data.name} continues with the rule of its first decision, {kept}; the new rule "
                "applies only to combinations that are added later"
            )
    undecided = [bracket for bracket in brackets if not bracket.decisions]
    warnings += [*_sizes(undecided, space, inputs), *_warm_ups(undecided, space)]
    return list(dict.fromkeys(warnings))  # each round of a search may have the same one


def _sizes(brackets: Sequence[Bracket], space: SearchSpace, inputs: Inputs) -> list[str]:
    """Warns if training sets of different sizes compete."""
    if _SET not in space.paths:
        return []
    warnings = []
    for bracket in brackets:
        rows = [entrant.trained[0].row_indices for entrant in bracket.competing.values()]
        keys = {SetKey(*(space.value(path, row) for path in (_SET, _SIZE, _PRESET))) for row in rows}
        sizes = sorted(len(inputs.sets[key]) for key in keys)
        if sizes[-1] > _SIMILAR * sizes[0]:
            warnings.append(
                f"the race on {bracket.data.name} compares training sets of {sizes[0]:,} to {sizes[-1]:,} frames, but "
                "after a few epochs larger ones are ahead only because their epochs have more batches; train the "
                "whole grid (race: None), or run a separate experiment for each set"
            )
    return warnings


def _warm_ups(brackets: Sequence[Bracket], space: SearchSpace) -> list[str]:
    """Warns if the first decision comes before a learning rate has reached its maximum."""
    found: dict[str, tuple[int, int]] = {}
    seen = set()
    # The optimizer's arguments say how high the rate is, not when it peaks; and they may have many options.
    reads = ("scheduler", "scheduler_args", "optimizer", "solver_config.num_epochs")
    axes = [
        i for i, axis in enumerate(space.axes) if any(f"{p}.".startswith(f"{r}.") for p in axis.paths for r in reads)
    ]
    for bracket in brackets:
        for entrant in bracket.entrants.values() if bracket.n_rungs > 1 else ():
            rows = entrant.trained[0].row_indices
            of_axes = tuple(rows[place] for place in axes)
            if of_axes in seen:
                continue
            seen.add(of_axes)
            settings = space.settings(rows)
            peak, first = _epoch_of_highest_rate(settings), bracket.rungs[0].epoch(entrant.num_epochs)
            if peak > first and settings.hyperparams.scheduler is not None:
                found.setdefault(settings.hyperparams.scheduler.__name__, (peak, first))
    return [
        f"{name} raises the learning rate until epoch {peak}, but the race makes its first decision after epoch "
        f"{first}, before combinations train at the full rate; raise min_epochs"
        for name, (peak, first) in found.items()
    ]


def _epoch_of_highest_rate(settings: Settings) -> int:
    """Returns the number of epochs after which the learning rate first peaks; 0 if it starts at its highest."""
    hyperparams = copy.deepcopy(settings.hyperparams)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((1,), (1, 1))]
    try:
        optimizer = build_optimizer(hyperparams, parameters)
        scheduler = build_scheduler(hyperparams, optimizer)
    except Exception:
        return 0  # an optimizer of the user's may want other parameters, and the rate only matters for a warning
    if optimizer is None or scheduler is None or hyperparams.scheduler_requires_metric:
        return 0
    rates = []
    for _ in range(min(settings.solver.num_epochs, MAX_STEPS)):
        rates.append(max(group["lr"] for group in optimizer.param_groups))
        optimizer.step(lambda: 0.0)  # LBFGS asks for the loss
        scheduler.step()
    highest = max(rates)
    return next(epoch for epoch, rate in enumerate(rates) if math.isclose(rate, highest))
