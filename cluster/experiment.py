"""The user's handle: three dicts, options, `run()`."""

import gc
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, get_args

from cluster.executors.executor import Executor, ExecutorName, RunEnd
from cluster.executors.job import Job
from cluster.executors.signals import Preempted
from cluster.experiment_files import remove_surplus_weights
from cluster.planning.combination_checks import check_unaffected
from cluster.planning.config import (
    SECTIONS,
    ConfigError,
    ExperimentConfig,
    Problem,
    Settings,
    SolverConfig,
    check_dicts,
    valid_settings,
    without_numpy,
)
from cluster.planning.folds import PATHS, find_folds
from cluster.planning.inputs import Inputs
from cluster.planning.placement import UnusableNodeError
from cluster.planning.plan import Plan, make_plan
from cluster.planning.search_space import Key, SearchSpace, dotted
from cluster.reports.formats.terminal import terminal_width
from cluster.reports.page.page import page
from cluster.reports.tables.files import write_tables
from cluster.reports.tables.summary import summary_text
from cluster.result_table import ResultTable
from cluster.schedules.race_plan import race_problems
from cluster.schedules.search_schedule import Searching, check_searchable
from cluster.searching.dimensions import Range
from cluster.searching.rounds import SearchError
from cluster.standing import Standing
from cluster.storage.experiment_file import NoResultsError
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lock import experiment_lock
from cluster.storage.trial_file import STATUSES
from cluster.training import Training
from cluster.trial.rehearsal import rehearse
from data_pipeline.user_error import UserError, did_you_mean, first_line
from data_pipeline.words import count, say, value_text

# The libraries consist of hundreds of thousands of objects, which live as long as the process. Searching them for
# garbage again and again, and releasing them one by one at the end, would keep the user waiting for half a second.
gc.freeze()

INTERRUPTED_CODE = 130
PREEMPTED_CODE = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""


