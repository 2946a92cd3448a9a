"""The user's handle: three dicts, options, `run()`."""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, get_args

from cluster.executors.executor import Executor, Workplace
from cluster.executors.job import Job
from cluster.executors.monitor import Watch
from cluster.executors.progress import Progress
from cluster.executors.signals import Preempted
from cluster.planning.combination_checks import examine_beside
from cluster.planning.config import (
    SECTIONS,
    ConfigError,
    ExperimentConfig,
    Problem,
    SolverConfig,
    check_dicts,
    plain,
    typed,
    typed_as_far_as_right,
)
from cluster.planning.identity import UndescribableError, describe
from cluster.planning.inputs import Sources
from cluster.planning.placement import UnfitNodeError
from cluster.planning.plan import Plan, make_plan
from cluster.planning.search_space import Key, SearchSpace
from cluster.provenance import provenance
from cluster.reports.page.page import page
from cluster.reports.tables.files import write_tables
from cluster.reports.tables.summary import summary_text
from cluster.result_table import ResultTable
from cluster.results.trial_outcome import finished_val_distance_mm, trial_status
from cluster.storage.archive import Archiver, map_files
from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.folders import ExperimentFolder
from cluster.storage.lock import experiment_lock
from cluster.storage.trial_file import STATUSES, Status
from cluster.trial.trainable import TrialReport
from data_pipeline.pose_range import PoseRange
from data_pipeline.user_error import UserError, did_you_mean, first_line

INTERRUPTED_CODE = 130
PREEMPTED_CODE = 75
"""EX_TEMPFAIL of sysexits.h: it is not done, and to be tried again."""


