"""The search of an experiment: proposes rounds, writes them, reads them again, and gives out their trials."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from cluster.planning.config import ConfigError, ExperimentConfig, Problem
from cluster.planning.inputs import Inputs
from cluster.planning.plan import Plan, make_plan
from cluster.planning.search_space import TEST_SET_PATHS, RowIndices, SearchSpace
from cluster.results.folds import mean_over_frames
from cluster.schedules.brackets import n_val_frames
from cluster.schedules.schedule import GridSchedule, Step
from cluster.searching.dimensions import fits
from cluster.searching.rounds import NEW_SEARCH, Round, SearchError, read_round, require_same, write_round
from cluster.searching.samplers import Proposing
from cluster.searching.search import Search
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import FINAL, Status
from cluster.trial.trainable import TrialReport
from data_pipeline.user_error import UserError
from data_pipeline.words import count, say

_STALE_S = 10.0  # for how long this process may still see the old content of a shared folder

_MOST_PASSED_OVER = 20
"""How many combinations a search may pass over for each one that it proposes, since they cannot be trained."""

_SAME_DATA = ("experiment_config.val_set", "experiment_config.val_set_size")


def check_searchable(space: SearchSpace, search: Search | None, points: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Returns what is wrong with a search, or with ranges and points without a search.

    Args:
        space: The options and ranges.
        search: The search; None for a grid.
        points: The combinations to try first, each as values by path.
    """
    where = "experiment_config.search"
    if search is None:
        ranged = [axis.name for axis in space.axes if axis.range is not None]
        add = 'add "search": Search("tpe", n_combinations=…) to experiment_config'
        problems = [Problem(path, f"is a range, which only a search can train; {add}") for path in ranged]
        return problems + ([Problem("add_point", f"only a search tries points; {add}")] if points else [])
    if not any(axis.varies and not axis.folds for axis in space.axes):
        return [Problem(where, "there is nothing to search; add ranges or options, with add_range or add_options")]
    problems = []
    for axis in space.axes:
        if not axis.folds and not set(axis.paths).isdisjoint(_SAME_DATA):
            text = "a search compares validation errors, so all combinations need the same validation set"
            problems.append(Problem(axis.name, f"{text}; run a separate experiment for each set"))
        if not axis.folds and set(axis.paths) <= set(TEST_SET_PATHS):
            text = "a search compares validation errors, on which the test set has no influence; choose one"
            problems.append(Problem(axis.name, text))
    if len({fold.dataset for fold in space.folds}) > 1:
        problems.append(
            Problem("add_folds", "a search uses the folds of one dataset; run a separate experiment for each dataset")
        )
    n = space.n_combinations(search.n_combinations)
    if n < search.n_combinations:
        text = f"there are only {n} combinations to search; lower n_combinations, or train the grid without a search"
        problems.append(Problem(where, text))
    base, not_in_space = space.point({})
    first = {*([] if not_in_space else [base]), *(space.point(point)[0] for point in points)}
    if points and len(first) > search.n_combinations:
        text = f"the base and the points are {len(first)} combinations, but n_combinations is {search.n_combinations}"
        problems.append(Problem("add_point", f"{text}, so some would never be tried"))
    for point in points:
        problems += [replace(p, text=f"in a point: {p.text}") for p in space.point(point)[1]]
    return problems


