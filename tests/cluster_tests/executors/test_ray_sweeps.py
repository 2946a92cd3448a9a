"""Real sweeps with Ray, most of them disturbed: processes are killed, interrupted, starved; compared bit for bit."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster_tests.sweep import SCRIPT, Sweep, a_trial_is_half_way, finished, wait_for, write_sweep_data

pytestmark = pytest.mark.ray

N_BATCHES = 7
"""Batches of an epoch of the sweep: 104 samples in batches of 16."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_sweep_data(folder)
    return folder


@pytest.fixture
def sweep(data_dir, tmp_path):
    return Sweep(data_dir, tmp_path / "results")


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The numbers of the sweep, trained inline and in one go."""
    sweep = Sweep(data_dir, tmp_path_factory.mktemp("undisturbed"))
    assert sweep.run(executor="inline").code == 0
    return sweep.numbers()


class TestResultsDoNotDependOnTheExecutor:
    @pytest.mark.slow
    def test_neither_workers_nor_the_script_import_what_they_do_not_use(self, sweep):
        assert sweep.run(environment={"RECORD_MODULES": "1"}).code == 0
        workers = sweep.modules_of_workers()
        assert workers
        for modules in workers:
            assert "cluster.executors.ray_worker" in modules
            assert {name for name in modules if name.startswith(("cluster.reports.", "matplotlib"))} == set()
        driver = set((sweep.control / "driver").read_text().split())
        assert {"ray.tune", "mlflow", "wandb"} & driver == {"ray.tune"}

    @pytest.mark.slow
    def test_one_trial_at_a_time_and_another_order_of_trials_equal_inline(self, sweep, undisturbed):
        result = sweep.run(cpus={min(os.sched_getaffinity(0))}, lrs=[1e-2, 1e-3, 3e-3])
        assert result.code == 0, result.errors
        numbers = sweep.numbers()
        # The rows are in the order of the options.
        assert sorted(numbers.pop("rows"), key=str) == sorted(undisturbed["rows"], key=str)
        assert numbers == {name: value for name, value in undisturbed.items() if name != "rows"}


class TestAnInterruptedSweepContinues:
    @pytest.mark.parametrize("again", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
    def test_after_a_driver_was_killed(self, sweep, undisturbed, again):
        process = sweep.start(slow=0.1)
        # Its workers live a few seconds longer: the trial must have just begun.
        wait_for(lambda: len(finished(sweep)) >= 2 and a_trial_is_half_way(sweep), process)
        process.kill()
        process.communicate()
        done = finished(sweep)
        assert 0 < len(done) < 6

        result = sweep.run(executor=again)
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed
        assert "to continue" in result.errors

    @pytest.mark.serial
    def test_after_ctrl_c_which_ends_it_quickly_and_says_how_to_continue(self, sweep, undisturbed):
        process = sweep.start(slow=0.15)
        wait_for(lambda: finished(sweep) and a_trial_is_half_way(sweep), process)
        done = finished(sweep)
        begin = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # like a terminal, also to the workers
        _output, errors = process.communicate(timeout=60)
        assert time.monotonic() - begin < 10
        assert process.returncode == 130
        assert "run the script again to continue" in errors
        assert "Traceback" not in errors
        statuses = {row["status"] for row in sweep.rows()}
        assert "interrupted" in statuses
        assert statuses <= {"finished", "interrupted", "pending"}
        assert done <= finished(sweep)

        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed

    @pytest.mark.serial
    def test_after_ctrl_c_which_does_not_wait_for_long_batches(self, sweep):
        process = sweep.start(slow=60)
        wait_for(sweep.trials, process)
        time.sleep(2)
        begin = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _output, errors = process.communicate(timeout=60)
        assert time.monotonic() - begin < 10
        assert process.returncode == 130
        assert "Traceback" not in errors

    @pytest.mark.parametrize(
        ("executor", "again"),
        [
            ("ray", "inline"),
            pytest.param("ray", "ray", marks=pytest.mark.slow),
            pytest.param("inline", "inline", marks=pytest.mark.slow),
        ],
    )
    def test_after_sigterm_at_which_each_trial_writes_a_checkpoint_immediately(
        self, sweep, undisturbed, executor, again
    ):
        sweep.spec["experiment_config"] = {"checkpoint_interval_s": 1000}
        process = sweep.start(slow=0.1, executor=executor)
        wait_for(lambda: len(sweep.batches()) > 30, process)
        process.terminate()
        _output, errors = process.communicate(timeout=30)
        assert process.returncode == 75, errors
        assert "run the script again to continue" in errors
        assert "Traceback" not in errors
        left = {trial: content for trial, content in sweep.trials().items() if content["status"] == "running"}
        assert left
        for trial, content in left.items():
            assert content["epochs"] > 0, "a trial left without a checkpoint"
            assert (sweep.folder / "trials" / trial / "checkpoint.pt").exists()

        result = sweep.run(executor=again)
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed
        assert {trial: sweep.trials()[trial]["started"] for trial in left} == {
            trial: content["started"] for trial, content in left.items()
        }, "a trial that left began at its beginning"

    @pytest.mark.serial
    def test_sigterm_does_not_wait_longer_than_it_may_for_an_epoch_to_end(self, sweep):
        process = sweep.start(slow=600, environment={"POSETUNE_GRACE_S": "1"})
        wait_for(sweep.trials, process)
        process.terminate()
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 75
        assert "Traceback" not in errors
        assert output.strip().startswith("sweep: 6 trials, "), "Tune's own words are in the way"

    def test_in_another_worker_after_one_was_killed(self, sweep, undisturbed):
        before = {path: path.read_bytes() for path in Path(sweep.spec["data_dir"]).iterdir()}
        process = sweep.start(slow=0.05)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        victim = next(content["pid"] for content in sweep.trials().values() if content["status"] == "running")
        os.kill(victim, signal.SIGKILL)
        _output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "was lost" in errors
        assert "(raylet)" not in errors, "Ray's own words are in the way"
        assert sweep.numbers() == undisturbed
        assert {path: path.read_bytes() for path in Path(sweep.spec["data_dir"]).iterdir()} == before


class TestTrialsThatArePausedAndContinued:
    def test_equal_trainings_at_once(self, sweep, undisturbed):
        result = sweep.run(rungs=True)
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed
        assert len(sweep.batches()) == 6 * 6 * N_BATCHES

    @pytest.mark.slow
    def test_do_so_where_workers_are_killed(self, sweep, undisturbed):
        process = sweep.start(rungs=True, slow=0.05)
        for epoch in (1, 3, 5):

            def is_there(epoch=epoch):
                return any(trial["epochs"] >= epoch for trial in sweep.trials().values())

            wait_for(is_there, process)
            os.kill(sweep.batches()[-1][0], signal.SIGKILL)
        _output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert sweep.numbers() == undisturbed


RACE = {"race": {"min_epochs": 1, "min_finalists": 1}, "lrs": [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
"""A race of six combinations with rungs at epochs 1, 2 and 6."""


@pytest.fixture(scope="module")
def raced(data_dir, tmp_path_factory):
    """The race in one process, in one go."""
    sweep = Sweep(data_dir, tmp_path_factory.mktemp("raced"))
    sweep.run(executor="inline", **RACE)
    assert sorted(sweep.decisions()) == ["small_val/0-0.json", "small_val/0-1.json"]
    assert len(sweep.finalists()) == 2
    return sweep


@pytest.mark.slow
class TestARace:
    def assert_equal(self, sweep, raced):
        assert sweep.decisions() == raced.decisions()
        assert sweep.finalists() == raced.finalists()

    def test_of_one_and_of_several_workers_equals_one_in_this_process(self, sweep, data_dir, tmp_path, raced):
        assert sweep.run(**RACE).code == 0
        self.assert_equal(sweep, raced)
        alone = Sweep(data_dir, tmp_path / "alone")
        assert alone.run(cpus={min(os.sched_getaffinity(0))}, **RACE).code == 0
        self.assert_equal(alone, raced)

    def test_continues_after_the_driver_and_a_worker_were_killed(self, sweep, raced):
        sweep.spec.update(RACE)
        process = sweep.start(slow=0.05)
        wait_for(lambda: len(sweep.batches()) > N_BATCHES, process)
        os.kill(sweep.batches()[-1][0], signal.SIGKILL)
        wait_for(lambda: len(sweep.trials()) >= 6, process)
        process.kill()
        process.communicate()
        process = sweep.start(slow=0.05)
        wait_for(sweep.decisions, process)
        process.kill()
        process.communicate()
        assert sweep.run().code == 0
        self.assert_equal(sweep, raced)

    def test_continues_after_signals(self, sweep, raced):
        sweep.spec.update(RACE)
        for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 75)]:
            earlier = {worker for worker, _ in sweep.batches()}
            process = sweep.start(slow=0.05)
            wait_for(lambda known=earlier: sweep.decisions() and {pid for pid, _ in sweep.batches()} - known, process)
            os.kill(process.pid, number)
            _output, errors = process.communicate(timeout=60)
            assert process.returncode == code
            assert "run the script again to continue" in errors
            assert "Traceback" not in errors
        assert sweep.run().code == 0
        self.assert_equal(sweep, raced)

    def test_is_run_by_one_process_at_a_time(self, sweep, raced):
        sweep.spec.update(RACE)
        process = sweep.start(slow=0.02)
        wait_for(sweep.batches, process)
        os.kill(process.pid, signal.SIGSTOP)  # or it may have finished before the second one looks
        try:
            second = sweep.run()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert second.code == 1
        assert f"process {process.pid} on " in second.errors
        process.communicate(timeout=200)
        assert process.returncode == 0
        self.assert_equal(sweep, raced)

    def test_leaves_the_results_of_the_grid_after_the_script_ran_without_it(self, sweep, data_dir, tmp_path):
        assert sweep.run(**RACE).code == 0
        result = sweep.run(lrs=RACE["lrs"])
        assert result.code == 0, result.errors
        grid = Sweep(data_dir, tmp_path / "grid", lrs=RACE["lrs"])
        assert grid.run(executor="inline").code == 0
        assert sweep.numbers() == grid.numbers()


@pytest.mark.slow
class TestTwoNumbersOfEpochs:
    def test_cost_one_training_in_workers_too(self, sweep, undisturbed):
        result = sweep.run(epochs=[6, 3], lrs=[1e-3, 3e-3])
        assert result.code == 0, result.errors
        assert "8 trials: 4 to continue from epoch 3, 4 to train" in result.errors
        assert len(sweep.batches()) == 4 * 6 * N_BATCHES
        assert_equal_trials(sweep.numbers(), undisturbed, n=4)

    def test_equal_trainings_at_once_after_the_driver_was_killed(self, sweep, undisturbed):
        spec = {"epochs": [6, 3], "lrs": [1e-3, 3e-3]}
        process = sweep.start(slow=0.05, **spec)
        wait_for(lambda: any(content["epochs"] > 3 for content in sweep.trials().values()), process)
        process.kill()
        process.communicate()
        assert len(finished(sweep)) < 8
        result = sweep.run(**spec)
        assert result.code == 0, result.errors
        assert_equal_trials(sweep.numbers(), undisturbed, n=4)
        assert list(sweep.folder.glob("trials/*/*/state.pt")) == []


def assert_equal_trials(numbers, others, n):
    """The files of `n` trials are in both, and equal."""
    same = [name for name in numbers if "/" in name and name in others]
    assert len({name.split()[0] for name in same}) == n
    assert {name: numbers[name] for name in same} == {name: others[name] for name in same}


@pytest.mark.slow
def test_code_that_cannot_be_sent_to_workers_is_an_error_that_names_it(sweep):
    result = sweep.run(lrs=[1e-3], models=["CorrectorMLP", "LockedMLP"], callbacks=["locked"])
    assert result.code == 1
    assert "Traceback" not in result.errors
    for name in ("LockedMLP", "locked"):
        why = r"it cannot be sent to a worker process \(cannot pickle '_thread\.lock' object\)"
        assert re.search(rf"  __main__\.{name} \(\S*sweep_script\.py:\d+\): {why}", result.errors)
    assert sweep.trials() == {}


class TestAFailureIsARow:
    def test_failures_and_divergence_leave_the_other_trials_complete_and_end_with_1(self, sweep):
        result = sweep.run(lrs=[1e-3], models=["CorrectorMLP", "FailingMLP", "HungryMLP"])
        assert result.code == 1
        assert "Traceback" not in result.errors
        statuses = {(row["model"], row["status"]) for row in sweep.rows()}
        assert statuses == {("CorrectorMLP", "finished"), ("FailingMLP", "failed"), ("HungryMLP", "failed")}
        errors = {row["model"]: row["error"] for row in sweep.rows()}
        assert "this model is broken" in errors["FailingMLP"]
        assert "out of memory on cpu with batch_size 16" in errors["HungryMLP"]
        assert "this model is broken" in result.errors

    @pytest.mark.slow
    def test_a_failed_trial_is_trained_again_and_a_diverged_one_is_not(self, sweep):
        sweep.spec["lrs"] = [1e-3]
        sweep.spec["experiment_config"] = {"n_repetitions": 1}
        result = sweep.run(losses=["MetricLoss", "ExplodingLoss"], models=["CorrectorMLP", "FailingMLP"])
        assert result.code == 1
        before = sweep.trials()
        assert sorted(content["status"] for content in before.values()) == ["diverged", "failed", "failed", "finished"]

        assert sweep.run(losses=["MetricLoss", "ExplodingLoss"], models=["CorrectorMLP", "FailingMLP"]).code == 1
        after = sweep.trials()
        again = {trial for trial in before if after[trial]["started"] != before[trial]["started"]}
        assert again == {trial for trial, content in before.items() if content["status"] == "failed"}

    @pytest.mark.serial
    def test_a_trial_that_stops_reporting_fails_and_the_others_continue(self, sweep):
        config = {"n_repetitions": 1, "trial_timeout_s": 8}
        result = sweep.run(lrs=[1e-3], distorters=["Noise", "HangingNoise"], experiment_config=config)
        assert result.code == 1
        rows = {row["distorter"]: row for row in sweep.rows()}
        assert rows["Noise"]["status"] == "finished"
        assert rows["HangingNoise"]["status"] == "failed"
        assert "did not report for 8 s" in rows["HangingNoise"]["error"]
        assert "sweep_script.py" in rows["HangingNoise"]["error"], "the error shows where it hung"

    @pytest.mark.slow
    def test_a_sweep_whose_first_trials_all_fail_stops(self, sweep):
        config = {"n_repetitions": 5, "stop_if_all_fail": 2}
        result = sweep.run(lrs=[1e-3], models=["FailingMLP"], experiment_config=config)
        assert result.code == 1
        assert "the first 2 trials all failed" in result.errors
        assert "pending" in {row["status"] for row in sweep.rows()}

    @pytest.mark.slow
    def test_a_worker_that_is_lost_too_often_is_a_failed_row(self, sweep):
        process = sweep.start(slow=0.3, lrs=[1e-3], experiment_config={"n_repetitions": 1, "max_retries": 0})
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        (content,) = sweep.trials().values()
        os.kill(content["pid"], signal.SIGKILL)
        _, _errors = process.communicate(timeout=60)
        assert process.returncode == 1
        (row,) = sweep.rows()
        assert row["status"] == "failed"
        assert "worker process was lost" in row["error"]
        # The training itself was fine: its checkpoint still exists, so it can continue.
        assert sweep.run(lrs=[1e-3], experiment_config={"n_repetitions": 1}).code == 0


@pytest.mark.slow
class TestAScriptWithModulesInAnotherFolder:
    @pytest.fixture
    def elsewhere(self, sweep, tmp_path):
        """A folder that the script adds to its path, with a module that contains the model."""
        folder, sweep.script = tmp_path / "elsewhere", tmp_path / "script.py"
        folder.mkdir()
        sweep.script.write_text(
            "import json, sys\n"
            "from pathlib import Path\n"
            f"sys.path[:0] = [{str(folder)!r}, {str(SCRIPT.parent)!r}]\n"
            "from sweep_script import experiment\n"
            "from modules import ModelOfTheirs\n"
            "sweep = experiment(json.loads(Path(sys.argv[1]).read_text()))\n"
            "sweep.add_options('model', [ModelOfTheirs])\n"
            "sweep.run()\n"
        )
        sweep.spec.update(lrs=[1e-3], experiment_config={"n_repetitions": 1, "max_retries": 0})
        return folder / "modules.py"

    MODULE = "from posenet.models import CorrectorMLP\nclass ModelOfTheirs(CorrectorMLP):\n    pass\n"

    def test_trains_what_is_in_them(self, sweep, elsewhere):
        elsewhere.write_text(self.MODULE)
        result = sweep.run()
        assert result.code == 0, result.errors
        assert [row["status"] for row in sweep.rows()] == ["finished"]

    def test_says_what_keeps_workers_from_loading_them(self, sweep, elsewhere):
        check = "import sys\nif not sys.argv[0].endswith('script.py'):\n    raise ImportError('not to be had here')\n"
        elsewhere.write_text(check + self.MODULE)
        result = sweep.run()
        assert result.code == 1
        assert [row["status"] for row in sweep.rows()] == ["pending"]
        assert "could not load its trial: ImportError: not to be had here. What the script" in result.errors
        assert "was lost" not in result.errors
        assert "Traceback" not in result.errors


class TestTwoRunsOfOneExperiment:
    def test_the_second_is_refused_immediately_and_names_the_first(self, sweep):
        process = sweep.start(slow=0.1, executor="inline")
        wait_for(lambda: sweep.trials(), process)
        second = sweep.run()
        assert second.code == 1
        assert f"process {process.pid} on " in second.errors
        assert "Traceback" not in second.errors
        process.kill()
        process.communicate()
        assert sweep.run(executor="inline").code == 0, "a killed run's lock is in the way"


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for 400 kB: some of the six trials."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
class TestADisk:
    def test_that_fills_up_loses_nothing_that_is_finished(self, data_dir, small_disk, undisturbed):
        sweep = Sweep(data_dir, small_disk)
        result = sweep.run(experiment_config={"stop_if_all_fail": None})
        assert result.code == 1
        assert "No space left on device" in result.errors
        assert "Traceback" not in result.errors
        done = finished(sweep)
        assert 0 < len(done) < 6

        subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
        times = {trial: sweep.trials()[trial]["started"] for trial in done}
        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed
        assert {trial: sweep.trials()[trial]["started"] for trial in done} == times, (
            "a finished trial was trained again"
        )

    def test_that_is_read_only_is_an_error_before_anything_starts(self, data_dir, small_disk):
        sweep = Sweep(data_dir, small_disk)
        sweep.spec_path.write_text(json.dumps(sweep.spec))
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        sweep.spec_path = small_disk.parent / "spec.json"
        result = sweep.run()
        assert result.code == 1
        assert result.errors.startswith("error: ")
        assert "Read-only file system" in result.errors
        assert "Traceback" not in result.errors


@pytest.mark.slow
def test_a_finished_experiment_is_not_trained_again_and_ray_is_not_started(sweep):
    assert sweep.run(lrs=[1e-3]).code == 0
    files = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sweep.folder.glob("trials/**/*") if p.is_file()}
    times = {p: p.stat().st_mtime_ns for p in files}
    # If Ray were started, it would fail, because there is no folder for its files.
    os.environ["RAY_TMPDIR"] = "/nowhere/at/all"
    try:
        result = sweep.run(lrs=[1e-3])
    finally:
        del os.environ["RAY_TMPDIR"]
    assert result.code == 0, result.errors
    assert {p: p.stat().st_mtime_ns for p in files} == times
