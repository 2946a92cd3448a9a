"""A sweep on a cluster that does not have what it requests."""

import json
import os
import platform
import threading

import pytest
import torch
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

from cluster.executors import node_facts
from cluster.planning.placement import PRETEND_GPUS
from tests.cluster_tests.sweep import Sweep, a_trial_is_half_way, wait_for, write_sweep_data

pytestmark = [pytest.mark.ray, pytest.mark.serial]


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    return tmp_path_factory.mktemp("control")


@pytest.fixture(scope="module")
def cluster(control):
    """A head and two nodes, all without GPUs; a test that changes it puts it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CONTROL", str(control))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for cpus in (1, 2):
            cluster.add_node(num_cpus=cpus)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def sweep(tmp_path, cluster, control):
    data_dir = tmp_path / "data"
    write_sweep_data(data_dir)
    return Sweep(data_dir, tmp_path / "results", control, device="cuda", lrs=[1e-3])


_RUN = """
import json, sys, time
from cluster.planning.config import ConfigError
from tests.cluster_tests.sweep_script import experiment
began = time.monotonic()
try:
    experiment(json.loads(sys.argv[1])).run(address=sys.argv[2])
except ConfigError as error:
    print(time.monotonic() - began)
    print(error)
"""


def test_gpus_that_no_node_has_are_an_error_in_under_ten_seconds_that_says_what_each_has(sweep, cluster, python):
    done = python(_RUN, json.dumps(sweep.spec), cluster.address)
    assert done.returncode == 0, done.stderr
    seconds, _, text = done.stdout.partition("\n")
    assert float(seconds) < 10
    assert "a GPU and 1 CPU core(s) per trial (cpus_per_trial) were requested, but no node has that" in text
    for cores in (0, 1, 2):
        assert f" ({cores} CPU core(s), no GPU)" in text
    assert "Use torch.device('cpu'), request fewer cores, or add a node" in text
    assert not list((sweep.folder).glob("trials/*")), "something was written"


def test_with_wait_for_nodes_a_sweep_says_that_it_waits_and_goes_on_when_a_node_comes(sweep, cluster):
    environment = {"POSETUNE_ADDRESS": cluster.address, "POSETUNE_WAIT_FOR_NODES": "1", PRETEND_GPUS: "1"}
    process = sweep.start(environment=environment)
    errors, waits = [], threading.Event()

    def read():
        for line in process.stderr:
            errors.append(line)
            if line.startswith("waiting for a node: "):
                waits.set()

    reading = threading.Thread(target=read)
    reading.start()
    assert waits.wait(60), errors
    assert not sweep.trials()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CONTROL", str(sweep.control))
        node = cluster.add_node(num_cpus=2, num_gpus=1)
    assert process.wait(timeout=120) == 0, errors
    cluster.remove_node(node)
    reading.join()
    process.stdout.close()
    process.stderr.close()
    assert {content["status"] for content in sweep.trials().values()} == {"finished"}
    (waiting,) = (line for line in errors if line.startswith("waiting for a node: "))
    assert "were requested, but no node has that" in waiting


def test_sigterm_ends_a_sweep_that_waits_for_a_node(sweep, cluster):
    process = sweep.start(environment={"POSETUNE_ADDRESS": cluster.address, "POSETUNE_WAIT_FOR_NODES": "1"})
    assert process.stderr.readline().startswith("waiting for a node: ")
    process.terminate()
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert "run the script again to continue" in errors
    assert not output


def test_another_version_of_python_is_an_error_that_names_both(sweep, cluster):
    gcs, where = GcsClient(address=cluster.address), {"namespace": KV_NAMESPACE_CLUSTER}
    metadata = json.loads(gcs.internal_kv_get(CLUSTER_METADATA_KEY, **where))
    changed = json.dumps({**metadata, "python_version": "3.9.7"}).encode()
    gcs.internal_kv_put(CLUSTER_METADATA_KEY, changed, overwrite=True, **where)
    result = sweep.run(environment={"POSETUNE_ADDRESS": cluster.address})
    gcs.internal_kv_put(CLUSTER_METADATA_KEY, json.dumps(metadata).encode(), overwrite=True, **where)
    assert result.code == 1
    assert result.errors.startswith(f"error: the Ray cluster at {cluster.address} has another version of Ray or Python")
    assert "Python: 3.9.7 " in result.errors
    assert f"Python: {platform.python_version()}." in result.errors
    assert "Traceback" not in result.errors


def test_a_node_that_comes_later_with_another_torch_ends_the_sweep_which_has_saved(sweep, cluster, tmp_path):
    other_torch = tmp_path / "other" / "torch-0.0.1.dist-info"
    other_torch.mkdir(parents=True)
    (other_torch / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    sweep.spec.update(device="cpu", lrs=[1e-3, 3e-3, 1e-2], experiment_config={"n_repetitions": 4})
    environment = {"POSETUNE_ADDRESS": cluster.address}
    process = sweep.start(environment=environment, slow=0.5)
    wait_for(lambda: a_trial_is_half_way(sweep), process)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(other_torch.parent))
        patch.setenv("SWEEP_CONTROL", str(sweep.control))
        node = cluster.add_node(num_cpus=4)
    _output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "error: trials cannot be trained on a node: torch is 0.0.1 on " in errors
    assert "Traceback" not in errors
    statuses = {content["status"] for content in sweep.trials().values()}
    assert statuses <= {"finished", "running"}

    cluster.remove_node(node)
    result = sweep.run(environment=environment)
    assert result.code == 0, result.errors
    assert "to continue" in result.errors


@pytest.mark.parametrize(("shown", "n_gpus"), [("0,1", 2), ("", 4), (None, 4)])
def test_a_node_that_was_started_with_some_of_its_gpus_counts_these_alone(tmp_path, monkeypatch, shown, n_gpus):
    def count():
        return len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3").split(","))

    monkeypatch.setattr(torch.accelerator, "device_count", count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert node_facts.collect_facts(str(tmp_path), "probe", "node", count_gpus=True)["gpus"] == n_gpus
