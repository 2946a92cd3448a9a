"""Each node of a cluster receives the data once, for any number of trials.

What is measured is Ray's own count, by node, of the bytes that its object store ever made room for
(`cumulative_created_bytes`). A copy that comes from another node is made room for as any object is, so that a second
transfer counts again, also where the first copy was thrown away in between; what is in the store at the end would not
show that. On one machine the traffic itself cannot be told apart: all of it is on the loopback interface.
"""

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ray._private.internal_api import node_stats

from data_pipeline.pose_dataset import write_dataset
from tests.cluster_tests.executors.local_cluster import LocalCluster
from tests.cluster_tests.small_experiment import write_tables
from tests.cluster_tests.sweep import Sweep

pytestmark = [pytest.mark.ray, pytest.mark.serial]

SAMPLES = 80_000
# Labels and one prediction, float32; and of each sample four neighbours and its label's key, which a distorter reads.
BYTES = SAMPLES * (2 * 21 * 3 * 4 + 4 * 4 + 8)
SMALL_CHANGE = 4_000_000  # code, configs, and what Tune stores for each trial
N_TRIALS = 18
TRIALS_PER_NODE = 3


@pytest.fixture
def cluster(tmp_path):
    control = tmp_path / "control"
    control.mkdir()
    cluster = LocalCluster(control)
    yield cluster
    cluster.stop()


@pytest.fixture
def sweep(tmp_path, cluster):
    data_dir = tmp_path / "data"
    for part, n in {"train": SAMPLES, "val": 100}.items():
        labels = np.random.default_rng(n).normal(size=(n, 21, 3), scale=50).astype(np.float32)
        write_dataset(data_dir, f"small_{part}", labels, labels + 5)
        if part == "train":
            write_tables(data_dir, labels)
    return Sweep(
        data_dir,
        tmp_path / "results",
        cluster.control,
        device="cuda",
        lrs=[1e-4 * k for k in range(1, N_TRIALS // 3 + 1)],
        experiment_config={"n_repetitions": 3},
        solver_config={"num_epochs": 1, "batch_size": 20_000, "val_example_indices": []},
    )


def created_bytes(node):
    """The number of bytes that a node's object store ever allocated."""
    return node_stats(node.node_ip_address, node.node_manager_port).store_stats.cumulative_created_bytes


def note_raylets(sweep, process, raylets):
    """Records for each trial the raylet whose worker trains it (the worker's parent) until the sweep ends."""
    while process.poll() is None:
        for trial, content in sweep.trials().items():
            if trial not in raylets:
                try:
                    raylets[trial] = int(Path(f"/proc/{content['pid']}/stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue  # it has just ended; the next worker may show it
        time.sleep(0.1)


def test_data_go_to_each_of_three_nodes_once_though_many_trials_on_each_use_them(sweep, cluster):
    nodes = [cluster.cluster.head_node, *cluster.nodes]
    before = [created_bytes(node) for node in nodes]
    process = sweep.start(slow=0.2, environment=cluster.environment)
    raylets = {}
    noting = threading.Thread(target=note_raylets, args=(sweep, process, raylets))
    noting.start()
    _output, errors = process.communicate(timeout=280)
    noting.join()
    assert process.returncode == 0, errors

    created = [created_bytes(node) - earlier for node, earlier in zip(nodes, before, strict=True)]
    of_driver, *of_nodes = created
    trials = Counter(raylets.values())
    print(f"data {BYTES:,} bytes; made room for on the driver's node {of_driver:,}, on the others {of_nodes}")
    print(f"trials of each raylet: {trials}")
    pids = [node.all_processes["raylet"][0].process.pid for node in cluster.nodes]
    assert sum(trials.values()) == N_TRIALS
    assert all(trials[pid] >= TRIALS_PER_NODE for pid in pids)
    assert all(n_bytes > BYTES for n_bytes in created), "the data did not go through the object store"
    assert of_driver < BYTES + SMALL_CHANGE
    assert sum(of_nodes) < 3 * BYTES + SMALL_CHANGE
