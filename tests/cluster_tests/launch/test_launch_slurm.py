"""Both batch files, run by a real Slurm; if it cannot run, the tests skip with the reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster_tests.launch.slurm_cluster import SlurmCluster, missing
from tests.support import ROOT

LAUNCH = ROOT / "cluster/launch"
WHY_NOT = missing()
on_slurm = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "Slurm runs here")

# Replaces a run script: stops with 75 at SIGTERM, and completes at the start whose number is its argument.
RUN_SCRIPT = """
import itertools, os, signal, sys, time
from pathlib import Path

times = itertools.count(1)

def stop(number, frame):
    if next(times) == 1:  # Slurm and the batch file may both signal; the second signal can interrupt any line
        print("all saved", flush=True)
        os._exit(75)

if "deaf" not in sys.argv:
    signal.signal(signal.SIGTERM, stop)
starts = Path(f"starts-{os.environ['SLURM_JOB_ID']}")
starts.open("a").write("x")
print("told to take", os.environ.get("POSETUNE_ADDRESS", "an embedded Ray"))
print("ready at start", starts.stat().st_size, flush=True)
if starts.stat().st_size < int(sys.argv[1]):
    time.sleep(300)
print("complete")
"""

# Inspects the cluster at its first start.
CLUSTER_SCRIPT = """
import os, socket, subprocess, sys
from pathlib import Path
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

def look():
    ray.init(address=os.environ["POSETUNE_ADDRESS"], log_to_driver=False)
    print("each node has", *({node["Resources"].get(name) for node in ray.nodes()} for name in ("CPU", "GPU")))
    where = ray.remote(lambda: socket.gethostname())
    on = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()]
    print("tasks on", sorted(ray.get([where.options(scheduling_strategy=node).remote() for node in on])))
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    print("token's mode", oct(token.stat().st_mode & 0o777))
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    print("command lines with it", sum(token.read_bytes() in line for line in lines), "of many", len(lines) > 10)
    stranger = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    attempt = "import os, ray; ray.init(address=os.environ['POSETUNE_ADDRESS'])"
    done = subprocess.run([sys.executable, "-c", attempt], env=stranger, capture_output=True, text=True)
    print("without it: AuthenticationError", "AuthenticationError" in done.stderr, done.returncode)

if "SLURM_RESTART_COUNT" not in os.environ:
    look()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm.sbatch", "slurm_single_node.sbatch"])
