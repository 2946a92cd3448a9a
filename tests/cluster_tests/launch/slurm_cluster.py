"""A real Slurm of four machines inside this one: each node has its own hostname, address, processes and folder of Ray.

The machines are Linux namespaces inside one process namespace: killing its first process ends them all. A command that
stops something "on the whole machine", such as `ray stop`, affects only the namespace of its node.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "unshare", "setpriv", "nsenter", "ip")

SLURM_CONF = """
ClusterName=test
SlurmctldHost=controller(10.99.0.254)
# A job that is requeued waits until its credential has expired, by default for two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=2
GresTypes=gpu
NodeName=node[1-4] CPUs=4 RealMemory=1000 Gres=gpu:2
PartitionName=all Nodes=node[1-3] Default=YES MaxTime=INFINITE
# A job in "urgent" ends the jobs in "spare", with a notice of a few seconds.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=spare Nodes=node4 PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=urgent Nodes=node4 PriorityTier=2 PreemptMode=OFF
"""

# Runs as the first process of its own process, network and mount namespace.
MACHINES = r"""
set -eu
cd "$FOLDER"
mount -t tmpfs tmpfs /run
mount --bind hosts /etc/hosts
mount -t tmpfs tmpfs /sys/fs/cgroup # slurmd needs the folder, even if it uses no control groups
hostname controller
ip link set lo up
ip link add name bridge type bridge
ip address add 10.99.0.254/24 dev bridge
ip link set bridge up
munged --force --foreground --key-file=munge.key --socket="$FOLDER/munge.socket" --pid-file="$FOLDER/munge.pid" \
    --log-file="$FOLDER/munge.log" --seed-file="$FOLDER/munge.seed" &
slurmctld -D &
for k in 1 2 3 4; do
    ip netns add node$k
    ip link add name to-node$k type veth peer name eth0 netns node$k
    ip link set to-node$k master bridge up
    ip -n node$k link set lo up
    ip -n node$k address add 10.99.0.$k/24 dev eth0
    ip -n node$k link set eth0 up
    ip -n node$k route add default via 10.99.0.254
    nsenter --net=/run/netns/node$k unshare --mount --pid --uts --fork --mount-proc --kill-child sh -euc "
        hostname node$k
        mount --bind ray-node$k /tmp/ray
        slurmd -D & wait" &
done
wait -n # if one ends, all do
"""


class SlurmCluster:
    """Slurm's daemons and commands.

    Args:
        folder: The folder for all files; all nodes see it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "FOLDER": str(folder)}
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # Any devices work: Slurm assigns them and does not use them.
        (folder / "gres.conf").write_text("AutoDetect=off\nNodeName=node[1-4] Name=gpu File=/dev/zero,/dev/full\n")
        (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder))
        nodes = {f"node{k}": f"10.99.0.{k}" for k in range(1, 5)}
        hosts = {"localhost": "127.0.0.1", "controller": "10.99.0.254", **nodes}
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        (folder / "state").mkdir()
        for name in nodes:
            (folder / name).mkdir()
            (folder / f"ray-{name}").mkdir()
        Path("/tmp/ray").mkdir(exist_ok=True)  # Ray's folder, which each node replaces with its own
        options = ("--mount", "--net", "--pid", "--uts", "--fork", "--mount-proc", "--kill-child")
        with (folder / "daemons.log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "unshare",
                    *options,
                    "bash",
                    "-c",
                    MACHINES,
                ],  # with the tests, all end
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait(lambda: self.run("sinfo", "--noheader", "--Node", "--format=%N %t").stdout.count("idle") >= 4, 30)
        except BaseException:
            self.stop()
            raise

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the controller, in the folder."""
        first = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        spaces = ("--mount", "--net", "--pid", "--uts", f"--wd={self.folder}")
        return subprocess.run(
            ["nsenter", "--target", first[0] if first else "0", *spaces, *command],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def job(self, number: str) -> dict[str, str]:
        """Slurm's information about a job: `JobState`, `ExitCode`, `Restarts` and more."""
        words = self.run("scontrol", "show", "job", number).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def submit(self, *arguments: str, **environment: str) -> str:
        """`sbatch`; returns the job's number."""
        done = self.run("sbatch", "--parsable", *arguments, **environment)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def output(self, number: str) -> str:
        """The output of a job so far."""
        path = self.folder / f"slurm-{number}.out"
        return path.read_text() if path.exists() else ""

    def wait(self, condition: Callable[[], object], seconds: float) -> None:
        """Waits until a condition is true."""
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError("Slurm did not start:\n" + (self.folder / "daemons.log").read_text())
            if time.monotonic() > end:
                log = (self.folder / "slurmctld.log").read_text().splitlines()
                raise TimeoutError("\n".join(["Slurm's controller tells:", *log[-20:]]))
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends all its processes."""
        self.process.kill()
        self.process.wait()


def missing() -> str:
    """Returns why Slurm cannot run here; empty if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed: {', '.join(absent)} (Debian: slurm-wlm munge iproute2)"
    if os.geteuid() != 0:
        return "only root may start Slurm's daemons and network namespaces"
    options = ("--mount", "--net", "--pid", "--uts", "--fork", "--mount-proc")
    probe = "mount -t tmpfs tmpfs /run && ip link add name bridge type bridge && ip netns add node"
    done = subprocess.run(["unshare", *options, "sh", "-c", probe], capture_output=True, text=True, check=False)
    return f"this machine allows no network namespaces: {done.stderr.strip()}" if done.returncode else ""
