"""Sweeps on a cluster of three nodes with two GPUs each, disturbed in every way that clusters know; compared by bits.

The nodes are real raylets on this machine; the GPUs do not exist, and trials train on the CPU.
"""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.executors import node_facts, ray_nodes, ray_session
from tests.cluster_tests import sweep_script
from tests.cluster_tests.executors.local_cluster import GPUS, N_NODES, LocalCluster
from tests.cluster_tests.sweep import Sweep, a_trial_is_half_way, wait_for, write_sweep_data

pytestmark = [pytest.mark.ray, pytest.mark.serial]

BATCHES_PER_EPOCH = 7
EPOCHS = 6
N_TRIALS = 6


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_sweep_data(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The numbers of the sweep, trained inline and in one go."""
    sweep = Sweep(data_dir, tmp_path_factory.mktemp("undisturbed"))
    assert sweep.run(executor="inline").code == 0
    return sweep.numbers()


@pytest.fixture(scope="module")
def running():
    """The cluster that the tests before left as it was started, if there is one."""
    running = []
    yield running
    for cluster in running:
        cluster.stop()


@pytest.fixture
def cluster(running, tmp_path_factory):
    """A cluster of three nodes."""
    cluster = running.pop() if running else LocalCluster(tmp_path_factory.mktemp("control"))
    for path in cluster.control.iterdir():
        path.unlink()
    yield cluster
    if cluster.is_as_started:
        running.append(cluster)
    else:
        cluster.stop()


class ClusterSweep(Sweep):
    """The sweep on a cluster's GPUs."""

    def __init__(self, data_dir, storage_path, cluster, **spec):
        super().__init__(data_dir, storage_path, cluster.control, device="cuda", **spec)
        self.cluster = cluster

    def start(self, **how):
        return super().start(environment={**self.cluster.environment, **how.pop("environment", {})}, **how)

    def undisturbed(self, storage_path):
        """The numbers of the same sweep, trained inline and in one go."""
        spec = {**self.spec, "storage_path": str(storage_path), "device": "cpu"}
        inline = Sweep(self.spec["data_dir"], storage_path)
        inline.spec = spec
        result = inline.run(executor="inline")
        assert result.code == 0, result.errors
        return inline.numbers()


@pytest.fixture
def sweep(data_dir, tmp_path, cluster):
    return ClusterSweep(data_dir, tmp_path / "results", cluster)


def ended(process):
    _output, errors = process.communicate(timeout=200)
    return process.returncode, errors


def workers(sweep):
    """The processes that are training."""
    pids = {content["pid"] for content in sweep.trials().values() if content["status"] == "running"}
    return sorted(pid for pid in pids if Path(f"/proc/{pid}").exists())


def kill_worker(sweep, process):
    """Kills a process that is training."""

    def kill_first():
        for pid in workers(sweep):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    wait_for(kill_first, process)


def test_a_sweep_on_three_nodes_equals_one_in_a_single_process(sweep, undisturbed):
    process = sweep.start(slow=600)  # or the first workers would leave no trial to those that start late
    wait_for(lambda: set(sweep.gpus_seen().values()) >= {"0", "1"}, process)
    sweep.set_slow(0)
    code, errors = ended(process)
    assert code == 0, errors
    assert sweep.numbers() == undisturbed
    assert set(sweep.gpus_seen().values()) == {"0", "1"}, "a trial sees the GPU that it was given alone"


def test_a_trial_that_asks_for_no_gpu_sees_none(sweep, undisturbed):
    result = sweep.run(device="cpu")
    assert result.code == 0, result.errors
    assert sweep.numbers() == undisturbed
    assert set(sweep.gpus_seen().values()) == {""}


def test_a_sweep_by_ray_client_equals_one_in_a_single_process_and_is_preempted_as_any_other(
    sweep, undisturbed, cluster
):
    sweep.spec["experiment_config"] = {"checkpoint_interval_s": 1000}
    address = {"POSETUNE_ADDRESS": f"ray://127.0.0.1:{cluster.client_port}"}
    process = sweep.start(slow=0.1, environment=address)
    wait_for(lambda: len(sweep.batches()) > N_TRIALS * 2 * BATCHES_PER_EPOCH, process)
    process.terminate()
    code, errors = ended(process)
    assert code == 75, errors
    result = sweep.run(environment=address)
    assert result.code == 0, result.errors
    assert "to continue" in result.errors
    assert sweep.numbers() == undisturbed
    assert len(sweep.batches()) == N_TRIALS * EPOCHS * BATCHES_PER_EPOCH, "something was trained twice"


def test_a_node_that_is_killed_while_it_is_checked_is_not_a_problem_of_the_cluster(cluster, tmp_path, monkeypatch):
    """Its task fails at once, but Ray counts the node among the living for another 12 s."""
    collect, killed = node_facts.collect_facts, cluster.nodes[0].node_id
    asked = tmp_path / "asked"

    def collect_facts(storage_path, probe, node_id, **how):
        if node_id == killed:
            asked.write_bytes(b"")
            time.sleep(600)
        return collect(storage_path, probe, node_id, **how)

    def kill():
        while not asked.exists():
            time.sleep(0.05)
        cluster.kill_raylet(0)

    monkeypatch.setattr(node_facts, "collect_facts", collect_facts)
    with ray_session.connected(cluster.cluster.address), ThreadPoolExecutor() as threads:
        others = set(ray_nodes.nodes()) - {killed}
        killing = threads.submit(kill)
        checked = ray_nodes.check_nodes(str(tmp_path / "results"), count_gpus=False)
        killing.result()
    assert {node.node_id for node in checked} == others
    ray_nodes.require_usable(checked)


def test_code_beside_the_script_travels_to_the_nodes(sweep, tmp_path):
    """Nodes have neither file, and need neither."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "my_parts.py").write_text(Path(sweep_script.__file__).read_text())
    (folder / "my_script.py").write_text(
        "import json, sys\nfrom my_parts import experiment\nexperiment(json.loads(open(sys.argv[1]).read())).run()\n"
    )
    sweep.script = folder / "my_script.py"
    result = sweep.run()
    assert result.code == 0, result.errors
    assert {row["status"] for row in sweep.rows()} == {"finished"}


def test_a_worker_that_hangs_is_a_failed_row_and_frees_its_place(sweep):
    config = {"n_repetitions": 1, "trial_timeout_s": 10}
    result = sweep.run(distorters=["Noise", "HangingNoise"], experiment_config=config)
    assert result.code == 1
    rows = sweep.rows()
    assert {row["status"] for row in rows if row["distorter"] == "Noise"} == {"finished"}
    assert {row["status"] for row in rows if row["distorter"] == "HangingNoise"} == {"failed"}
    assert all("did not report for 10 s" in row["error"] for row in rows if row["status"] == "failed")


class TestASweepGoesOn:
    def test_when_a_raylet_is_killed_and_when_a_node_is_taken_away_and_another_comes(self, sweep, undisturbed, cluster):
        process = sweep.start(slow=0.2)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        cluster.kill_raylet(0)
        cluster.remove_node(1)
        cluster.add_node()
        code, errors = ended(process)
        assert code == 0, errors
        assert sweep.numbers() == undisturbed

    def test_when_the_head_was_killed_and_the_cluster_is_started_again(self, sweep, undisturbed, cluster, monkeypatch):
        # By default Ray waits a minute for a head to come back, and a run half a minute; here it does not.
        monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        process = sweep.start(slow=0.1)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        cluster.kill_head()
        code, errors = ended(process)
        assert code == 1
        assert errors.strip().splitlines()[-1].startswith("error: the head of the Ray cluster at ")
        cluster.stop()
        cluster.start()
        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed

    def test_when_the_job_was_preempted(self, sweep, undisturbed):
        sweep.spec["experiment_config"] = {"checkpoint_interval_s": 1000}
        process = sweep.start(slow=0.1)
        wait_for(lambda: len(sweep.batches()) > N_TRIALS * 2 * BATCHES_PER_EPOCH, process)
        process.terminate()
        code, errors = ended(process)
        assert code == 75, errors
        assert "Traceback" not in errors
        left = [trial for trial, content in sweep.trials().items() if content["status"] == "running"]
        assert left
        assert all((sweep.folder / "trials" / trial / "checkpoint.pt").exists() for trial in left)
        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed
        assert len(sweep.batches()) == N_TRIALS * EPOCHS * BATCHES_PER_EPOCH, "something was trained twice"

    def test_when_each_checkpoint_was_cut_at_another_point(self, sweep, undisturbed):
        assert sweep.run(one_epoch=True).code == 0
        checkpoints = list(sweep.folder.glob("trials/*/*/checkpoint.pt"))
        assert len(checkpoints) == N_TRIALS
        for i, path in enumerate(checkpoints):
            content = path.read_bytes()
            path.write_bytes(content[: i * len(content) // N_TRIALS])
        result = sweep.run()
        assert result.code == 0, result.errors
        assert result.errors.count("its checkpoint cannot be used") == N_TRIALS
        assert sweep.numbers() == undisturbed

    def test_after_the_storage_was_away_for_20_s(self, s3, data_dir, tmp_path, undisturbed):
        control = tmp_path / "control"
        control.mkdir()
        cluster = LocalCluster(control)  # its nodes have the credentials in their environment
        try:
            sweep = ClusterSweep(data_dir, tmp_path / "results", cluster)
            process = sweep.start(slow=0.1, storage_path=s3.location)
            wait_for(lambda: len(sweep.batches()) > N_TRIALS * 2 * BATCHES_PER_EPOCH, process)
            s3.proxy.off_for(20)
            code, errors = ended(process)
        finally:
            cluster.stop()
        assert code == 0, errors
        for name, content in s3.objects().items():
            path = tmp_path / "results" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        assert sweep.numbers() == undisturbed

    def test_after_the_storage_was_full(self, data_dir, cluster, small_disk, undisturbed):
        sweep = ClusterSweep(data_dir, small_disk, cluster, experiment_config={"stop_if_all_fail": None})
        (small_disk / "filler").write_bytes(bytes(800_000))
        result = sweep.run()
        assert result.code == 1
        assert "No space left on device" in result.errors
        (small_disk / "filler").unlink()
        result = sweep.run()
        assert result.code == 0, result.errors
        assert sweep.numbers() == undisturbed

    def test_when_a_worker_is_killed_and_clocks_of_nodes_differ_by_an_hour(self, sweep, undisturbed, cluster, tmp_path):
        for hours in (-1, 1):
            (tmp_path / f"{hours}").mkdir()
            (tmp_path / f"{hours}" / "sitecustomize.py").write_text(
                f"import time\nright = time.time\ntime.time = lambda: right() + {hours * 3600}\n"
            )
            cluster.remove_node(0)
            cluster.add_node(PYTHONPATH=str(tmp_path / f"{hours}"))
        process = sweep.start(slow=0.1)
        wait_for(lambda: a_trial_is_half_way(sweep), process)
        kill_worker(sweep, process)
        code, errors = ended(process)
        assert code == 0, errors
        assert "was lost" in errors
        starts = [content["started"] for content in sweep.trials().values()]
        assert max(starts) - min(starts) > 3000
        assert sweep.numbers() == undisturbed


def test_a_race_of_which_a_worker_a_node_and_the_driver_are_killed_decides_as_in_a_single_process(
    sweep, data_dir, cluster, tmp_path
):
    spec = {"race": {"min_epochs": 1, "min_finalists": 1}, "lrs": [1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
    alone = Sweep(data_dir, tmp_path / "alone")
    alone.run(executor="inline", **spec)
    sweep.spec.update(spec)
    process = sweep.start(slow=0.2)
    kill_worker(sweep, process)
    wait_for(sweep.decisions, process)
    cluster.kill_raylet(0)
    cluster.add_node()
    process.kill()
    process.communicate()
    result = sweep.run()
    assert result.code == 0, result.errors
    assert len(alone.decisions()) == 2
    assert sweep.decisions() == alone.decisions()
    assert sweep.finalists() == alone.finalists()


def test_a_slow_node_does_not_hold_the_others_back(sweep, cluster, tmp_path):
    sweep.spec["experiment_config"] = {"n_repetitions": 6}
    cluster.remove_node(0)
    cluster.add_node(SLOW_FACTOR="10")
    process = sweep.start(slow=600)  # or the others could train everything before the slow node has started a worker
    wait_for(lambda: any(factor == 10 for _pid, factor in sweep.batches()), process)
    sweep.set_slow(0.05)
    code, errors = ended(process)
    assert code == 0, errors
    slow = {pid for pid, factor in sweep.batches() if factor == 10}
    by_slow_node = [content for content in sweep.trials().values() if content["pid"] in slow]
    by_others = [content for content in sweep.trials().values() if content["pid"] not in slow]
    assert 1 <= len(by_slow_node) <= 4, "of 18 trials a third would be its share if all nodes were as fast"
    assert max(content["ended"] for content in by_slow_node) > max(content["ended"] for content in by_others)
    assert sweep.numbers() == sweep.undisturbed(tmp_path / "undisturbed")


class Chaos:
    """Kills something of a sweep every few seconds, by a seeded choice, and counts what that may cost.

    Attributes:
        kills: The killed processes.
        n_lost: The largest possible number of trainings that were ended; each continues from its last checkpoint.
    """

    def __init__(self, sweep, choose):
        self.sweep = sweep
        self.choose = choose
        self.kills = []
        self.n_lost = 0

    def worker(self, process):
        pids = workers(self.sweep)
        if pids:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.choose.choice(pids), signal.SIGKILL)
            self.lost("worker", 1)
        return process

    def node(self, process):
        self.sweep.cluster.kill_raylet(self.choose.randrange(len(self.sweep.cluster.nodes)))
        self.sweep.cluster.nodes.append(self.sweep.cluster.add_node())
        self.lost("node", GPUS)
        return process

    def driver(self, process):
        process.kill()
        process.communicate()
        self.lost("driver", N_NODES * GPUS)
        return self.sweep.start(slow=SLOW)

    def lost(self, what, n):
        self.kills.append(what)
        self.n_lost += n


SLOW = 0.3


def race_then_grid(sweep, process):
    """Waits for the end of a race, then starts its script without the race.

    Returns the race's decisions and finalists, and the new process.
    """
    code, errors = ended(process)
    assert code == 0, errors
    raced = sweep.decisions(), sweep.finalists()
    del sweep.spec["race"]
    return raced, sweep.start(slow=SLOW)


@pytest.mark.timeout(900)
def test_a_race_that_becomes_a_grid_decides_and_ends_as_in_a_single_process_though_something_is_killed_all_the_time(
    data_dir, tmp_path, cluster, capsys
):
    sweep = ClusterSweep(
        data_dir,
        tmp_path / "results",
        cluster,
        lrs=[1e-3 * (i + 1) for i in range(8)],
        experiment_config={"n_repetitions": 3, "max_retries": 1000},
        race={"min_epochs": 1, "reduction_factor": 2},
    )
    alone = Sweep(data_dir, tmp_path / "alone")
    alone.spec = {**sweep.spec, "storage_path": str(tmp_path / "alone"), "device": "cpu"}
    assert alone.run(executor="inline").code == 0
    decisions, finalists = alone.decisions(), alone.finalists()
    del alone.spec["race"]
    assert alone.run(executor="inline").code == 0

    choose = random.Random(5)
    chaos = Chaos(sweep, choose)
    kinds = ["worker"] * 5 + ["node"] * 3 + ["driver"] * 2
    choose.shuffle(kinds)
    process, raced = sweep.start(slow=SLOW), None
    wait_for(lambda: a_trial_is_half_way(sweep), process)
    for kind in kinds:
        time.sleep(choose.uniform(2, 6))
        if process.poll() is None:
            process = getattr(chaos, kind)(process)
        elif raced is None:
            raced, process = race_then_grid(sweep, process)
        else:
            break
    if raced is None:
        raced, process = race_then_grid(sweep, process)
    sweep.set_slow(0)
    code, errors = ended(process)
    assert code == 0, errors
    repeated = len(sweep.batches()) - 24 * EPOCHS * BATCHES_PER_EPOCH
    with capsys.disabled():
        print(
            f"\nkilled: {', '.join(chaos.kills)}\nrepeated: {repeated} batches, for at most {chaos.n_lost} trainings "
            f"that were ended, with {BATCHES_PER_EPOCH} batches between two checkpoints each"
        )
    assert set(chaos.kills) == {"worker", "node", "driver"}
    assert repeated <= chaos.n_lost * BATCHES_PER_EPOCH
    assert raced == (decisions, finalists)
    assert len(decisions) >= 2
    assert 0 < len(finalists) < 24
    assert sweep.numbers() == alone.numbers()
