import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from cluster.executors import progress as progress_module
from cluster.executors.monitor import Monitor
from cluster.executors.progress import Progress, duration
from cluster.searching.search import Search
from cluster.trial.trainable import TrialReport
from posenet.models import CorrectorMLP
from tests.cluster_tests.small_experiment import LR


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def progress_on(terminal, *, options=lambda trial_id: f"lr {trial_id}", width=160, **more):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    more = {"n_trials": 4, "n_done": 0} | more
    n_epochs = 10 * (more["n_trials"] - more["n_done"]) - sum(more.get("epochs_done", {}).values())
    return Progress(**more, n_epochs=n_epochs, num_epochs=lambda trial_id: 10, options=options, console=console)


def written(progress):
    return progress.console.file.getvalue()


def shown(progress, width=160):
    """The current content of the live display."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(progress._render())
    return console.file.getvalue()


def running(trial_id, epoch, distance=None, **more):
    return TrialReport(trial_id, "running", epoch, distance, **more)


class TestTheDisplay:
    def test_shows_each_running_trial_with_epoch_error_and_place(self, clock):
        progress = progress_on(True)
        progress.started("a/0")
        progress.started("b/0")
        progress.reported(running("a/0", 3, 12.25, place="cuda:1 on node-a"))
        lines = [line.split() for line in shown(progress).splitlines()]
        assert ["a/0", "lr", "a/0", "3/10", "12.25", "mm", "cuda:1", "on", "node-a"] in lines
        assert ["b/0", "lr", "b/0", "0/10"] in lines

    def test_counts_what_was_done_before_and_what_ended(self, clock):
        progress = progress_on(True, n_trials=5, n_done=2)
        assert "2/5 trials" in shown(progress)
        progress.started("a/0")
        progress.reported(TrialReport("a/0", "finished", 10, 9.5))
        assert "3/5 trials" in shown(progress)
        assert "best so far: 9.50 mm on the validation set (lr a/0)" in shown(progress)

    def test_leaves_out_a_trial_that_was_asked_to_leave_and_counts_it_as_nothing(self, clock):
        progress = progress_on(True, n_trials=5, n_done=2)
        progress.started("a/0")
        progress.reported(TrialReport("a/0", "interrupted", 3))
        assert "a/0" not in shown(progress)
        assert "2/5 trials" in shown(progress)
        assert "failed" not in shown(progress)

    def test_counts_the_epochs_of_a_trial_that_is_paused_and_continued_once(self, clock):
        progress = progress_on(True, n_trials=4)
        for epoch in (2, 4):
            progress.started("a/0")
            progress.reported(running("a/0", epoch, 1.0))
            assert progress.fraction == epoch / 40
            progress.reported(TrialReport("a/0", "paused", epoch, 1.0))
            assert progress.fraction == epoch / 40
            assert "a/0" not in shown(progress)
        progress.started("a/0")
        progress.reported(TrialReport("a/0", "finished", 10, 1.0))
        assert progress.fraction == 1 / 4
        assert "1/4 trials" in shown(progress)

    def test_counts_the_epochs_of_a_race_since_decisions_change_how_many_there_are(self, clock):
        progress = progress_on(True, n_trials=3, is_race=True)
        for trial_id in ("a/0", "b/0", "c/0"):
            progress.started(trial_id)
            progress.reported(TrialReport(trial_id, "paused", 4, 1.0))
        assert "12 of about 30 epochs" in shown(progress)
        said = "race on nyu_val, rung 1 of 2: 2 of 3 combinations are finalists"
        progress.decided(said, "race on nyu_val, rung 2 of 2: 2 finalists train to epoch 10", n_epochs_left=12)
        assert said in written(progress)
        assert "race on nyu_val, rung 2 of 2: 2 finalists train to epoch 10" in shown(progress)
        assert "12 of about 24 epochs" in shown(progress)
        for trial_id in ("a/0", "b/0"):
            progress.started(trial_id)
            assert "4/10" in shown(progress), "a trial continues where it was paused"
            progress.reported(TrialReport(trial_id, "finished", 10, 1.0))
        assert progress.fraction == 1.0

    def test_counts_of_a_race_what_was_trained_until_a_trial_diverged(self, clock):
        progress = progress_on(True, n_trials=3, is_race=True)
        progress.decided("the first rung", "the second rung", n_epochs_left=12)
        for trial_id, status, epoch in (("a/0", "diverged", 1), ("b/0", "paused", 4), ("c/0", "paused", 4)):
            progress.started(trial_id)
            progress.reported(TrialReport(trial_id, status, epoch, None, "NaN"))
        assert "9 of about 12 epochs" in shown(progress)

    def test_divides_the_rest_of_a_race_among_the_trials_that_it_has_not_dropped(self, clock):
        progress = progress_on(True, n_trials=4, is_race=True)
        ids = ["a/0", "b/0", "c/0", "d/0"]
        for trial_id in ids:
            progress.started(trial_id)
        for epoch in (1, 2):
            clock.now += 10
            for trial_id in ids:
                progress.reported(running(trial_id, epoch, 1.0))
        for trial_id in ids:
            progress.reported(TrialReport(trial_id, "paused", 2, 1.0))
        progress.decided("one stays", "one trains", n_epochs_left=8, dropped={"b/0", "c/0", "d/0"})
        progress.started("a/0")
        assert "1 min 20 s left" in shown(progress)

    def test_keeps_the_best(self, clock):
        progress = progress_on(True)
        for trial_id, distance in (("a/0", 9.0), ("b/0", 8.0), ("c/0", 8.5)):
            progress.reported(TrialReport(trial_id, "finished", 10, distance))
        assert "best so far: 8.00 mm on the validation set (lr b/0)" in shown(progress)

    def test_has_no_best_of_different_validation_sets(self, clock):
        progress = progress_on(True, best=TrialReport("z/0", "finished", val_distance_mm=8.25), has_best=False)
        with progress:
            progress.reported(TrialReport("a/0", "finished", val_distance_mm=9.5))
            assert "best so far" not in shown(progress)

    def test_knows_the_best_of_earlier_runs(self, clock):
        progress = progress_on(True, best=TrialReport("z/0", "finished", val_distance_mm=8.25))
        assert "best so far: 8.25 mm on the validation set (lr z/0)" in shown(progress)
        for trial_id, distance in (("a/0", 9.0), ("b/0", 8.0)):
            progress.reported(TrialReport(trial_id, "finished", 10, distance))
            best = "8.25 mm" if distance > 8.25 else "8.00 mm"
            assert f"best so far: {best}" in shown(progress)

    def test_estimates_the_time_that_is_left_from_timed_epochs(self, clock):
        progress = progress_on(True, n_trials=6, n_done=2)
        progress.started("a/0")
        clock.now += 3600  # Ray and its workers start
        progress.reported(running("a/0", 1, 1.0))
        assert "1 h 00 min, no estimate yet" in shown(progress)
        clock.now += 8
        progress.reported(running("a/0", 5, 1.0))
        assert progress.fraction == 0.5 / 4
        assert "1 min 10 s left" in shown(progress)  # 35 epochs of 2 s
        clock.now += 20  # slower ones: 9 epochs took 28 s
        progress.reported(running("a/0", 10, 1.0))
        progress.reported(TrialReport("a/0", "finished", 10, 1.0))
        assert progress.fraction == 1 / 4
        assert "1 min 33 s left" in shown(progress)

    def test_estimates_the_time_of_trials_that_run_at_the_same_time(self, clock):
        progress = progress_on(True, n_trials=5)
        for epoch in range(6):
            for trial_id in ("a/0", "b/0"):
                if epoch:
                    progress.reported(running(trial_id, epoch, 1.0))
                else:
                    progress.started(trial_id)
            clock.now += 3
        assert "1 min 00 s left" in shown(progress)  # 40 epochs of 3 s, two at a time
        for trial_id in ("a/0", "b/0", "c/0", "d/0"):
            progress.reported(TrialReport(trial_id, "finished", 10, 1.0))
        assert progress.n_trials - len(progress.ended) == 1
        seconds = 10 * progress.pace.seconds / progress.pace.n_epochs
        assert f"{duration(seconds)} left" in shown(progress)  # the last one runs alone

    def test_times_trials_of_a_single_epoch_once_a_worker_has_started(self, clock):
        progress = progress_on(True, n_trials=4)
        for trial_id, seconds in (("a/0", 600), ("b/0", 5)):
            progress.started(trial_id)
            assert "no estimate yet" in shown(progress)
            clock.now += seconds
            progress.reported(TrialReport(trial_id, "finished", 10, 1.0))
        assert "10 s left" in shown(progress)

    def test_takes_no_checkpoint_for_fast_training(self, clock):
        progress = progress_on(True, n_trials=2)
        progress.started("a/0")
        for epoch in (1, 2, 3):
            progress.reported(running("a/0", epoch, 1.0))
            clock.now += 4
        progress.reported(running("a/0", 0, lines=("warning: its worker was lost",)))
        clock.now += 100
        progress.started("a/0")
        clock.now += 100
        progress.reported(running("a/0", 3, 1.0))  # another worker continues
        clock.now += 4
        progress.reported(running("a/0", 4, 1.0))
        assert "1 min 04 s left" in shown(progress)  # 16 epochs of 4 s

    def test_does_not_take_epochs_of_an_earlier_run_for_fast_training(self, clock):
        progress = progress_on(True, n_trials=2, epochs_done={"a/0": 5, "b/0": 8})
        progress.started("a/0")
        progress.reported(running("a/0", 6, 1.0))
        assert progress.fraction == 1 / 7
        progress.started("b/0")
        clock.now += 4
        progress.reported(running("b/0", 9, 1.0))
        progress.reported(running("a/0", 7, 1.0))
        assert "8 s left" in shown(progress)  # 4 epochs of 4 s, two at a time

    def test_says_that_ray_is_being_started_until_a_trial_is(self, clock):
        progress = progress_on(True)
        progress.starting_ray()
        clock.now += 20
        assert "20 s, starting Ray" in shown(progress)
        progress.started("a/0")
        assert "20 s, no estimate yet" in shown(progress)

    def test_of_a_run_that_trains_nothing_is_no_division_by_zero(self, clock):
        assert "0/0 trials" in shown(progress_on(True, n_trials=0))

    def test_prints_an_error_that_several_trials_have_once_and_their_number_at_the_end(self, clock):
        progress = progress_on(False)
        with progress:
            for trial_id in ("a/0", "b/0", "a/1"):
                progress.reported(TrialReport(trial_id, "failed", error="RuntimeError: broken"))
            progress.reported(TrialReport("b/1", "failed", error="KeyError: 3"))
        first, other, counted = written(progress).splitlines()
        assert first.startswith("failed: a/0")
        assert other.startswith("failed: b/1")
        assert counted == "failed: 3 trials with the same error, RuntimeError: broken"

    def test_counts_failures(self, clock):
        progress = progress_on(True)
        assert "failed" not in shown(progress)
        progress.reported(TrialReport("a/0", "failed", 2, error="RuntimeError: broken"))
        progress.reported(TrialReport("b/0", "diverged", 2, error="the loss is nan"))
        assert "2 failed or diverged" in shown(progress)

    def test_of_many_trials_shows_some_and_counts_the_others(self, clock):
        progress = progress_on(True, n_trials=100)
        for i in range(20):
            progress.started(f"trial{i}/0")
        assert shown(progress).count("lr trial") == 16
        assert "and 4 more" in shown(progress)

    def test_begins_again_with_a_trial_that_is_started_again(self, clock):
        progress = progress_on(True)
        progress.started("a/0")
        progress.reported(running("a/0", 5, place="cpu on node-a"))
        progress.started("a/0")
        assert "0/10" in shown(progress)
        assert "node-a" not in shown(progress)

    @pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[bold", ":bug:", "a[0]=1 [link=x]"])
    @pytest.mark.parametrize("terminal", [True, False])
    def test_takes_text_as_it_is(self, clock, terminal, text):
        progress = progress_on(terminal, options=lambda trial_id: text)
        progress.started("a/0")
        progress.reported(TrialReport("a/0", "finished", 10, 1.0))
        progress.started("b/0")
        assert shown(progress).count(text) == 2
        progress.reported(TrialReport("b/0", "failed", error=f"Error: {text}"))
        assert f"failed: b/0 ({text}): Error: {text}\n" in written(progress)
        progress.say(text)
        assert written(progress).endswith(f"{text}\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_no_text_controls_the_terminal(clock, terminal):
    progress = progress_on(terminal, options=lambda trial_id: "lr \x1b[31m\u202e")
    progress.started("a/0")
    progress.reported(running("a/0", 1, 9.0, place="cpu on \x9bhost", lines=("line \x1b]0;title\x07",)))
    progress.started("b/0")
    progress.reported(TrialReport("b/0", "finished", 10, 1.0))
    progress.reported(TrialReport("c/0", "failed", error="\rError"))
    text = written(progress) + shown(progress)
    assert not set("\x1b\x9b\u202e\x07\r") & set(text)
    assert "lr \\u001b[31m\\u202e" in text
    assert "cpu on \\u009bhost" in text


class TestTheOptionsOfATrial:
    def test_are_shortened_on_a_narrow_terminal_and_nothing_else_is(self, clock):
        progress = progress_on(True, options=lambda trial_id: "model CorrectorMLP (hidden_dims=[64, 64]), lr 0.001")
        progress.started("0123456789abcdef/0")
        progress.reported(running("0123456789abcdef/0", 3, 12.25, place="cpu on node-a"))
        (line,) = [line for line in shown(progress, width=80).splitlines() if "0123" in line]
        assert line.split()[:2] == ["01234567/0", "model"]
        assert line.split()[-6:] == ["3/10", "12.25", "mm", "cpu", "on", "node-a"]
        assert "…" in line

    def test_are_one_label_for_settings_that_vary_together(self, small_experiment):
        experiment = small_experiment.experiment(options={LR: [0.001, 0.01]})
        rows = [[CorrectorMLP, {"hidden_dims": [8]}], [CorrectorMLP, {"hidden_dims": [4]}]]
        experiment.add_joint_options(["model", "model_args"], rows, labels=["large", "small"])
        plan = experiment.plan()
        progress = Progress.of(plan, experiment.space, {})
        assert [progress.options(trial.id) for trial in plan.trials] == [
            *("lr 0.001, model large", "lr 0.001, model small", "lr 0.01, model large", "lr 0.01, model small")
        ]


class TestASearch:
    def test_has_the_trials_and_epochs_of_all_rounds_from_the_beginning(self, small_experiment):
        experiment = small_experiment.experiment(
            {"experiment_config.search": Search("sobol", 20), "experiment_config.n_repetitions": 3}
        )
        experiment.add_range(LR, 1e-4, 1e-1, log=True)
        experiment.add_options("model_args.dropout", [None, 0.5])
        plan = experiment.plan()
        assert len(plan.trials) == 24
        progress = Progress.of(plan, experiment.space, {})
        assert (progress.n_trials, progress.n_epochs) == (60, 60 * 2)
        assert progress.options(plan.trials[0].id) == "lr 0.001, dropout None"

    def test_knows_what_it_proposes_later(self, small_experiment):
        plans = []
        for n in (8, 12):
            experiment = small_experiment.experiment({"experiment_config.search": Search("sobol", n, round_size=n)})
            experiment.add_range(LR, 1e-4, 1e-1, log=True)
            plans.append(experiment.plan())
        progress = Progress.of(plans[0], experiment.space, {})
        last = plans[1].trials[-1]
        progress.grown(plans[1], experiment.space)
        assert progress.options(last.id) == f"lr {last.combination.options[LR]:g}"
        assert progress.num_epochs(last.id) == 2


class TestOnATerminal:
    def test_the_display_is_live_and_gone_at_the_end_and_lines_stay(self):
        progress = progress_on(True)
        with progress:
            progress.started("a/0")
            progress.reported(running("a/0", 3, 12.0, lines=("a/0: epoch 3/10",)))
            progress.live.refresh()
            assert "3/10" in written(progress)
        progress.say("last line")
        after = written(progress).rpartition("last line")
        assert after[1]
        assert "\x1b[2K" in after[0]  # the display's lines are erased
        assert "a/0: epoch 3/10\n" in written(progress).replace("\x1b[2K", "")

    def test_the_display_is_gone_after_an_error_too(self):
        progress = progress_on(True)
        with pytest.raises(KeyboardInterrupt), progress:
            raise KeyboardInterrupt
        assert not progress.live.is_started


class TestInANotebook:
    @pytest.fixture
    def published(self, monkeypatch):
        """What the display shows in a cell of a notebook: HTML, display id, and whether it is an update."""
        published = []

        def publish(data, *, transient, update):
            published.append((data["text/html"], transient["display_id"], update))

        shell = SimpleNamespace(kernel=None, display_pub=SimpleNamespace(publish=publish))
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
        return published

    def test_one_output_changes_and_is_empty_at_the_end_and_lines_stay(self, clock, published, capsys, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel does
        progress = notebook_progress()
        with progress:
            progress.starting_ray()
            clock.now += 1
            progress.started("a/0")
            clock.now += 1
            progress.reported(running("a/0", 3, 12.0, lines=("a/0: epoch 3/10",)))
        shown = [html for html, _, _ in published]
        assert ["starting Ray" in html for html in shown] == [True, False, False, False]
        assert ["3/10" in html for html in shown] == [False, False, True, False]
        assert shown[-1] == ""
        assert len({display_id for _, display_id, _ in published}) == 1
        assert [update for *_, update in published] == [False, True, True, True]
        assert capsys.readouterr().err == "a/0: epoch 3/10\n"

    def test_it_changes_a_few_times_a_second(self, clock, published):
        progress = notebook_progress()
        for _ in range(50):
            progress.refresh()
            clock.now += 0.05
        assert 5 <= len(published) <= 10

    def test_texts_are_no_html(self, clock, published):
        progress = notebook_progress(lambda trial_id: "<b>&amp;")
        progress.started("a/0")
        assert "&lt;b&gt;&amp;amp;" in published[0][0]
        assert "<b>" not in published[0][0]


def notebook_progress(options=lambda trial_id: f"lr {trial_id}"):
    return Progress(n_trials=4, n_done=0, n_epochs=40, num_epochs=lambda trial_id: 10, options=options)


class TestInALogFile:
    def test_there_is_a_line_now_and_then(self, clock):
        progress = progress_on(False)
        with progress:
            progress.started("a/0")
            progress.reported(running("a/0", 1, 12.0))
            assert written(progress) == ""
            clock.now += 31
            progress.reported(running("a/0", 4, 11.0))
            progress.reported(running("a/0", 5, 11.0))
            assert written(progress) == "0/4 trials, 1 running, 6 min 12 s left\n"  # 36 epochs of 10.3 s
            progress.reported(TrialReport("a/0", "finished", 10, 9.876))
            progress.reported(TrialReport("b/0", "diverged", 2, error="the loss is nan"))
            clock.now += 31
            progress.reported(running("c/0", 1, 10.0))
        assert written(progress).splitlines()[1:] == [
            "diverged: b/0 (lr b/0): the loss is nan",
            "2/4 trials, 1 running, 1 min 05 s left, 1 failed or diverged, best so far 9.88 mm (lr a/0)",
        ]

    def test_a_line_between_two_trials_does_not_say_that_none_is_running(self, clock):
        progress = progress_on(False)
        progress.started("a/0")
        clock.now += 31
        progress.reported(TrialReport("a/0", "finished", 10, 9.876))
        assert written(progress) == "1/4 trials, no estimate yet, best so far 9.88 mm (lr a/0)\n"

    def test_there_is_a_line_now_and_then_among_the_lines_of_trials_too(self, clock):
        progress = progress_on(False)
        progress.started("a/0")
        for epoch in range(1, 6):
            clock.now += 20
            progress.reported(running("a/0", epoch, lines=(f"epoch {epoch}",)))
        assert [line.split(",")[0] for line in written(progress).splitlines()] == [
            *("epoch 1", "epoch 2", "0/4 trials", "epoch 3", "epoch 4", "0/4 trials", "epoch 5")
        ]

    def test_the_first_line_says_that_ray_is_being_started(self, clock):
        progress = progress_on(False)
        progress.starting_ray()
        assert written(progress) == "starting Ray\n"

    def test_a_long_line_is_not_broken(self, clock):
        progress = progress_on(False, width=40)
        progress.say("word " * 50)
        assert written(progress).count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.6, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_a_duration_is_written_for_people(seconds, text):
    assert duration(seconds) == text


class TestTheWatch:
    def outcomes(self, stop_if_all_fail, *statuses):
        monitor = Monitor(progress_on(False), stop_if_all_fail)
        for i, status in enumerate(statuses):
            monitor.started(f"{i}/0")
            monitor.reported(running(f"{i}/0", 1))
            monitor.reported(TrialReport(f"{i}/0", status, error="x"))
        return monitor

    @pytest.mark.parametrize(
        ("n", "statuses", "stop"),
        [
            (2, [], False),
            (2, ["failed"], False),
            (2, ["failed", "failed"], True),
            (2, ["failed", "failed", "finished"], True),
            (2, ["failed", "finished", "failed", "failed"], False),
            (2, ["failed", "diverged"], False),
            (1, ["failed"], True),
            (None, ["failed"] * 10, False),
        ],
    )
    def test_stops_a_run_whose_first_trials_all_failed(self, n, statuses, stop):
        assert self.outcomes(n, *statuses).should_stop is stop

    def test_says_once_that_the_training_is_under_way(self):
        calls = []
        monitor = Monitor(progress_on(False), None, at_first_report=lambda: calls.append("under way"))
        monitor.started("0/0")
        assert calls == []
        monitor.reported(running("0/0", 1))
        monitor.reported(running("0/0", 2))
        assert calls == ["under way"]

    def test_learns_nothing_from_those_that_failed_before(self):
        monitor = Monitor(progress_on(False), 2, failed_before={"0/0", "1/0"})
        for trial_id, stop in [("0/0", False), ("1/0", False), ("2/0", False), ("3/0", True)]:
            monitor.reported(TrialReport(trial_id, "failed", error="x"))
            assert monitor.should_stop is stop

    def test_learns_from_those_that_failed_before_and_do_not_fail_again(self):
        monitor = Monitor(progress_on(False), 2, failed_before={"0/0"})
        for trial_id, status in [("0/0", "finished"), ("1/0", "failed"), ("2/0", "failed")]:
            monitor.reported(TrialReport(trial_id, status, error="x"))
        assert not monitor.should_stop

    def test_says_why_to_stop_with_the_first_error_of_those_that_tell(self):
        monitor = Monitor(progress_on(False), 1, failed_before={"0/0"})
        monitor.reported(TrialReport("0/0", "failed", error="old"))
        assert monitor.why_stop is None
        monitor.reported(TrialReport("1/0", "failed", error="new"))
        assert monitor.why_stop == "new"

    def test_does_not_stop_a_run_in_which_a_trial_was_paused(self):
        monitor = Monitor(progress_on(False), stop_if_all_fail=1)
        monitor.reported(TrialReport("a/0", "paused", 2))
        monitor.reported(TrialReport("b/0", "failed", error="as wanted"))
        assert not monitor.should_stop
        assert list(monitor.outcomes) == ["b/0"]

    def test_counts_an_end_that_is_told_twice_once(self):
        monitor = self.outcomes(None, "failed")
        monitor.started("0/0")
        monitor.reported(TrialReport("0/0", "failed", error="again"))
        assert (len(monitor.progress.ended), monitor.progress.n_failed, monitor.progress.running) == (1, 1, {})
        assert monitor.outcomes["0/0"].error == "x"

    def test_keeps_the_last_report_of_each_trial(self):
        monitor = self.outcomes(None, "failed", "finished")
        assert {trial_id: report.status for trial_id, report in monitor.outcomes.items()} == {
            "0/0": "failed",
            "1/0": "finished",
        }
