"""The progress display of a run: live on a terminal and in a notebook, a line every 30 seconds in a log file."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.executors.notebook import CellOutput, kernel_shell
from cluster.planning.plan import Plan
from cluster.planning.search_space import SearchSpace
from cluster.results.names import short_names
from cluster.trial.trainable import TrialReport
from data_pipeline.words import visible

_LOG_INTERVAL_S = 30.0
_MAX_RUNNING_SHOWN = 16
_KEY_LENGTH = 8
"""Of a running trial, for lack of space; `report.py` takes it."""


class Progress:
    """The display of a run; use it as a context.

    Args:
        n_trials: Trials of the experiment.
        n_done: Trials that need no training.
        n_epochs: Epochs that this run trains, of all trials together.
        num_epochs: Returns a trial's number of epochs, by trial id.
        epochs_done: How many of them need no training, by trial id; 0 for others.
        options: Returns a trial's options as a short text, by trial id.
        best: The best trial of earlier runs.
        has_best: Whether all trials have the same validation set; otherwise none of them is the best.
        is_race: Whether decisions of a race may change `n_epochs`, so that the display counts epochs, not trials.
        console: The default is standard error, so that standard output contains only the table.
    """

    def __init__(
        self,
        *,
        n_trials: int,
        n_done: int,
        n_epochs: int,
        num_epochs: Callable[[str], int],
        options: Callable[..., str],
        epochs_done: Mapping[str, int] = MappingProxyType({}),
        best: TrialReport | None = None,
        has_best: bool = True,
        is_race: bool = False,
        console: Console | None = None,
    ) -> None:
        self.n_trials = n_trials
        self.n_done_before = n_done
        self.n_epochs = n_epochs
        self.num_epochs = num_epochs
        self.epochs_done = dict(epochs_done)
        self.options = options
        shell = kernel_shell()
        # A kernel sets FORCE_COLOR for the programs that cells run, and rich would take it for a terminal.
        self.console = console or Console(stderr=True, force_jupyter=False, force_terminal=False if shell else None)
        self.cell_output = CellOutput(shell, self._render) if shell else None
        self.running: dict[str, TrialReport | None] = {}
        self.ended = set[str]()
        self.n_dropped = 0  # trials that a race has dropped in this run and that had not ended
        self.n_epochs_of_ended = 0
        self.n_failed = 0
        self.failures = Counter[tuple[str, str | None]]()
        self.best = best if has_best else None
        self.has_best = has_best
        self.is_race = is_race
        self.race = ""
        self.start = time.monotonic()
        self.pace = _Pace()
        self.is_starting_ray = False
        self.last_summary = self.start
        self.live = Live(console=self.console, get_renderable=self._render, refresh_per_second=4, transient=True)

    @classmethod
    def of(cls, plan: Plan, space: SearchSpace, val_distances_mm: Mapping[str, float]) -> "Progress":
        """Returns the display of a plan; `val_distances_mm` are those of finished trials, by trial id."""
        known = [trial.id for trial in plan.trials if trial.id in val_distances_mm]
        best = min(known, key=val_distances_mm.__getitem__, default=None)
        num_epochs, options = _described(plan, space)
        to_train = [trial.id for trial in plan.to_train]
        n_epochs = sum(num_epochs(trial_id) - plan.epochs_done.get(trial_id, 0) for trial_id in to_train)
        of_all = sum(num_epochs(trial.id) for trial in plan.trials)
        return cls(
            n_trials=plan.n_trials,
            n_done=len(plan.trials) - len(to_train),
            # This assumes that combinations that a search has yet to propose resemble those proposed so far.
            n_epochs=n_epochs + of_all * (plan.n_trials - len(plan.trials)) // len(plan.trials)
            if plan.n_epochs_of_races is None
            else plan.n_epochs_of_races,
            num_epochs=num_epochs,
            epochs_done=plan.epochs_done,
            options=options,
            best=None if best is None else TrialReport(best, "finished", val_distance_mm=val_distances_mm[best]),
            has_best="experiment_config.val_set" not in space.paths,
            is_race=plan.n_epochs_of_races is not None,
        )

    def grown(self, plan: Plan, space: SearchSpace) -> None:
        """A search has proposed more combinations; the plan has all trials so far."""
        self.num_epochs, self.options = _described(plan, space)
        self.n_done_before = len(plan.trials) - len(plan.to_train)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        if self.cell_output is not None:
            self.cell_output.clear()
        for (status, text), n in self.failures.items():
            if n > 1:
                first_line = str(text).partition("\n")[0]
                self.say(f"{status}: {n} trials with the same error, {first_line}")

    def starting_ray(self) -> None:
        """Ray is being started, which takes seconds, or a minute on a busy machine."""
        self.is_starting_ray = True
        self.refresh()
        if not self.is_live:
            self.say("starting Ray")

    def decided(self, text: str, standing: str, n_epochs_left: int, dropped: Set[str] = frozenset()) -> None:
        """A race has decided which combinations stay.

        Args:
            text: A sentence about the decision.
            standing: A sentence about what the race trains now, and its leader.
            n_epochs_left: About how many epochs the race still has to train, counted from its latest decisions.
            dropped: The ids of all trials that races have dropped in this run.
        """
        self.race = standing
        self.n_dropped = len(dropped - self.ended)
        self.n_epochs = self.n_epochs_of_ended + n_epochs_left
        self.say(text)

    def started(self, trial_id: str) -> None:
        """A trial was started, for the first time or again."""
        self.is_starting_ray = False
        self.running[trial_id] = None
        self.pace.started(trial_id, self.epochs_done.get(trial_id, 0), n_running=len(self.running))
        self.refresh()

    def reported(self, report: TrialReport) -> None:
        """A trial reported its state."""
        for line in report.lines:
            self.say(line)
        self.pace.reported(report)
        if report.status == "running":
            self.running[report.trial_id] = report
        elif report.status == "interrupted":
            self.running.pop(report.trial_id, None)
        elif report.status == "paused":
            self.running.pop(report.trial_id, None)
            self.n_epochs_of_ended += self._n_epochs_of(report.trial_id, report.epoch)
            self.epochs_done[report.trial_id] = report.epoch
        else:
            self._ended(report)
        self.refresh()
        if not self.is_live and time.monotonic() - self.last_summary >= _LOG_INTERVAL_S:
            self.say(self._summary_line())
            self.last_summary = time.monotonic()

    @property
    def is_live(self) -> bool:
        """Whether the display shows the present state all the time."""
        return self.console.is_terminal or self.cell_output is not None

    def refresh(self) -> None:
        """Shows the present state in a notebook; on a terminal it is shown all the time."""
        if self.cell_output is not None:
            self.cell_output.refresh()

    def say(self, text: str) -> None:
        """Prints a line above the display."""
        self.console.print(visible(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _ended(self, report: TrialReport) -> None:
        self.running.pop(report.trial_id, None)
        self.ended.add(report.trial_id)
        # The epochs of a race are those up to its rungs, which a trial that failed or diverged has not reached.
        epoch = report.epoch if self.is_race else self.num_epochs(report.trial_id)
        self.n_epochs_of_ended += self._n_epochs_of(report.trial_id, epoch)
        if report.status == "finished":
            if self.has_best and (self.best is None or _distance(report) < _distance(self.best)):
                self.best = report
        else:
            self.n_failed += 1
            failure = report.status, report.error
            self.failures[failure] += 1
            if self.failures[failure] == 1:  # the others are counted at the end
                self.say(f"{report.status}: {report.trial_id} ({self.options(report.trial_id)}): {report.error}")

    @property
    def fraction(self) -> float:
        """The fraction of this run's training that is done."""
        # A copy: the display calls this from a thread of its own.
        reports = [report for report in list(self.running.values()) if report is not None]
        of_running = sum(self._n_epochs_of(report.trial_id, report.epoch) for report in reports)
        return min(1.0, (self.n_epochs_of_ended + of_running) / max(1, self.n_epochs))

    def _n_epochs_of(self, trial_id: str, epoch: int) -> int:
        """Returns how many epochs of a trial this run has trained after an epoch."""
        return max(0, epoch - self.epochs_done.get(trial_id, 0))

    def _time_left(self) -> str:
        if self.is_starting_ray:
            return "starting Ray"
        n_left = self.n_trials - self.n_done_before - len(self.ended) - self.n_dropped
        seconds = self.pace.seconds_for(self.n_epochs * (1 - self.fraction), n_left)
        return "no estimate yet" if seconds is None else f"{duration(seconds)} left"

    def _done_text(self) -> str:
        if self.is_race:
            return f"{round(self.fraction * self.n_epochs):,} of about {self.n_epochs:,} epochs"
        return f"{self.n_done_before + len(self.ended)}/{self.n_trials} trials"

    def _summary_line(self) -> str:
        # Inline, no trial runs when one has just ended.
        running = [f"{len(self.running)} running"] if self.running else []
        parts = [self._done_text(), *running, self._time_left()]
        if self.n_failed:
            parts.append(f"{self.n_failed} failed or diverged")
        if self.best is not None:
            parts.append(f"best so far {_distance(self.best):.2f} mm ({self.options(self.best.trial_id)})")
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(self._done_text(), style="bold"),
            ProgressBar(total=1.0, completed=self.fraction, width=30),
            Text(f"{duration(time.monotonic() - self.start)}, {self._time_left()}"),
            Text(f"{self.n_failed} failed or diverged", style="red") if self.n_failed else Text(""),
        )
        running = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("running", "options", "epoch", "validation", "where"):
            running.add_column(
                heading, justify="right" if heading in ("epoch", "validation") else "left", no_wrap=heading != "options"
            )
        shown = list(self.running.items())[:_MAX_RUNNING_SHOWN]
        for trial_id, report in shown:
            epoch = self.epochs_done.get(trial_id, 0) if report is None else report.epoch
            distance = "" if report is None or report.val_distance_mm is None else f"{report.val_distance_mm:.2f} mm"
            place = "" if report is None or report.place is None else report.place
            # Without `no_wrap` of its column, this text alone is shortened if the terminal is narrow.
            options = Text(visible(self.options(trial_id)), no_wrap=True, overflow="ellipsis")
            numbers = (f"{epoch}/{self.num_epochs(trial_id)}", distance, visible(place))
            key, _, repetition = trial_id.partition("/")
            running.add_row(Text(f"{key[:_KEY_LENGTH]}/{repetition}"), options, *map(Text, numbers))
        parts: list[RenderableType] = [bar, *([Text(visible(self.race), style="dim")] if self.race else []), running]
        if len(self.running) > len(shown):
            parts.append(Text(f"and {len(self.running) - len(shown)} more", style="dim"))
        if self.best is not None:
            text = (
                f"best so far: {_distance(self.best):.2f} mm on the validation set ({self.options(self.best.trial_id)})"
            )
            parts.append(Text(visible(text), style="green"))
        return Group(*parts)


