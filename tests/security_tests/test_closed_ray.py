"""What others can reach of a Ray that a run started, and where secrets of its environment appear; with real runs."""

import os
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest
import ray  # noqa: F401 - psutil comes with it
from ray._raylet import GcsClient

from tests.cluster_tests.executors.local_cluster import LocalCluster
from tests.cluster_tests.sweep import ROOT, Sweep, a_trial_is_half_way, wait_for, write_sweep_data

import psutil  # isort: skip

pytestmark = [pytest.mark.ray, pytest.mark.serial]

SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDACCESSKEYID01",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+access/key0123456789abcde",
    "AWS_SESSION_TOKEN": "planted-session-token-0123456789",
    "RAY_AUTH_TOKEN": "planted-token-of-ray-0123456789abcdef0123456789",
}
TOKEN_IN_FILE = "planted-token-in-a-file-0123456789abcdef0123456"

# A task without a CPU, since trials have them all.
SUBMIT = """
import sys
from pathlib import Path
import ray
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False  # else it makes the machine's address of loopback's, where nobody listens
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=0)
def write(path):
    Path(path).touch()
ray.get(write.remote(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_sweep_data(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder that others may read, as on many clusters."""
    folder = tmp_path_factory.mktemp("home")
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def running(data_dir, home, tmp_path_factory):
    """A running sweep with its own Ray: its processes, and the address of its Ray."""
    sweep = Sweep(data_dir, tmp_path_factory.mktemp("running"))
    environment = {name: value for name, value in SECRETS.items() if name.startswith("AWS_")}
    (sweep.control / "slow").write_text("0.05")
    process = sweep.start(environment={**environment, "HOME": str(home), "SLOW": ""})
    try:
        wait_for(lambda: a_trial_is_half_way(sweep), process, timeout_s=120)
        (sweep.control / "slow").write_text("600")
        driver = psutil.Process(process.pid)
        processes = [driver, *driver.children(recursive=True)]
        listening = []
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                name = " ".join(each.cmdline()).strip()
                listening += [(name, c.laddr.ip, c.laddr.port) for c in each.net_connections() if c.status == "LISTEN"]
        raylet = next(each.cmdline() for each in processes if each.name() == "raylet")
        values = dict(word[2:].split("=", maxsplit=1) for word in raylet if word.startswith("--") and "=" in word)
        resources = values["static_resource_list"].split(",")
        yield SimpleNamespace(
            process=process,
            processes=processes,
            listening=listening,
            address=values["gcs-address"],
            raylet_log=Path(values["log_dir"]) / "raylet.out",
            n_cores=float(resources[resources.index("CPU") + 1]),
        )
    finally:
        process.kill()
        process.communicate()


def submit(running, path, home, **variables):
    """Submits a task from a process that shares only the machine with the run; returns the outcome."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "POSETUNE_"))}
    return subprocess.run(
        [sys.executable, "-c", SUBMIT, running.address, str(path)],
        env={**environment, "HOME": str(home), "RAY_NUM_REDIS_GET_RETRIES": "3", **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestARayOfARunsOwn:
    def test_listens_on_loopback_only(self, running):
        assert {ip.removeprefix("::ffff:") for _, ip, _ in running.listening} <= {"127.0.0.1", "::1"}
        who = " ".join(name for name, _, _ in running.listening)
        assert "gcs_server" in who
        assert "raylet" in who

    def test_has_no_dashboard(self, running):
        """Nor an autoscaler and a log monitor, which Ray also starts as processes of their own."""
        commands = [" ".join(each.cmdline()) for each in running.processes]
        assert any("raylet" in command for command in commands)
        for program in ("dashboard/dashboard.py", "autoscaler/_private/monitor.py", "log_monitor.py"):
            assert not any(program in command for command in commands)

    def test_starts_no_worker_that_trains_nothing(self, running):
        """Trials start in the workers that Ray starts in advance, one for each core."""
        workers = [line for line in running.raylet_log.read_text().splitlines() if "Started worker process" in line]
        assert 0 < len(workers) <= running.n_cores

    def test_runs_nothing_for_a_process_without_its_token(self, running, home, tmp_path):
        strange = tmp_path / "strange_home"
        strange.mkdir()
        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        for variables in ({}, {"RAY_AUTH_MODE": "disabled"}, wrong):
            done = submit(running, tmp_path / "ran", strange, **variables)
            assert done.returncode != 0
            assert "AuthenticationError" in done.stderr
            assert not (tmp_path / "ran").exists()
        # With the token it works, so only the token was missing.
        done = submit(running, tmp_path / "ran", home, RAY_AUTH_MODE="token")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "ran").exists()

    def test_does_nothing_by_http_without_its_token(self, running):
        answers = []
        for _, _, port in running.listening:
            request = Request(f"http://127.0.0.1:{port}/get_or_create_runtime_env", data=b"", method="POST")
            try:
                urlopen(request, timeout=5).close()
                answers.append(200)
            except HTTPError as error:
                answers.append(error.code)
                error.close()
            except (OSError, HTTPException):
                pass  # it uses another protocol
        assert answers
        assert set(answers) <= {401, 403}

    def test_has_files_and_a_token_that_others_can_neither_read_nor_replace(self, running, home):
        folder = Path(tempfile.gettempdir()) / f"ray-{os.getuid()}"
        command = " ".join(running.processes[0].children()[0].cmdline())
        assert f"{folder}/ray/session_" in command
        for private in (folder, home / ".ray"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert (home / ".ray" / "auth_token").exists()

    def test_shows_no_secret_in_the_list_of_processes(self, running, home):
        shown = "\n".join(" ".join(each.cmdline()) for each in running.processes if each.status() != "zombie")
        secrets = [*SECRETS.values(), (home / ".ray" / "auth_token").read_text()]
        assert [secret for secret in secrets if secret in shown] == []


def texts(folder):
    """The content of all files in a folder, as bytes; for Parquet the decoded content."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        yield path, path.read_bytes()
        if path.suffix == ".parquet":
            yield path, str(pq.read_table(path).to_pylist()).encode()