class TrialsFailedError(UserError):
    """The run is complete, but some of its trials failed or diverged. Everything is written.

    Attributes:
        table: The result table, with a row for each of them.
    """

    def __init__(self, text: str, table: ResultTable) -> None:
        super().__init__(text)
        self.table = table


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM ended the run. A script that lets it pass exits with `code`.

    Attributes:
        code: 130 after Ctrl-C; 75 after SIGTERM, for which a scheduler may start the script again.
    """


class Experiment:
    """A sweep over hyperparameters.

    What each key of the dicts means stands in `tune_runs/README.md`.

    Args:
        experiment_config: The experiment as a whole: data, devices, repetitions.
        solver_config: How a model is trained and what is logged.
        base_hyperparams: Model and optimisation, before options.

    Raises:
        ConfigError: With every wrong key, type and value of all three dicts.
    """

    def __init__(
        self,
        experiment_config: Mapping[str, Any],
        solver_config: Mapping[str, Any],
        base_hyperparams: Mapping[str, Any],
    ) -> None:
        _show_user_errors_without_traceback()
        dicts = plain(dict(zip(SECTIONS, (experiment_config, solver_config, base_hyperparams), strict=True)))
        problems = check_dicts(dicts)
        if problems:
            with suppress(Exception):  # where there is no dict, or no data_dir, there is nothing beside it
                settings = typed_as_far_as_right(dicts, problems)
                problems += examine_beside(settings, Sources(settings.experiment.data_folder), problems)
            raise ConfigError(problems)
        # The user's own list: a run fills it, and one before may have.
        dicts["solver_config"]["interest_keys"] = solver_config["interest_keys"]
        dicts["solver_config"]["interest_keys"].clear()
        settings = typed(dicts)
        self.config: ExperimentConfig = settings.experiment
        self.solver_config: SolverConfig = settings.solver
        self.space = SearchSpace(
            {section: vars(s) for section, s in zip(SECTIONS, vars(settings).values(), strict=True)}
        )
        try:
            self.folder = ExperimentFolder(Storage(self.config.storage_path) / self.config.name)
        except StorageError as error:
            raise ConfigError([Problem("experiment_config.storage_path", str(error))]) from error

    def add_options(self, key: Key | Mapping[Any, Sequence[Any]], values: Sequence[Any] | None = None) -> None:
        """Varies a setting over some values; all combinations of all options are trained.

        Args:
            key: A dotted path such as "optimizer_args.lr", or its parts as a tuple; or a dict of paths and values.
            values: The values; left out where `key` is a dict.

        Raises:
            ConfigError: If the base has no such setting, or if a value cannot be one of it; then nothing is added.
        """
        options = list(key.items()) if isinstance(key, Mapping) else [(key, values)]
        axes_before = list(self.space.axes)
        problems = []
        for path, path_values in options:
            if not isinstance(path_values, list | tuple):
                text = f"got {path_values!r}; allowed: a list with at least one value"
                problems.append(Problem(str(path), text))
                continue
            try:
                self.space.add([path], [(value,) for value in path_values])
            except ConfigError as error:
                problems += error.problems
        if problems:
            self.space.axes = axes_before
            raise ConfigError(problems)

    def add_joint_options(self, keys: Sequence[Key], rows: Sequence[Sequence[Any]]) -> None:
        """Varies several settings together.

        Args:
            keys: The settings, each as for `add_options`.
            rows: One row of values at a time, one value for each key.

        Raises:
            ConfigError: As for `add_options`, or if a row has another number of values.
        """
        self.space.add([keys] if isinstance(keys, str) else keys, rows)

    def plan(self) -> Plan:
        """Checks everything and returns what a run would train, without running it.

        Raises:
            ConfigError: With everything that is wrong with any combination of options.
        """
        plan = self._plan(Sources(self.config.data_folder))
        return replace(plan, statuses=self._standing(plan)[0])

    def results(self) -> ResultTable:
        """Returns the table of what is on disk.

        Raises:
            NoResultsError: If the experiment was never run.
        """
        return ResultTable.read(self.folder)

    def run(
        self, executor: Executor = "ray", *, address: str | None = None, wait_for_nodes: bool = False
    ) -> ResultTable:
        """Trains what is not trained yet, writes and prints the tables, and returns them.

        Running it again skips what is finished, continues what has a checkpoint, trains what failed again, and trains
        what is new: more options, other values, more repetitions.

        Args:
            executor: "ray" trains in worker processes; "inline" in this one, one trial after another, for a debugger.
                Both give the same numbers.
            address: A Ray cluster to train on: `auto` for the one that runs on this machine, `host:port`, or
                `ray://host:port`. By default what the environment names as POSETUNE_ADDRESS or RAY_ADDRESS; without
                any, or as `local`, Ray is started on this machine for as long as the run.
            wait_for_nodes: Wait for nodes where the cluster has none that a trial fits on, as one that grows on demand;
                also by POSETUNE_WAIT_FOR_NODES=1 in the environment.

        Raises:
            ConfigError: If something is wrong with the configuration, or if no machine has what a trial needs; nothing
                was started and nothing written.
            ClusterError: If the cluster cannot be used: what is wrong with which node.
            AlreadyRunningError: If another process runs this experiment.
            LeaseLostError: If this one could not show that it runs, so that another may have begun.
            StorageError: If results cannot be written.
            TrialsFailedError: At the end, if trials failed or diverged; all others are complete.
            Interrupted: After Ctrl-C, or after SIGTERM.
        """
        if executor not in get_args(Executor):
            hint = did_you_mean(executor, get_args(Executor))
            raise ConfigError([Problem("run(executor=…)", f"there is no executor {executor!r}{hint}")])
        workplace = Workplace.of(executor, address, wait_for_nodes=wait_for_nodes)
        try:
            with workplace.signals.sigterm_noted():
                return self._run(workplace)
        except KeyboardInterrupt:
            print("\nInterrupted. What is finished is kept; run the script again to go on.", file=sys.stderr)
            raise Interrupted(INTERRUPTED_CODE) from None
        except Preempted:
            print("\nPreempted (SIGTERM). What was trained is kept; run the script again to go on.", file=sys.stderr)
            raise Interrupted(PREEMPTED_CODE) from None

    def _run(self, workplace: Workplace) -> ResultTable:
        sources = Sources(self.config.data_folder)
        plan = self._checked_plan(sources, workplace)
        with experiment_lock(self.folder.storage) as check_lock:
            # Read only now that no other run changes them.
            standing, distances = self._standing(plan)
            plan = replace(plan, statuses=standing)
            archived = self.folder.archive.clear_leftovers()
            ended = [i for i, status in standing.items() if status in ("finished", "diverged") and i not in archived]
            job = Job(self._absolute_config(), self.space, sources.sets, sources.tables, sources.weights)
            with workplace.ready(job.config) if plan.to_train else nullcontext():
                self.folder.clear_partial_files()
                self._write_experiment(plan, job)
                with Archiver(self.folder.archive, ended) as archiver:
                    ended_by = self._train(plan, job, workplace, distances, archiver)
                    if ended_by is not None:
                        archiver.stop()
            check_lock()  # whoever lost it writes no more
            table = self.results()
            self._remove_surplus_weights(plan, table)
            write_tables(table, self.folder)
        # The user's own list: it is how a script learns what was varied.
        self.solver_config.interest_keys[:] = [
            path for axis in self.space.axes if len(axis.rows) > 1 for path in axis.paths
        ]
        print(f"\n{summary_text(table)}\nAll files: {self.folder.storage.location}/", flush=True)
        if not isinstance(ended_by, BaseException):
            self._write_report()
        if isinstance(ended_by, BaseException):
            raise ended_by
        if ended_by is not None:
            n = self.config.stop_if_all_fail
            text = f"stopped, since the first {n} trials all failed (stop_if_all_fail): {ended_by}"
            raise TrialsFailedError(text, table)
        statuses = [row["status"] for row in table.trials if row["status"] != "finished"]
        if statuses:
            # One that failed because its files cannot be written still looks as if it ran.
            counts = " and ".join(f"{statuses.count(s)} {s}" for s in STATUSES if s in statuses)
            text = f"{counts} of {len(table.trials)} trials; the others are complete. See `error` in tables/trials.csv."
            raise TrialsFailedError(text, table)
        return table

    def _write_report(self) -> None:
        """Writes the report page, after the lock is given back: it says whether a run is going on."""
        try:
            print(f"Report: {self.folder.write_report(page(self.folder))}", flush=True)
        except Exception as error:
            # The results are on disk and go back to the script. No drawing may cost it days of training.
            text = f"report.html was not written ({first_line(error)}); all results are there, see tables/"
            print(text, file=sys.stderr, flush=True)

    def _checked_plan(self, sources: Sources, workplace: Workplace) -> Plan:
        """Returns the plan without statuses, or raises all that is wrong with it and with this machine for it."""
        problems = workplace.problems(self.config)
        try:
            plan = self._plan(sources)
        except ConfigError as error:
            problems = error.problems + problems
        if problems:
            raise ConfigError(problems)
        return plan

    def _plan(self, sources: Sources) -> Plan:
        return make_plan(self.space, sources, n_repetitions=self.config.n_repetitions, seed=self.config.seed)

    def _standing(self, plan: Plan) -> tuple[dict[str, Status], dict[str, float]]:
        """Returns how far trials have come, and the validation distances of the finished ones, mm, by trial id."""
        wanted = {combination.key for combination in plan.combinations}

        def is_wanted(trial_id: str) -> bool:
            return trial_id.partition("/")[0] in wanted

        known = self.folder.read_trials(lambda trial: (trial_status(trial), finished_val_distance_mm(trial)), is_wanted)
        statuses = {trial_id: status for trial_id, (status, _) in known.items() if is_wanted(trial_id)}
        return statuses, {trial_id: mm for trial_id, (_, mm) in known.items() if mm is not None}

    def _train(
        self,
        plan: Plan,
        job: Job,
        workplace: Workplace,
        distances: Mapping[str, float],
        archiver: Archiver,
    ) -> KeyboardInterrupt | Preempted | UnfitNodeError | str | None:
        """Trains what there is to train; returns what ended it before its end, a text where all trials failed.

        `distances` are the validation distances of trials that are finished, mm, by trial id.
        """
        print(plan, file=sys.stderr)
        trials = plan.to_train
        if not trials:
            return None
        options = {trial.id: trial.combination for trial in plan.trials}
        best = min((i for i in options if i in distances), key=distances.__getitem__, default=None)
        varied = [path for axis in self.space.axes if len(axis.rows) > 1 for path in axis.telling_paths]
        progress = Progress(
            n_trials=len(plan.trials),
            n_done=len(plan.trials) - len(trials),
            num_epochs=lambda trial_id: self.space.settings(options[trial_id].choice).solver.num_epochs,
            options=lambda trial_id: (
                ", ".join(f"{_short(p)} {options[trial_id].options[p]}" for p in varied) or "no options"
            ),
            best=None if best is None else TrialReport(best, "finished", val_distance_mm=distances[best]),
        )
        failed = {trial.id for trial in trials if plan.statuses.get(trial.id) == "failed"}
        failed_before = failed if len(failed) < len(trials) else frozenset()
        watch = Watch(progress, self.config.stop_if_all_fail, archiver, failed_before=failed_before)
        with progress:
            try:
                workplace.train(trials, job, watch)
            except (KeyboardInterrupt, Preempted, UnfitNodeError) as end:
                return end
        return watch.why_stop

    def _absolute_config(self) -> ExperimentConfig:
        """Returns the config with paths that mean the same in every process."""
        local = self.folder.storage.local
        return self.config if local is None else replace(self.config, storage_path=local.absolute().parent)

    def _remove_surplus_weights(self, plan: Plan, table: ResultTable) -> None:
        keep = self.config.keep_weights
        if keep == "all":
            return
        if keep == "best" and any(row["status"] in ("interrupted", "pending") for row in table.trials):
            return  # what is still to be trained may change which is the best
        kept = _best_by_validation_data(plan, table) if keep == "best" else set()
        storage = self.folder.storage
        there = {f"{FileNames.TRIALS_FOLDER}/{path}" for path in storage.files(FileNames.TRIALS_FOLDER)}
        surplus_trials = [trial.id for trial in plan.trials if trial.key not in kept]
        names = (FileNames.WEIGHTS, FileNames.FRAMES)
        paths = [FileNames.in_trial(trial_id, name) for trial_id in surplus_trials for name in names]
        map_files(storage, storage.remove, [path for path in paths if path in there])

    def _write_experiment(self, plan: Plan, job: Job) -> None:
        self.folder.write_experiment(
            {
                "name": self.config.name,
                "run": job.run_id,
                "started": time.time(),
                **provenance(),
                "configs": {section: _described(self.space.base[section]) for section in SECTIONS},
                "options": [{"paths": axis.paths, "rows": axis.labels} for axis in self.space.axes],
                "data": [
                    {
                        **dataclasses.asdict(key),
                        "fingerprint": dataset.fingerprint,
                        "samples": len(dataset),
                        "poses": PoseRange.of(dataset.labels, dataset.skeleton).to_json(),
                    }
                    for key, dataset in job.sets.items()
                ],
                "plan": {
                    "seeds": [trial.seed for trial in plan.trials[:: len(plan.combinations)]],
                    "combinations": [{"key": c.key, "options": c.options} for c in plan.combinations],
                },
            }
        )


def _best_by_validation_data(plan: Plan, table: ResultTable) -> set[str]:
    """Returns the keys of the best combinations, one for each validation data: errors on unlike data do not compare."""
    data = {c.key: str(json.loads(c.description)["data"]["val"]) for c in plan.combinations}
    best: dict[str, str] = {}
    for row in table.summary:
        if row["n"]:
            best.setdefault(data[row["key"]], row["key"])
    return set(best.values())


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    described = {}
    for key, value in config.items():
        try:
            described[key] = describe(value)
        except UndescribableError:
            described[key] = repr(value)  # a base value that an option replaces
    return described


def _short(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _show_user_errors_without_traceback() -> None:
    """Lets a script end with the text of a `UserError` alone; any other error keeps its traceback."""
    if sys.excepthook is not sys.__excepthook__:
        return  # someone else shows errors here, a notebook or a debugger

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = show