@dataclass
class _Pace:
    """How long epochs take, measured between two reports of a trial.

    The time before a trial's first report counts only if another trial has reported before: then Ray and its workers
    run. A trial that is started again may continue from a checkpoint, so its first report shows no progress.

    Attributes:
        seconds: The measured time, of all trials together.
        n_epochs: What was trained in this time.
        n_parallel: The largest number of trials that ran at the same time.
        since: When each running trial was last heard of, and how many epochs it had then.
        known: All trials that were started.
        has_begun: Whether any trial has reported.
    """

    seconds: float = 0.0
    n_epochs: int = 0
    n_parallel: int = 1
    since: dict[str, tuple[float, int]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    has_begun: bool = False

    def started(self, trial_id: str, epoch: int, *, n_running: int) -> None:
        """A trial was started after an epoch, for the first time or again."""
        self.n_parallel = max(self.n_parallel, n_running)
        if self.has_begun and trial_id not in self.known:
            self.since[trial_id] = time.monotonic(), epoch
        self.known.add(trial_id)

    def reported(self, report: TrialReport) -> None:
        """A trial reported its state."""
        self.has_begun = True
        now = time.monotonic()
        last, epoch_then = self.since.pop(report.trial_id, (now, report.epoch))
        if report.epoch >= epoch_then:  # else its worker was lost
            self.seconds += now - last
            self.n_epochs += report.epoch - epoch_then
        if report.status == "running" and report.epoch:
            self.since[report.trial_id] = now, report.epoch

    def seconds_for(self, n_epochs: float, n_trials_left: int) -> float | None:
        """Returns how long some epochs would take; None if nothing was measured yet.

        Args:
            n_epochs: How many are left to train.
            n_trials_left: How many trials have not ended, so at most as many run at the same time.
        """
        if not self.n_epochs:
            return None
        return n_epochs * self.seconds / self.n_epochs / max(1, min(self.n_parallel, n_trials_left))


def _described(plan: Plan, space: SearchSpace) -> tuple[Callable[[str], int], Callable[..., str]]:
    """Returns two functions of a trial's id: its number of epochs, and its options as a short text."""
    combinations = {trial.id: trial.combination for trial in plan.trials}
    names = short_names([axis.distinguishing_column[0] for axis in space.axes]).values()

    def num_epochs(trial_id: str) -> int:
        return int(space.value("solver_config.num_epochs", combinations[trial_id].row_indices))

    def options(trial_id: str, *, without_folds: bool = False) -> str:
        chosen = zip(names, space.axes, combinations[trial_id].row_indices, strict=True)
        shown = [
            f"{name} {axis.text(choice)}"
            for name, axis, choice in chosen
            if axis.varies and choice is not None and not (axis.folds and without_folds)
        ]
        return ", ".join(shown) or "no options"

    return num_epochs, options


def duration(seconds: float) -> str:
    """Writes a time span: '42 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _distance(report: TrialReport) -> float:
    return float("inf") if report.val_distance_mm is None else report.val_distance_mm