def assert_no_secret(result, *folders):
    found = [
        (path, name)
        for folder in folders
        for path, content in texts(folder)
        for name, secret in {**SECRETS, "file": TOKEN_IN_FILE}.items()
        if secret.encode() in content
    ]
    assert found == []
    for secret in (*SECRETS.values(), TOKEN_IN_FILE):
        assert secret not in result.output + result.errors


class TestASecretOfTheEnvironment:
    """It appears in no record, log or error, even if a trial fails."""

    @pytest.fixture
    def planted(self, tmp_path):
        folder = tmp_path / "home" / ".ray"
        folder.mkdir(parents=True)
        (folder / "auth_token").write_text(TOKEN_IN_FILE)
        path = str(folder / "auth_token")
        return {**SECRETS, "HOME": str(folder.parent), "RAY_AUTH_TOKEN_PATH": path}

    @pytest.fixture
    def sweep(self, data_dir, tmp_path):
        control = tmp_path / "control"
        control.mkdir()
        models = ["CorrectorMLP", "FailingMLP"]
        return Sweep(data_dir, tmp_path / "results", control, models=models, lrs=[1e-3])

    def ended(self, sweep, environment, **changes):
        process = sweep.start(environment=environment, **changes)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 1, errors
        assert "this model is broken" in output + errors
        statuses = sorted(content["status"] for content in sweep.trials().values())
        inline = changes.get("executor") == "inline"  # the first error ends the run
        assert statuses == (["failed", "finished"] if inline else ["failed", "failed", "finished", "finished"])
        return process.pid, SimpleNamespace(output=output, errors=errors)

    def test_inline(self, sweep, planted):
        _, result = self.ended(sweep, planted, executor="inline")
        assert_no_secret(result, sweep.folder)

    def test_on_a_ray_of_the_runs_own(self, sweep, planted):
        pid, result = self.ended(sweep, planted)
        (session,) = (Path(tempfile.gettempdir()) / f"ray-{os.getuid()}" / "ray").glob(f"session_*_{pid}")
        assert (session / "logs" / "gcs_server.out").exists()
        assert_no_secret(result, sweep.folder, session)

    def test_on_a_cluster(self, sweep, planted):
        cluster = LocalCluster(sweep.control)
        try:
            _, result = self.ended(sweep, {**planted, **cluster.environment}, device="cuda")
            session = Path(cluster.cluster.head_node.get_session_dir_path())
            jobs = str(GcsClient(address=cluster.cluster.address).get_all_job_info())
        finally:
            cluster.stop()
        assert "RAY_CHDIR_TO_TRIAL_DIR" in jobs  # the runtime environment is in it
        assert [name for name, secret in SECRETS.items() if name in jobs or secret in jobs] == []
        assert_no_secret(result, sweep.folder, session)