class Searching:
    """The rounds of a search.

    Args:
        space: The options and ranges.
        config: The experiment's config, with a search.
        points: The combinations to try first, each as values by path.
        inputs: Reads data and weights.
        folder: The experiment's folder.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: ExperimentConfig,
        points: Sequence[Mapping[str, Any]],
        inputs: Inputs,
        folder: ExperimentFolder,
    ) -> None:
        assert config.search is not None
        self.space, self.config, self.inputs, self.folder = space, config, inputs, folder
        self.search = config.search
        base, not_in_space = space.point({})
        self._added = list(dict.fromkeys(space.point(point)[0] for point in points))
        first = [*([] if not_in_space else [base]), *self._added]
        dimensions = [axis.dimension for axis in space.axes]
        self.proposing = Proposing(self.search.sampler, config.seed, dimensions, list(dict.fromkeys(first)))
        self.rounds: list[Round] = []
        """The rounds on disk, and possibly a last one that has not been written yet."""
        self._is_new = False

    def plan(self, corners: Plan) -> Plan:
        """Reads the rounds on disk and returns their plan; if there are none, proposes the first one.

        Args:
            corners: The plan of the space's corners, whose warnings and code apply to all combinations.

        Raises:
            ConfigError: If a point cannot be trained, or hardly any combination.
            SearchError: If the rounds on disk belong to another search or are broken.
        """
        self.rounds.clear()
        plan = self._read() or self._propose([])
        # `corners` may be this plan.
        warnings = list(dict.fromkeys([*corners.warnings, *plan.warnings, *self._points_without_place()]))
        return replace(plan, warnings=warnings, sources=corners.sources, search=self.search)

    def _points_without_place(self) -> list[str]:
        """Returns a warning about points that were added when all or nearly all combinations had been proposed."""
        proposed, size = self._proposals, self.search.round_size
        n_new = sum(point not in proposed for point in self._added)
        n_first = -(-len(proposed) // size) * size  # the last round is completed without them
        if n_first + n_new <= self.search.n_combinations or not n_new:
            return []
        n_left_out = min(n_new, n_first + n_new - self.search.n_combinations)
        return [
            f"the search will not try {count(n_left_out, 'point')} of add_point, since it had proposed "
            f"{len(proposed):,} combinations before; raise n_combinations to {n_first + n_new}"
        ]

    @property
    def is_complete(self) -> bool:
        """Whether all combinations were proposed."""
        return len(self.rounds) == self.search.n_rounds

    def write(self) -> None:
        """Writes the last round if it is new."""
        if self._is_new:
            write_round(self.folder.storage, len(self.rounds) - 1, self.rounds[-1])
            self._is_new = False

    def next_round(self, values_mm: Mapping[str, float | None]) -> Plan:
        """Proposes and writes the next round; returns its plan, with the statuses of trials that are already on disk.

        Args:
            values_mm: The validation error of each trial of the earlier rounds, by id, mm; None if it diverged.

        Raises:
            SearchError: If no new combination is found, or if hardly any can be trained.
            StorageError: If the round cannot be written.
        """
        try:
            n_frames = n_val_frames(self.space.trained(self.rounds[0].proposals[0]), self.space, self.inputs)
            plan = self._propose([self._result(of, values_mm, n_frames) for of in self._keys])
        except UserError as error:
            raise SearchError(str(error)) from error
        self.write()
        for warning in plan.warnings:
            say(f"warning: {warning}", sys.stderr)
        ids = {trial.id for trial in plan.trials}
        statuses: dict[str, Status] = self.folder.read_trials(
            lambda trial: trial.status, ids.__contains__, is_described=False
        )
        return replace(plan, statuses={i: status for i, status in statuses.items() if i in ids})

    @property
    def _proposals(self) -> list[RowIndices]:
        return [proposal for of in self.rounds for proposal in of.proposals]

    @property
    def _passed_over(self) -> list[RowIndices]:
        return [choices for of in self.rounds for choices in of.passed_over]

    @property
    def _keys(self) -> list[Sequence[str]]:
        """The keys of each proposal: one key, or one for each fold."""
        keys = [key for of in self.rounds for key in of.keys]
        n = len(keys) // len(self._proposals)
        return [keys[i : i + n] for i in range(0, len(keys), n)]

    def _result(
        self, keys: Sequence[str], values_mm: Mapping[str, float | None], n_frames: Sequence[int]
    ) -> float | None:
        """Returns the mean error of a proposal, whose folds have these keys and frames; None if one diverged."""
        means = []
        for repetition in range(self.config.n_repetitions):
            of_folds = [value for key in keys if (value := values_mm[f"{key}/{repetition}"]) is not None]
            if len(of_folds) < len(keys):
                return None
            means.append(mean_over_frames(of_folds, n_frames))
        return math.fsum(means) / len(means)

    def _plan(self, chosen: Sequence[RowIndices]) -> Plan:
        return make_plan(
            self.space,
            self.inputs,
            n_repetitions=self.config.n_repetitions,
            seed=self.config.seed,
            n_confirming=self.config.n_confirming,
            chosen=chosen,
        )

    def _plan_of(self, proposals: Sequence[RowIndices]) -> Plan:
        return self._plan([chosen for proposal in proposals for chosen in self.space.trained(proposal)])

    def _propose(self, results_mm: Sequence[float | None]) -> Plan:
        """Adds a round that follows from the results of all earlier proposals; returns its plan."""
        number, empty = len(self.rounds), self._round(results_mm)
        of_round, plan = self._trainable(number, empty, self._proposals)
        self.rounds.append(replace(of_round, keys=[c.key for c in plan.combinations]))
        self._is_new = True
        return plan

    def _trainable(self, number: int, start: Round, earlier: Sequence[RowIndices]) -> tuple[Round, Plan]:
        """Returns the round that `start` begins with all proposals, and the plan of the new ones.

        The plan has a warning if combinations were passed over. These are in the round, because a class that refused
        them may have changed when the search continues.

        Raises:
            ConfigError: If a point cannot be trained, or hardly any combination.
        """
        size, known, new = self.search.size(number), set(self._passed_over), dict[RowIndices, Problem]()
        proposals = start.more(self._proposing_without(known), earlier, size)
        try:
            plan = self._plan_of(proposals[len(start.proposals) :])
        except ConfigError:
            most = _MOST_PASSED_OVER * (len(earlier) + size)

            def accepts(proposal: RowIndices) -> bool:
                if proposal in known or proposal in new:
                    return False
                if problems := self._problems(proposal):
                    new[proposal] = problems[0]
                    if len(known) + len(new) > most:
                        raise _untrainable(number, problems) from None
                return not problems

            proposals = start.more(replace(self.proposing, accepts=accepts), earlier, size)
            try:
                plan = self._plan_of(proposals[len(start.proposals) :])
            except ConfigError as error:
                raise _untrainable(number, error.problems) from error
        of_round = replace(start, proposals=proposals, passed_over=[*start.passed_over, *new])
        if not new:
            return of_round, replace(plan, warnings=[])
        n, example = count(len(new), "combination"), next(iter(new.values()))
        text = f"round {number} of the search passes over {n} that cannot be trained; for example, {example}"
        return of_round, replace(plan, warnings=[text])

    def _proposing_without(self, passed_over: Set[RowIndices]) -> Proposing:
        return replace(self.proposing, accepts=lambda proposal: proposal not in passed_over)

    def _problems(self, proposal: RowIndices) -> Sequence[Problem]:
        try:
            self._plan_of([proposal])
        except ConfigError as error:
            return error.problems
        return ()

    def _round(self, results_mm: Sequence[float | None]) -> Round:
        """Returns an empty round of this search."""
        return Round(
            self.search.sampler,
            self.config.seed,
            self.search.round_size,
            space=[axis.to_json() for axis in self.space.axes],
            points=self.proposing.points,
            results_mm=results_mm,
            versions={name: version(name) for name in ("optuna", "scipy", "numpy")},
            proposals=[],
            keys=[],
        )

    def _read(self) -> Plan | None:
        """Reads the rounds on disk, at most as many as this search has; returns their plan, None if there are none."""
        storage, expected = self.folder.storage, self._round([])
        where = f"the search in {storage.location}/{FileNames.SEARCH_FOLDER}"
        for number in range(self.search.n_rounds):
            found = read_round(storage, number)
            if found is None:
                break
            require_same(found, expected, where)
            fit = all(fits(proposal, self.proposing.dimensions) for proposal in found.proposals)
            if not fit or len(found.results_mm) != len(self._proposals) or not found.proposals:
                raise SearchError.broken(storage, number, "its proposals or results do not match the search")
            self.rounds.append(found.first(self.search.size(number)))
        if not self.rounds:
            return None
        warnings = self._complete_last()
        plan = self._plan_of(self._proposals)
        then, keys = [key for of in self.rounds for key in of.keys], [c.key for c in plan.combinations]
        if then != keys[: len(then)]:
            raise SearchError(
                f"{where} was started with other data or another base, such as another num_epochs. {NEW_SEARCH}"
            )
        self.rounds[-1] = replace(self.rounds[-1], keys=keys[len(then) - len(self.rounds[-1].keys) :])
        return replace(plan, warnings=warnings)

    def _complete_last(self) -> list[str]:
        """Completes the last round if a smaller search cut it short; returns warnings about what it passes over.

        First checks it by proposing it again, unless other versions of the packages proposed it.
        """
        last, number = self.rounds[-1], len(self.rounds) - 1
        earlier = self._proposals[: -len(last.proposals)]
        if last.versions == self._round([]).versions:
            proposing = self._proposing_without(set(self._passed_over))
            again = replace(last, proposals=[]).more(proposing, earlier, len(last.proposals))
            if again != last.proposals:
                raise SearchError.broken(self.folder.storage, number, "its proposals do not follow from its results")
        self._is_new = len(last.proposals) < self.search.size(number)
        if not self._is_new:
            return []
        self.rounds[-1], plan = self._trainable(number, last, earlier)
        return plan.warnings


def _untrainable(number: int, problems: Sequence[Problem]) -> ConfigError:
    where = f"round {number} of the search proposes combinations that cannot be trained: "
    return ConfigError([replace(problem, text=where + problem.text) for problem in problems])


class SearchSchedule:
    """Trains the rounds of a search one after another; a round begins when all trials of the previous one have ended.

    A failed trial has no result. No further round begins then, and the next run trains the trial again.

    Args:
        searching: The rounds.
        plan: The plan of the rounds proposed so far, with statuses.
        grown: Called with the new plan after a round was added, before any of it is trained.
    """

    def __init__(self, searching: Searching, plan: Plan, grown: Callable[[Plan], None]) -> None:
        self.plan = plan
        self.n_parallel = searching.search.round_size * len(plan.trials) // plan.n_proposed
        self._searching = searching
        self._grown = grown
        self._values_mm: dict[str, float | None] = {}
        self._begin(plan)

    def _begin(self, plan: Plan) -> None:
        self._round = GridSchedule(plan.to_train)
        self._open = {trial.id for trial in plan.to_train}

    @property
    def all_given(self) -> bool:
        """Whether all trials of all rounds were given out."""
        return self._searching.is_complete and self._round.all_given

    def next(self) -> Step | None:
        """Returns a trial of the current round; proposes the next round once all of its trials have ended."""
        while (step := self._round.next()) is None and not self._open and not self._searching.is_complete:
            more = self._searching.next_round(self._values())
            self.plan = self.plan.with_more(more)
            self._grown(self.plan)
            self._begin(more)
        return step

    def ended(self, report: TrialReport) -> None:
        """A trial ended."""
        self._round.ended(report)
        if report.status in FINAL:
            self._open.discard(report.trial_id)

    def _values(self) -> dict[str, float | None]:
        """Returns the validation error of each trial from its file, by id, mm; None if it diverged."""
        unknown = {trial.id for trial in self.plan.trials} - self._values_mm.keys()
        folder, until = self._searching.folder, time.monotonic() + _STALE_S
        while True:
            found = folder.read_trials(
                lambda trial: (trial.status, trial.val_distance_mm), unknown.__contains__, is_described=False
            )
            ended = {i for i in unknown & found.keys() if found[i][0] in FINAL}
            self._values_mm |= {trial_id: found[trial_id][1] for trial_id in ended}
            unknown -= ended
            if not unknown:
                return self._values_mm
            if time.monotonic() > until:
                location = folder.storage.location
                raise StorageError(f"{location} has no result of {min(unknown)}, which has ended; was it removed?")
            time.sleep(_STALE_S / 100)
