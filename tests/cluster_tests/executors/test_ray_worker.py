import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cluster.executors import node_facts, ray_nodes, ray_runner, ray_worker
from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.ray_nodes import _gpu_problems
from cluster.executors.ray_runner import _Reports, _Steps, _Stop
from cluster.executors.signals import Preempted, Signals
from cluster.experiment_files import write_experiment_file
from cluster.planning.config import Problem
from cluster.planning.inputs import Inputs
from cluster.planning.placement import PRETEND_GPUS, Node, NoRoomError, Placement, UnusableNodeError
from cluster.planning.plan import Combination, TrialSpec
from cluster.schedules.schedule import GridSchedule, Step
from cluster.storage.folders import ExperimentFolder
from cluster.storage.trial_file import TrialFile
from cluster.trial.trainable import TrialReport, run_trial
from tests.cluster_tests.executors.test_progress import progress_on


@pytest.fixture
def job(small_experiment):
    """The job of a run that has written its `experiment.json`."""
    experiment = small_experiment.experiment()
    inputs = Inputs(experiment.config.data_folder)
    plan = experiment._plan(inputs)
    job = Job.of(experiment.config, experiment.space, inputs)
    write_experiment_file(plan, job, {})
    return job


VERSIONS = node_facts.versions()
CPU = Placement(torch.device("cpu"), n_slots=5, cpus_per_trial=1)


class TestANodeIsUnfit:
    def test_where_it_has_another_version(self, job):
        other = {**VERSIONS, "torch": "1.0"}
        with pytest.raises(UnusableNodeError, match=r"^torch is \S+ on \S+, but was 1\.0 where and when the run began"):
            ray_worker._require_usable_node(job, CPU, other)

    def test_where_our_code_was_changed_since_the_run_began(self, job):
        other = {**VERSIONS, "PoseTune": "0123"}
        with pytest.raises(UnusableNodeError, match=r"^PoseTune is .* Its files have changed since then$"):
            ray_worker._require_usable_node(job, CPU, other)

    def test_where_torch_sees_no_gpu_for_trials_that_take_one(self, job, monkeypatch):
        monkeypatch.delenv(PRETEND_GPUS, raising=False)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        placement = Placement(torch.device("cuda", 0), n_slots=2, cpus_per_trial=1, gpu_share=0.5)
        with pytest.raises(UnusableNodeError, match=r"^torch sees no GPU on "):
            ray_worker._require_usable_node(job, placement, VERSIONS)

    def test_where_it_does_not_see_the_folder_of_the_run(self, job, small_experiment, monkeypatch):
        monkeypatch.setattr(ray_worker, "_STALE_S", 0.1)
        elsewhere = replace(
            job, config=replace(job.config, storage_path=small_experiment.storage_path / "elsewhere"), run_id="1"
        )
        with pytest.raises(UnusableNodeError, match=r"elsewhere/small_experiment on .* is not the folder of this run"):
            ray_worker._require_usable_node(elsewhere, CPU, VERSIONS)
        with pytest.raises(UnusableNodeError, match="is not the folder of this run"):
            ray_worker._require_usable_node(replace(job, run_id="of another run"), CPU, VERSIONS)

    def test_not_where_it_sees_the_folder_as_it_is_a_moment_late(self, job, monkeypatch):
        real, reads = ExperimentFolder.read_run, []

        def read(folder, run_id):
            reads.append(folder)
            return None if len(reads) == 1 else real(folder, run_id)

        monkeypatch.setattr(ExperimentFolder, "read_run", read)
        ray_worker._require_usable_node(job, CPU, VERSIONS)
        ray_worker._require_usable_node(job, CPU, VERSIONS)
        assert len(reads) == 2, "a node is looked at once"


class TestATrialThatEnded:
    def test_stays_finished_when_it_is_said_to_have_failed(self, small_experiment):
        trial, data, folder = small_experiment.trial()
        *_, last = run_trial(trial, data, folder)
        before = folder.read_trial()
        report = ray_worker.fail(trial.id, folder, trial.run_id, "its worker was lost")
        assert (report.status, report.val_distance_mm) == ("finished", last.val_distance_mm)
        assert folder.read_trial() == before

    def test_is_failed_where_it_had_not(self, small_experiment):
        trial, data, folder = small_experiment.trial()
        next(run_trial(trial, data, folder))
        report = ray_worker.fail(trial.id, folder, trial.run_id, "its worker was lost")
        assert (report.status, report.error) == ("failed", "its worker was lost")
        content = json.loads((folder.local / "trial.json").read_text())
        assert (content["status"], content["error"]) == ("failed", "its worker was lost")