class TrialsFailedError(UserError):
    """Trials failed or diverged. All results are written.

    Attributes:
        table: The result table, with a row for each trial.
    """

    def __init__(self, text: str, table: ResultTable) -> None:
        super().__init__(text)
        self.table = table


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM ended the run. A script that does not catch it exits with `code`.

    Attributes:
        code: 130 after Ctrl-C; 75 after SIGTERM, for which a scheduler may start the script again.
    """


class Experiment:
    """A sweep over hyperparameters.

    `tune_runs/README.md` explains each key of the dicts.

    Args:
        experiment_config: The experiment as a whole: data, devices, repetitions.
        solver_config: How a model is trained and what is logged.
        base_hyperparams: Model and optimisation, before options.

    Raises:
        ConfigError: With all wrong keys, types and values of all three dicts.
    """

    def __init__(
        self,
        experiment_config: Mapping[str, Any],
        solver_config: Mapping[str, Any],
        base_hyperparams: Mapping[str, Any],
    ) -> None:
        _show_user_errors_without_traceback()
        dicts = without_numpy(dict(zip(SECTIONS, (experiment_config, solver_config, base_hyperparams), strict=True)))
        problems = check_dicts(dicts)
        settings = valid_settings(dicts, problems)
        config = settings.experiment
        if config.name is not None and config.storage_path is not None:  # those that are wrong are None
            try:
                self.folder = ExperimentFolder(Storage(config.storage_path) / config.name)
            except StorageError as error:
                problems.append(Problem("experiment_config.storage_path", str(error)))
        if problems:
            problems += check_unaffected(settings, Inputs(settings.experiment.data_folder), problems)
            raise ConfigError(problems)
        # The user's own list, which a run fills; an earlier run may have filled it.
        dicts["solver_config"]["interest_keys"] = solver_config.get("interest_keys", [])
        dicts["solver_config"]["interest_keys"].clear()
        settings = Settings.of(dicts)
        self.config: ExperimentConfig = settings.experiment
        self.solver_config: SolverConfig = settings.solver
        self.space = SearchSpace(settings)
        self.points: list[dict[str, Any]] = []

    def add_options(
        self,
        key: Key | Mapping[Any, Sequence[Any]],
        values: Sequence[Any] | None = None,
        *,
        labels: Sequence[str] | None = None,
        when: Mapping[Key, Any] | None = None,
    ) -> None:
        """Varies a setting; a grid trains all combinations of all options, and a search proposes some of them.

        Args:
            key: A dotted path such as "optimizer_args.lr", or its parts as a tuple; or a dict of paths and values.
            values: The values; omitted if `key` is a dict.
            labels: A label for each value, shown in its place; not with a dict.
            when: The values of other options with which it varies, such as `{"model": CorrectorMLP}`. Elsewhere it
                keeps its base value, or is left out if it is an argument that the class there does not accept.

        Raises:
            ConfigError: If the base has no such setting, or if a value is not allowed; then nothing is added.
        """
        options = list(key.items()) if isinstance(key, Mapping) else [(key, values)]
        axes_before = list(self.space.axes)
        if labels is not None and isinstance(key, Mapping):
            text = "a dict of options takes no labels; call add_options for each option that has them"
            raise ConfigError([Problem("add_options", text)])
        problems = []
        for path, path_values in options:
            if not isinstance(path_values, list | tuple):
                text = f"got {value_text(path_values)}; allowed: a list with at least one value"
                problems.append(Problem(str(path), text))
                continue
            try:
                self.space.add([path], [(value,) for value in path_values], labels=labels, when=when)
            except ConfigError as error:
                problems += error.problems
        if problems:
            self.space.axes = axes_before
            raise ConfigError(problems)

    def add_range(
        self,
        key: Key,
        low: float,
        high: float,
        *,
        log: bool = False,
        integer: bool = False,
        step: float | None = None,
        when: Mapping[Key, Any] | None = None,
    ) -> None:
        """Lets the search choose a number from `low` to `high`, both included, rounded to four significant digits.

        Args:
            key: A dotted path such as "optimizer_args.lr", or its parts as a tuple.
            low: The smallest value.
            high: The largest value.
            log: Whether numbers are proposed evenly on a log scale instead of a linear one.
            integer: Whether the values are ints, which are not rounded.
            step: The distance between neighbouring values; None to allow any number.
            when: See `add_options`.

        Raises:
            ConfigError: If the base has no such setting, or if a value is not allowed; then nothing is added.
        """
        self.space.add_range(key, Range(*without_numpy([low, high, log, integer, step])), when)

    def add_point(self, values: Mapping[Key, Any]) -> None:
        """Names a combination that a search tries first, right after the base if that is in the search space.

        Args:
            values: Values of ranges and options that were already added; all others keep their base value.

        Raises:
            ConfigError: If a value is not in its range or not among its options; then nothing is added.
        """
        if not isinstance(values, Mapping):
            raise ConfigError([Problem("add_point", f"got {values!r}; allowed: a dict of settings and their values")])
        point = {dotted(key): value for key, value in without_numpy(dict(values)).items()}
        named = point.keys()
        problems = [
            problem for problem in self.space.point(point)[1] if not named.isdisjoint(problem.path.split(" & "))
        ]
        if problems:
            raise ConfigError(problems)
        self.points.append(point)

    def add_joint_options(
        self, keys: Sequence[Key], rows: Sequence[Sequence[Any]], *, labels: Sequence[str] | None = None
    ) -> None:
        """Varies several settings together. Tables have one column for them.

        Args:
            keys: The settings, each as for `add_options`.
            rows: Rows of values, with one value for each key.
            labels: A label for each row, such as "small MLP", shown in place of its values. Without labels, tables
                show what differs. Labels change no number: they may be added or changed later.

        Raises:
            ConfigError: As for `add_options`, or if a row has another number of values.
        """
        self.space.add([keys] if isinstance(keys, str) else keys, rows, labels=labels)

    def add_folds(self, names: str | Sequence[str]) -> None:
        """Trains each combination on every fold of a split dataset; tables combine the folds into one row.

        `prepare_data.py … --folds` makes the folds. Together they test each frame exactly once. They replace the sets
        of `experiment_config`; a trial has the same identity as one whose sets were given there.

        Args:
            names: The name of the split dataset: 'nyu' for the sets `nyu_fold1_train`, `nyu_fold1_val`,
                `nyu_fold1_test`, `nyu_fold2_train`, ... in the data folder. Or several names, for example one for each
                backbone, which have a row each.

        Raises:
            ConfigError: If no such folds exist, if a fold lacks a set, or if an option already varies the sets. Then
                nothing is added.
        """
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            text = f"got {names!r}; allowed: the name of a split dataset, or a list of names"
            raise ConfigError([Problem("add_folds", text)])
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError([Problem("add_folds", f"{twice!r} is listed twice")])
        folds = find_folds(self.config.data_folder, names)
        self.space.add(PATHS, list(folds.values()), list(folds))

    def plan(self) -> Plan:
        """Checks everything and returns what a run would train.

        Raises:
            ConfigError: With all problems of all combinations.
            SearchError: If the rounds of the search on disk belong to another search, or are broken.
            RaceError: If decisions of a race on disk contradict each other.
            StorageError: If results cannot be read.
        """
        inputs = Inputs(self.config.data_folder)
        return Standing.read(self._plan(inputs, self._searching(inputs)), self.space, inputs, self.folder).plan

    def results(self) -> ResultTable:
        """Reads the result table from disk.

        Raises:
            NoResultsError: If the experiment has not been run.
        """
        return ResultTable.read(self.folder)

    def run(
        self, executor: ExecutorName = "ray", *, address: str | None = None, wait_for_nodes: bool = False
    ) -> ResultTable:
        """Trains all trials that are not finished, writes and prints the tables, and returns them.

        A further run skips finished trials, continues those with a checkpoint, trains failed ones again, and trains new
        ones: more options, other values, more repetitions.

        Args:
            executor: "ray" trains in worker processes; "inline" trains one trial after another in this process, for a
                debugger. Both give the same numbers. With "inline", the error of a trial ends the run: it is raised
                after the trial was recorded as failed.
            address: A Ray cluster to train on: `auto` for the one that runs on this machine, `host:port`, or
                `ray://host:port`. The default is POSETUNE_ADDRESS or RAY_ADDRESS from the environment. Without an
                address, or with `local`, the run starts Ray on this machine and stops it at its end.
            wait_for_nodes: Wait if the cluster has no node that a trial fits on, as a cluster that grows on demand;
                POSETUNE_WAIT_FOR_NODES=1 in the environment does the same.

        Raises:
            ConfigError: If the configuration is wrong, if no machine has what a trial needs, or if the user's own code
                cannot be sent to workers; nothing was trained.
            ClusterError: If the cluster cannot be used; the text names the node and the problem.
            UnusableNodeError: If trials cannot be trained on a node that joined the cluster during the run.
            AlreadyRunningError: If another process runs this experiment.
            RaceError: If decisions of a race do not match what is on disk; nothing was trained.
            SearchError: If the rounds of the search on disk belong to another search, are broken, or cannot be
                completed.
            LeaseLostError: If this process could not renew its lock, so another one may have started.
            StorageError: If results cannot be written, or if they were removed during the run.
            TrialsFailedError: At the end, if trials failed or diverged; all others are complete.
            Interrupted: After Ctrl-C or SIGTERM.
        """
        if executor not in get_args(ExecutorName):
            hint = did_you_mean(executor, get_args(ExecutorName))
            raise ConfigError([Problem("run(executor=…)", f"there is no executor {executor!r}{hint}")])
        chosen = Executor.of(executor, address, wait_for_nodes=wait_for_nodes)
        try:
            with chosen.signals.sigterm_noted(), chosen.closing:
                return self._run(chosen)
        except (KeyboardInterrupt, Preempted) as error:  # before or after the training
            raise _interrupted(RunEnd.of(error)) from None

    def _run(self, executor: Executor) -> ResultTable:
        inputs = Inputs(self.config.data_folder)
        searching = self._searching(inputs)
        plan = self._checked_plan(inputs, executor, searching)
        job = replace(Job.of(self._absolute_config(), self.space, inputs), sources=plan.sources)
        with experiment_lock(self.folder.storage, executor.signals.pause) as check_lock:
            end, plan = Training(job, inputs, searching, check_lock).run(plan, executor)
            table = self._results_of_run()
            remove_surplus_weights(plan, table, job)
            write_tables(table, self.folder)
        # The user's own list: from it the script learns which settings varied.
        self.solver_config.interest_keys[:] = [path for axis in self.space.axes if axis.varies for path in axis.paths]
        say(f"\n{summary_text(table, width=terminal_width())}\nAll files: {self.folder.storage.location}/")
        if not end.from_outside:
            self._write_report(table)
        self._require_complete(end, table)
        return table

    def _checked_plan(self, inputs: Inputs, executor: Executor, searching: Searching | None) -> Plan:
        """Returns the plan without statuses, or raises all problems of the configuration and of this machine."""
        problems = executor.problems(self.config)
        try:
            plan = self._plan(inputs, searching)
        except ConfigError as error:
            problems = error.problems + problems
        if problems:
            raise ConfigError(problems)
        return plan

    def _searching(self, inputs: Inputs) -> Searching | None:
        """Returns the rounds of the search; None for a grid."""
        if self.config.search is None:
            return None
        return Searching(self.space, self.config, self.points, inputs, self.folder)

    def _plan(self, inputs: Inputs, searching: Searching | None = None) -> Plan:
        problems = check_searchable(self.space, self.config.search, self.points) + race_problems(self.space)
        # The corners of what a search may propose are checked here, and each proposal later.
        chosen = self.space.corners() if searching is not None or self.space.has_ranges else None
        try:
            plan = make_plan(
                self.space,
                inputs,
                n_repetitions=self.config.n_repetitions,
                seed=self.config.seed,
                n_confirming=self.config.n_confirming,
                chosen=chosen,
            )
            problems += rehearse(plan, self.space, inputs)
        except ConfigError as error:
            problems = error.problems + problems
        if problems:
            raise ConfigError(problems)
        return plan if searching is None else searching.plan(plan)

    def _absolute_config(self) -> ExperimentConfig:
        """Returns the config with a storage path that means the same in every process."""
        local = self.folder.storage.local
        return self.config if local is None else replace(self.config, storage_path=local.parent)

    def _results_of_run(self) -> ResultTable:
        """Reads the result table; StorageError if the description that this run wrote is not there any more."""
        try:
            return self.results()
        except NoResultsError as error:
            raise StorageError(
                f"{self.folder.storage.location}/{FileNames.EXPERIMENT} was removed or damaged while this run was "
                "training. Run the script again: it trains what is missing and writes the tables"
            ) from error

    def _write_report(self, table: ResultTable) -> None:
        """Writes the report page. The lock must be released before: the page says whether a run is in progress."""
        try:
            say(f"Report: {self.folder.write_report(page(self.folder, table))}")
        except Exception as error:
            # The results are on disk. The script must get them, even if the page cannot be drawn.
            text = f"report.html was not written ({first_line(error)}); all results are complete, see tables/"
            say(text, sys.stderr)

    def _require_complete(self, end: RunEnd, table: ResultTable) -> None:
        """Raises an error that says how the run ended, unless all trials are finished."""
        if end.kind == "unusable_node":
            raise UnusableNodeError(end.reason)
        if end.kind == "search_ended":
            raise SearchError(end.reason)
        if end.from_outside:
            raise _interrupted(end)
        if end.kind == "all_failed":
            first = f"the first {self.config.stop_if_all_fail} trials all failed (stop_if_all_fail): {end.reason}"
            raise TrialsFailedError(f"stopped, since {first}", table)
        trials = table.single_folds.trials
        others = [row for row in trials if row["status"] not in ("finished", "dropped")]
        if others:
            statuses = [row["status"] for row in others]
            # A trial that failed because its files cannot be written still has the status `interrupted`.
            counts = " and ".join(f"{statuses.count(s)} {s}" for s in STATUSES if s in statuses)
            goes_on = not {"interrupted", "pending"}.isdisjoint(statuses)
            waits = "search" if table.n_not_proposed else "race" if goes_on and self.config.race is not None else None
            complete = "" if len(others) == len(trials) else "; the others are complete"
            rest = complete if waits is None else f"; the {waits} waits for them"
            text = f"{counts} of {len(trials)} trials{rest}. This shows an error with its traceback:"
            raise TrialsFailedError(f"{text}\n  {self._log_command([*table.failures, *others][0])}", table)
        if table.n_not_proposed:
            raise SearchError(
                f"the search still has to propose {count(table.n_not_proposed, 'combination')}, but does not find the "
                "results of all trials, which have ended; were files removed? Run the script again"
            )

    def _log_command(self, trial: Mapping[str, Any]) -> str:
        results = str(self.config.storage_path)
        where = [] if results == "results" else ["--storage-path", results]
        return shlex.join(
            ["posetune", "report", "log", self.config.name, f"{trial['key']}/{trial['repetition']}", *where]
        )


def _interrupted(end: RunEnd) -> Interrupted:
    """Tells the user how to continue, and returns the exception that ends the script."""
    if end.kind == "preempted":
        code, text = PREEMPTED_CODE, "Preempted (SIGTERM). All training progress is kept"
    else:
        code, text = INTERRUPTED_CODE, "Interrupted. Finished trials are kept"
    say(f"\n{text}; run the script again to continue.", sys.stderr)
    return Interrupted(code)


def _show_user_errors_without_traceback() -> None:
    """Makes a script end with only the text of a `UserError`; other errors keep their traceback."""
    if sys.excepthook is not sys.__excepthook__:
        return  # a notebook or a debugger shows errors itself

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            say(f"error: {error}", sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = show