def test_shellcheck_has_nothing_to_say_about(name):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    done = subprocess.run(["shellcheck", LAUNCH / name], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["slurm.sbatch", "slurm_single_node.sbatch"])
def test_without_a_run_script_a_batch_file_says_how_to_name_one(name):
    done = subprocess.run(["bash", LAUNCH / name], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"sbatch cluster/launch/{name} tune_runs/my_script.py" in done.stderr


# Slurm and the script end at the same moment: the signal finds no process.
ENDING_SCRIPT = """
import os, signal
os.kill(os.getppid(), signal.SIGTERM)
os._exit(75)
"""


def test_a_job_whose_script_ends_as_the_signal_arrives_is_started_again(tmp_path):
    (tmp_path / "slurm_single_node.sbatch").write_text(
        (LAUNCH / "slurm_single_node.sbatch").read_text().replace("VENV=.venv ", "VENV= ")
    )
    (tmp_path / "ending.py").write_text(ENDING_SCRIPT)
    for name, does in (("squeue", "echo RUNNING"), ("scontrol", 'echo "asked: $*"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"
    for _ in range(10):
        done = subprocess.run(
            ["bash", "slurm_single_node.sbatch", "-I", "-S", "ending.py"],
            cwd=tmp_path,
            env={"PATH": path, "SLURM_JOB_ID": "7"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (75, 143), done.stderr
        assert done.stdout == "asked: requeue 7\n"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    (cluster.folder / ".venv").symlink_to(sys.prefix)
    (cluster.folder / "run.py").write_text(RUN_SCRIPT)
    (cluster.folder / "failing.py").write_text("print('ready'); raise SystemExit(1)")
    (cluster.folder / "cluster_run.py").write_text(CLUSTER_SCRIPT + RUN_SCRIPT)
    yield cluster
    cluster.stop()


class Job:
    """A job of a batch file."""

    def __init__(
        self,
        slurm: SlurmCluster,
        name: str | Path,
        script: str | Path,
        *arguments: str,
        options: tuple[str, ...] = (),
        slow: float = 0,
    ):
        self.slurm = slurm
        environment = {"HOME": str(slurm.folder), "PYTHONPATH": str(ROOT)}
        of_sweep_script = {"SWEEP_CONTROL": str(slurm.folder), "SLOW": str(slow)}
        self.number = slurm.submit(
            *options, str(LAUNCH / name), str(script), *arguments, **environment, **of_sweep_script
        )

    def wait_for(self, condition):
        try:
            self.slurm.wait(lambda: condition(self), 150)
        except TimeoutError as error:
            raise AssertionError(f"{self.facts()}\n{self.output()}\n{error}") from None

    def wait_for_start(self, number):
        self.wait_for(lambda job: f"ready at start {number}" in job.output())

    def wait_until_over(self):
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
        self.wait_for(lambda job: job.facts()["JobState"] in over)
        return self.facts()

    def output(self):
        return self.slurm.output(self.number)

    def facts(self):
        return self.slurm.job(self.number)

    def tell(self, *options):
        done = self.slurm.run("scancel", *options, self.number)
        assert done.returncode == 0, done.stderr


def single_node_job(slurm, *script, options=("--nodelist=node3",)):
    return Job(slurm, "slurm_single_node.sbatch", *script, options=("--cpus-per-task=1", *options))


@pytest.fixture(scope="module")
def slow_jobs(slurm):
    """Jobs that take Slurm a long time, started before the other tests."""
    # Slurm needs half a minute to notice the time limit.
    short = single_node_job(slurm, "run.py", "2", options=("--nodelist=node3", "--time=2"))
    spare = single_node_job(slurm, "run.py", "2", options=("--partition=spare", "--exclusive"))
    spare.wait_for_start(1)
    urgent = slurm.submit("--partition=urgent", "--exclusive", "--wrap=true")
    return {"short": short, "spare": spare, "urgent": urgent}


@on_slurm
@pytest.mark.serial
@pytest.mark.usefixtures("slow_jobs")
class TestOnOneNode:
    def test_a_job_told_to_stop_is_started_again_and_completes(self, slurm):
        job = single_node_job(slurm, "run.py", "2")
        job.wait_for_start(1)
        job.tell("--signal=TERM", "--batch")
        facts = job.wait_until_over()
        assert facts["JobState"] == "COMPLETED"
        assert facts["Restarts"] == "1"
        assert job.output().count("all saved") == 1
        assert job.output().count("told to take an embedded Ray") == 2
        assert job.output().endswith("complete\n")

    def test_a_job_told_to_stop_before_its_script_listens_is_started_again_too(self, slurm):
        job = single_node_job(slurm, "run.py", "2", "deaf")
        job.wait_for_start(1)
        job.tell("--signal=TERM", "--batch")
        facts = job.wait_until_over()
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), job.output()

    def test_a_job_is_started_again_only_so_often(self, slurm):
        batch_file = slurm.folder / "once.sbatch"
        text = (LAUNCH / "slurm_single_node.sbatch").read_text()
        batch_file.write_text(text.replace("MAX_RESTARTS=100", "MAX_RESTARTS=0"))
        job = Job(slurm, batch_file, "run.py", "2", options=("--cpus-per-task=1", "--nodelist=node3"))
        job.wait_for_start(1)
        job.tell("--signal=TERM", "--batch")
        facts = job.wait_until_over()
        assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "75:0", "0")
        assert "submit the job again to continue" in job.output()

    def test_a_job_whose_trials_failed_is_not_started_again(self, slurm):
        facts = single_node_job(slurm, "failing.py").wait_until_over()
        assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "1:0", "0")

    def test_a_cancelled_job_saves_and_stays_cancelled(self, slurm):
        job = single_node_job(slurm, "run.py", "2")
        job.wait_for_start(1)
        job.tell()
        facts = job.wait_until_over()
        job.wait_for(lambda job: "all saved" in job.output())
        assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")


@on_slurm
@pytest.mark.ray
@pytest.mark.serial
@pytest.mark.usefixtures("slow_jobs")
class TestOnTwoNodes:
    def test_a_job_whose_nodes_are_told_to_stop_is_started_again_and_completes(self, slurm):
        """Some systems preempt by a signal to all processes on the nodes, and not to the batch script."""
        job = Job(slurm, "slurm.sbatch", "cluster_run.py", "2", options=("--gpus-per-node=2",))
        job.wait_for_start(1)
        job.tell("--signal=TERM")
        facts = job.wait_until_over()
        output = job.output()
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), output
        for line in (
            "each node has {4.0} {2.0}",
            "tasks on ['node1', 'node2']",
            "token's mode 0o600",
            "command lines with it 0 of many True",
            "without it: AuthenticationError True 1",
            f"told to take 10.99.0.1:{20000 + int(job.number)}",
        ):
            assert line in output
        assert "complete\n" in output
        # Nothing remains on a node or in the shared folder.
        count = "pgrep -c 'raylet|gcs_server' || true"
        left = slurm.run("srun", "--nodelist=node1,node2", "--nodes=2", "bash", "-c", count)
        assert left.stdout.split() == ["0", "0"]
        assert list((slurm.folder / ".posetune").iterdir()) == []

    def test_a_sweep_told_to_stop_saves_and_goes_on_where_it_was(self, slurm, small_data):
        results = slurm.folder / "results"
        spec = {
            "data_dir": str(small_data),
            "storage_path": str(results),
            "solver_config": {"val_example_subset": "DEFAULT"},
        }
        (slurm.folder / "spec.json").write_text(json.dumps(spec))
        script = ROOT / "tests/cluster_tests/sweep_script.py"
        job = Job(slurm, "slurm.sbatch", script, "spec.json", slow=0.2)
        job.wait_for(lambda job: any(results.rglob("checkpoint*")))
        job.tell("--signal=TERM", "--batch")
        facts = job.wait_until_over()
        output = job.output()
        assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "1"), output
        assert output.count("Preempted (SIGTERM)") == 1
        assert len(list(results.rglob("trial.json"))) == 6


@on_slurm
@pytest.mark.serial
class TestWhatSlurmTellsByItself:
    def test_a_job_whose_time_ends_is_told_so_two_minutes_before_and_started_again(self, slow_jobs):
        job = slow_jobs["short"]
        facts = job.wait_until_over()
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), job.output()
        assert job.output().count("all saved") == 1

    def test_a_job_that_gives_way_to_an_urgent_one_saves_and_completes_after_it(self, slurm, slow_jobs):
        job = slow_jobs["spare"]
        facts = job.wait_until_over()
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), job.output()
        assert job.output().count("all saved") == 1
        assert slurm.job(slow_jobs["urgent"])["JobState"] == "COMPLETED"