@pytest.fixture
def noted(monkeypatch):
    """What workers note in the cluster."""
    noted = {}
    kv = SimpleNamespace(
        _internal_kv_get=noted.get,
        _internal_kv_put=noted.__setitem__,
        _internal_kv_del=noted.pop,
        _internal_kv_list=lambda prefix: [key.encode() for key in noted if key.startswith(prefix)],
    )
    monkeypatch.setattr(ray_worker, "internal_kv", kv)
    return noted


class TestAWorkerWhoseTrialFailed:
    @pytest.fixture
    def train(self, gpus, job, noted, monkeypatch):
        """Lets the worker train a trial that fails; `reported` is what it reports."""
        self.reported = []
        self.report = TrialReport("trial", "failed", error="CUDA error")
        self.n_trained = 0

        def run_trial(trial, data, folder, should_stop, **how):
            self.n_trained += 1
            folder.write_trial(TrialFile(runs=(job.run_id,), status="failed", error=self.report.error))
            yield self.report

        monkeypatch.setattr(ray_worker, "run_trial", run_trial)
        monkeypatch.setattr(ray_worker, "_placement_group", lambda: "group")
        monkeypatch.setattr(ray_worker, "_require_usable_node", lambda *arguments: None)
        monkeypatch.setattr(ray_worker, "StopRequest", lambda run_id: lambda: False)
        monkeypatch.setattr(ray_worker.tune, "report", self.reported.append)
        monkeypatch.delenv(PRETEND_GPUS, raising=False)
        config = ray_worker.config_of(Step(TrialSpec(Combination("key", (), {}, "{}"), 0, seed=7)))
        placement = Placement(torch.device("cuda", 0), n_slots=2, cpus_per_trial=1, gpu_share=1.0)
        return lambda: ray_worker._train(config, job, placement, VERSIONS)

    def test_trains_the_next_one_if_its_gpu_answers(self, train):
        train()
        assert [message["report"]["status"] for message in self.reported] == ["failed"]

    def test_leaves_a_trial_whose_gpu_failed_to_another_worker_once(self, train):
        self.report = replace(self.report, gpu_failed=True)
        with pytest.raises(ray_worker._GpuLostError):
            train()
        train()
        train()  # another worker was lost after the last report
        assert [list(message) for message in self.reported] == [["gpu_failure", "group"], *[["report", "group"]] * 2]
        assert self.n_trained == 2

    def test_makes_no_retry_where_the_config_forbids_it(self, train, job):
        self.report = replace(self.report, gpu_failed=True)
        object.__setattr__(job, "config", replace(job.config, max_retries=0))
        train()
        assert [list(message) for message in self.reported] == [["report", "group"]]

    def test_gives_way_to_another_worker_if_its_gpu_does_not_answer(self, train, gpus):
        gpus.is_lost = True
        with pytest.raises(ray_worker._GpuLostError):
            train()
        assert [message["report"]["status"] for message in self.reported] == ["failed"]


def test_a_worker_knows_the_trials_that_share_its_gpu(noted):
    noted.update({"gpu-1-killed/0": "999999999", "gpu-2-elsewhere/0": str(os.getpid())})
    with ray_worker._listed("gpu-1-", "a/0") as others_of_a, ray_worker._listed("gpu-1-", "b/0") as others_of_b:
        assert (others_of_a(), others_of_b()) == (["b/0"], ["a/0"])
    assert set(noted) == {"gpu-1-killed/0", "gpu-2-elsewhere/0"}


def test_a_worker_that_cannot_ask_whether_to_leave_goes_on(monkeypatch):
    def gone(key):
        raise RuntimeError("the head is gone")

    monkeypatch.setattr(ray_worker.internal_kv, "_internal_kv_get", gone)
    assert not ray_worker.StopRequest("run")()


