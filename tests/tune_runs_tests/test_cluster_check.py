"""`cluster_check.py` as a user runs it, on real clusters of several nodes on this machine, some of them broken."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.planning.placement import Node
from tests.cluster_tests.executors.local_cluster import CPUS, GPUS, N_NODES, LocalCluster
from tests.support import ROOT
from tune_runs import cluster_check

RAY = Path(sys.executable).with_name("ray")


def check(folder, *arguments, **environment):
    """Runs the check in a folder like a user's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "POSETUNE_"))}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tune_runs" / "cluster_check.py"), *map(str, arguments)],
        cwd=folder,
        env={**ours, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    print(done.stdout, done.stderr, sep="\n")  # helps to understand why a test failed
    # Lines are wrapped for people; a fact may span two lines.
    text = re.sub(r"\s+", " ", done.stdout)
    return SimpleNamespace(
        code=done.returncode, output=done.stdout, text=text, errors=done.stderr, seconds=time.monotonic() - began
    )


def table(output, first_header):
    """The rows of the table whose first column has this header, as lists of words."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [first_header[0]] and first_header[1] in line)
    rule = next(i for i in range(start, len(lines)) if lines[i].startswith("---"))
    return [line.split() for line in lines[rule + 1 : lines.index("", rule)]]


def write_set(data_dir, name, n_bytes):
    """Writes files of a given size: the check reads only their sizes."""
    data_dir.mkdir(exist_ok=True)
    for part in ("labels", "poses"):
        with (data_dir / f"{name}_{part}.pt").open("wb") as file:
            file.truncate(n_bytes // 2)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def started(command, **environment):
    """A node that `ray start` starts, for the block."""
    ports = ["--min-worker-port=0", "--max-worker-port=0"]  # by default all nodes of a machine would share some ports
    process = subprocess.Popen(
        [*map(str, command), *ports, "--disable-usage-stats", "--block"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = []
        while "Ray runtime started" not in "".join(output[-1:]):
            output.append(process.stdout.readline())
            assert output[-1], "".join(output)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory):
    cluster = LocalCluster(tmp_path_factory.mktemp("control"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory):
    """The folder of the check: with datasets of different sizes, and without results."""
    folder = tmp_path_factory.mktemp("user")
    write_set(folder / "data", "hands_train", 40_000_000)
    write_set(folder / "data", "hands_val", 2_000_000)
    write_set(folder / "data", "other_train", 20_000_000)
    return folder


@pytest.fixture(scope="module")
def good(three_nodes, user_folder):
    """What the check says of them."""
    return check(user_folder, **three_nodes.environment)


@pytest.mark.ray
@pytest.mark.serial
class TestThreeGoodNodes:
    def test_are_ready(self, good):
        assert good.code == 0
        assert good.output.splitlines()[-1] == "ready"
        assert "Traceback" not in good.errors

    def test_each_has_a_row_with_what_it_has(self, good):
        head, *workers = table(good.output, ("node", "CPUs"))
        assert head[1:4] == ["yes", "0", "0"]
        assert [row[1:3] for row in workers] == [[str(CPUS), str(GPUS)]] * N_NODES
        assert {row[-1] for row in (head, *workers)} == {"ok"}
        assert len({row[0] for row in (head, *workers)}) == 1 + N_NODES, "nodes of one machine have the same name"

    def test_a_trial_runs_on_each_gpu_of_each_node_and_on_no_other_and_comes_to_the_same_number(self, good):
        rows = table(good.output, ("node", "device"))
        workers = [row[0] for row in table(good.output, ("node", "CPUs"))[1:]]
        assert sorted(row[0] for row in rows) == sorted(workers * GPUS)
        assert all(float(row[-2]) > 0 for row in rows)
        assert len({row[-1] for row in rows}) == 1

    def test_have_the_versions_of_this_process(self, good):
        ours, theirs = table(good.output, ("versions", "torch"))
        assert ours[-4:] == theirs[-4:]
        assert "all of 4 nodes" in good.output

    def test_have_room_for_the_largest_data_that_belong_together(self, good):
        assert "data: 42 MB (hands_train, hands_val)" in good.text

    def test_let_in_whoever_reaches_them_which_is_said(self, good):
        assert "note: this cluster does not ask for a token" in good.text

    def test_are_left_as_they_were_and_the_folder_too(self, good, user_folder, three_nodes):
        assert {path.partition("/")[0] for path in files(user_folder)} == {"data"}
        ray.init(address=three_nodes.cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            end = time.monotonic() + 20
            while any(ray.available_resources().get(kind) != ray.cluster_resources()[kind] for kind in ("CPU", "GPU")):
                assert time.monotonic() < end, "a device is still taken"
                time.sleep(0.1)
        finally:
            ray.shutdown()

    def test_progress_is_lines_beside_the_tables_that_fit_80_columns(self, good):
        assert all(re.match(r"\[ *\d+ s\] \S", line) for line in good.errors.splitlines())
        assert "\r" not in good.errors
        assert "\x1b" not in good.output + good.errors
        assert max(map(len, good.output.splitlines())) <= 80


@pytest.fixture(scope="module")
def odd_nodes(tmp_path_factory):
    """A head, and nodes by their peculiarity; the folder that one of them does not see."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "results").mkdir()
    (folder / "results" / "mine.txt").write_text("there before")
    write_set(folder / "data", "big_train", 100_000_000)

    other_torch = tmp_path_factory.mktemp("other_torch")
    (other_torch / "torch-0.0.1.dist-info").mkdir()
    (other_torch / "torch-0.0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n"
    )
    other_code = tmp_path_factory.mktemp("other_code")
    for package in ("cluster", "posenet", "data_pipeline"):
        (other_code / package).mkdir()
        (other_code / package / "__init__.py").write_text("raise RuntimeError('this is another package')\n")

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = {"num_cpus": 1, "object_store_memory": 200_000_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(other_torch))
        torch_node = cluster.add_node(**node)
        patch.setenv("PYTHONPATH", str(other_code))
        code_node = cluster.add_node(**node)
    small_node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield SimpleNamespace(
        folder=folder,
        address=cluster.address,
        torch=name_of(torch_node),
        code=name_of(code_node),
        small=name_of(small_node),
        head=name_of(cluster.head_node),
    )
    cluster.shutdown()


def name_of(node):
    return f"{socket.gethostname()}/{node.node_id[:4]}"


@pytest.fixture(scope="module")
def unseeing_node(odd_nodes):
    """A node with another folder, a filesystem in memory, in the place of the results."""
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {odd_nodes.folder / "results"} && exec "$@"', "sh"]
    possible = subprocess.run([*hide, "true"], capture_output=True, text=True, check=False)
    if possible.returncode != 0:
        pytest.skip(f"this user may not give a process another file system: {possible.stderr.strip()}")
    options = ["--num-cpus=1", "--object-store-memory=200000000"]
    with started([*hide, RAY, "start", f"--address={odd_nodes.address}", *options]):
        yield


@pytest.fixture(scope="module")
def odd(odd_nodes, unseeing_node):
    """What the check says of them."""
    return check(odd_nodes.folder, "--cpu", "--address", odd_nodes.address)


@pytest.mark.ray
@pytest.mark.serial
class TestNodesWithSomethingWrong:
    def test_are_a_list_of_what_to_repair_and_1(self, odd):
        assert odd.code == 1
        assert "ready" not in odd.output
        repairs = odd.output.partition("To repair:\n")[2]
        assert re.findall(r"^ +(\d)\. ", repairs, re.MULTILINE) == ["1", "2", "3"]
        assert "Traceback" not in odd.output + odd.errors
        assert max(len(line) for line in odd.output.splitlines() if "/" not in line or " " in line.strip()) <= 80

    def test_another_torch_is_named_with_the_node(self, odd, odd_nodes):
        assert f"{odd_nodes.torch}: torch is 0.0.1 there and " in odd.text
        assert "install the same version on all nodes" in odd.text
        versions = {row[0]: row for row in table(odd.output, ("versions", "torch"))}
        assert versions[odd_nodes.torch][2] == "0.0.1"

    def test_a_package_of_the_same_name_there_is_not_in_the_way_of_our_code(self, odd, odd_nodes):
        versions = {row[0]: row[-1] for row in table(odd.output, ("versions", "torch"))}
        assert versions[odd_nodes.code] == versions["this"]
        trained = {row[0]: row[1:] for row in table(odd.output, ("node", "device"))}
        assert trained[odd_nodes.code][0] == "cpu"
        assert trained[odd_nodes.code][-1] == trained[odd_nodes.head][-1]

    def test_a_folder_that_a_node_does_not_see_is_named_with_the_node(self, odd, odd_nodes):
        known = {odd_nodes.torch, odd_nodes.code, odd_nodes.small, odd_nodes.head}
        (unseeing,) = {row[0] for row in table(odd.output, ("node", "CPUs"))} - known
        assert f"{unseeing}: {odd_nodes.folder}/results cannot hold the results: it does not see the file" in odd.text
        assert "Set storage_path to a folder that all nodes share" in odd.text

    def test_a_small_object_store_is_named_with_the_node_and_what_to_change(self, odd, odd_nodes):
        assert (
            f"{odd_nodes.small}: the object store has 80 MB, but 100 MB of data (big_train) should have 125 MB"
            in odd.text
        )
        assert "--object-store-memory=125000000" in odd.text

    def test_no_trial_runs_where_trials_cannot_run(self, odd, odd_nodes):
        names = {row[0] for row in table(odd.output, ("node", "device"))}
        assert names == {odd_nodes.code, odd_nodes.small, odd_nodes.head}

    def test_trials_beside_the_run_script_are_noted(self, odd, odd_nodes):
        assert f"note: trials also run on {odd_nodes.head}, the head node, next to this process" in odd.text

    def test_nothing_is_left_in_the_folder(self, odd, odd_nodes):
        assert files(odd_nodes.folder / "results") == ["mine.txt"]


@pytest.mark.ray
@pytest.mark.serial
def test_this_machine_alone_is_ready_and_no_folder_is_left(tmp_path):
    checked = check(tmp_path, "--storage-path", "new/results")
    assert checked.code == 0
    assert checked.output.splitlines()[-1] == "ready"
    assert "no datasets in data" in checked.text
    assert "token" not in checked.output
    assert files(tmp_path) == []


@pytest.mark.ray
@pytest.mark.serial
def test_this_machine_without_gpus_is_not_ready_for_sweeps_on_gpus(tmp_path):
    checked = check(tmp_path, "--gpus", CUDA_VISIBLE_DEVICES="")
    assert checked.code == 1
    assert "1. no node has a GPU" in checked.text


class TestAnErrorBeforeAnythingStarts:
    @pytest.mark.slow
    def test_where_nobody_listens(self, tmp_path):
        checked = check(tmp_path, "--address", f"127.0.0.1:{free_port()}")
        assert checked.code == 1
        assert "1. there is no usable Ray cluster at 127.0.0.1:" in checked.text
        assert "ray start --head" in checked.text
        assert "Traceback" not in checked.errors
        assert checked.seconds < 10, "to say that there is nothing must not take long"

    @pytest.mark.slow
    def test_where_a_named_set_is_not_there(self, tmp_path):
        write_set(tmp_path / "data", "hands_train", 1000)
        checked = check(tmp_path, "--sets", "hands_train", "hand_val")
        assert checked.code == 1
        assert "1. --sets: data has no hand_val; it has hands_train" in checked.text


@pytest.fixture(scope="module")
def token_cluster(tmp_path_factory):
    """A cluster that requires a token, and the token's file."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    port = free_port()
    head = [RAY, "start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
    with started([*head, "--include-dashboard=false"], RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token)):
        yield SimpleNamespace(address=f"127.0.0.1:{port}", token=token)


_SUBMIT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(lambda: "it ran").remote()))
"""


@pytest.mark.ray
@pytest.mark.serial
class TestAClusterThatAsksForAToken:
    def test_lets_nobody_in_without_it_and_the_check_says_where_to_put_it(self, token_cluster, tmp_path):
        checked = check(tmp_path, "--address", token_cluster.address, HOME=str(tmp_path))
        assert checked.code == 1
        assert "rejects this process, which does not have its token" in checked.text
        assert "RAY_AUTH_TOKEN_PATH" in checked.text
        assert "Traceback" not in checked.errors
        assert checked.seconds < 20

    def test_is_ready_for_whoever_has_it(self, token_cluster, tmp_path):
        given = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(token_cluster.token)}
        checked = check(tmp_path, "--address", token_cluster.address, **given)
        assert checked.code == 0
        assert "not ask for a token" not in checked.text
        assert token_cluster.token.read_text() not in checked.output + checked.errors

    def test_runs_no_job_of_whoever_has_another(self, token_cluster, tmp_path):
        other = tmp_path / "other"
        other.write_text(secrets.token_hex(32))
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(other)}
        done = subprocess.run(
            [sys.executable, "-c", _SUBMIT, token_cluster.address],
            env={**os.environ, "HOME": str(tmp_path), "RAY_NUM_REDIS_GET_RETRIES": "5", **given},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode != 0
        assert "it ran" not in done.stdout
        assert "uthentication" in done.stderr


def test_help_is_there_without_torch_and_ray():
    script = ROOT / "tune_runs" / "cluster_check.py"
    program = f"""
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_path({str(script)!r}, run_name="__main__")
except SystemExit as end:
    print(end.code, *sorted({{"torch", "ray"}} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"
    assert "--storage-path" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([(4, 4)], None),
        ([(2, 2), (4, 0)], None),
        ([(4, 0)], "no node has a GPU according to Ray"),
        ([(4, 0), (0, 4)], "no node has both a GPU and a CPU core"),
        ([(2, 4)], "only 2 of 4 GPUs would be used"),
    ],
)
def test_a_cluster_is_ready_for_gpus_where_a_node_has_them_and_cores_for_them(nodes, says):
    found = cluster_check.Findings()
    examined = [SimpleNamespace(node=Node(str(i), *has), facts={"gpus": has[1]}) for i, has in enumerate(nodes)]
    cluster_check._judge_devices(examined, [], "cuda", found)
    assert [says in problem for problem in found.problems] == ([] if says is None else [True])