class TestTheEndOfARun:
    @pytest.fixture
    def stop(self, job, monkeypatch):
        """The stopper that Tune calls, with nodes that the test sets."""
        monkeypatch.setattr(ray_runner, "_NODES_INTERVAL_S", 0)
        monkeypatch.setattr(ray_worker, "request_stop", lambda run_id: None)
        self.nodes = {"1": Node("one", 2, 0), "2": Node("two", 3, 0)}
        monkeypatch.setattr(ray_runner.ray_nodes, "nodes", lambda: self.nodes)
        steps = _Steps(GridSchedule([]), CPU)
        self.said = []
        progress = progress_on(False)
        monkeypatch.setattr(progress, "say", self.said.append)
        return _Stop(Monitor(progress, None), Signals(grace_s=0.1), steps, "run", None)

    def start(self, stop):
        """Lets a worker start a trial."""
        stop.steps.running["tune"] = Step(SimpleNamespace(id="a/0"))
        _Reports(stop.monitor, stop.steps, None, None).on_trial_start(0, [], SimpleNamespace(trial_id="tune"))

    def test_is_not_there_while_nodes_come_and_go_which_changes_how_many_trials_run(self, stop):
        del self.nodes["1"]
        assert not stop.stop_all()
        assert stop.steps.max_concurrent == 3

    def test_is_not_there_where_no_node_is_left_which_is_said_once_in_a_while(self, stop):
        self.nodes = {"3": Node("three", 0, 4)}
        assert not stop.stop_all()
        assert not stop.stop_all()
        assert self.said == ["waiting for a node that a trial fits on; the cluster has three (0 CPU core(s), 4 GPU(s))"]
        assert stop.steps.max_concurrent == 5

    def test_comes_when_all_trials_have_saved_where_a_node_is_unfit(self, stop):
        stop.steps.node_error = "torch is another one"
        self.start(stop)
        assert not stop.stop_all()
        assert stop.steps.closed
        time.sleep(0.2)
        assert not stop.stop_all(), "nobody is in a hurry"
        stop.steps.ended("tune", None)
        with pytest.raises(Preempted):
            stop.stop_all()

    def test_comes_without_trials_that_wait_for_a_worker(self, stop):
        stop.steps.node_error = "torch is another one"
        self.start(stop)
        _Reports(stop.monitor, stop.steps, None, None).on_trial_recover(0, [], SimpleNamespace(trial_id="tune"))
        with pytest.raises(Preempted):
            stop.stop_all()

    def test_comes_where_only_bad_gpus_are_left(self, stop):
        stop.gpus = SimpleNamespace(all_bad=False)
        stop.steps.running["tune"] = Step(SimpleNamespace(id="a/0"))
        assert not stop.stop_all()
        stop.gpus.all_bad = True
        with pytest.raises(Preempted):
            stop.stop_all()
        assert "trials failed repeatedly on all GPUs that are left" in stop.steps.node_error

    def test_comes_after_the_grace_at_sigterm(self, stop):
        stop.signals.preempted = True
        self.start(stop)
        assert not stop.stop_all()
        time.sleep(0.2)
        with pytest.raises(Preempted):
            stop.stop_all()


@pytest.mark.parametrize(
    ("told", "seen", "n_problems"),
    [(0, 0, 0), (0, 4, 0), (2, 2, 0), (2, 4, 0), (2, 1, 1), (2, "torch cannot be imported", 1)],
)
def test_a_node_may_be_started_with_fewer_gpus_than_it_has_and_not_with_more(told, seen, n_problems):
    assert len(_gpu_problems(told, seen)) == n_problems


def test_a_wait_for_nodes_that_ends_takes_back_what_it_asked_the_autoscaler_for(small_experiment, monkeypatch):
    asked, signals = [], Signals()

    def no_room(config):
        if len(asked) == 2:
            signals.preempted = True
        raise NoRoomError([Problem("experiment_config.target_device", "there is no GPU")])

    monkeypatch.setattr(ray_nodes, "place_on_cluster", no_room)
    monkeypatch.setattr(ray_nodes, "request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(ray_nodes, "_LOOK_AGAIN_S", 0)
    with pytest.raises(Preempted):
        ray_nodes.wait_for_node(small_experiment.experiment().config, signals)
    assert asked == [[{"CPU": 1}], [{"CPU": 1}], []]
