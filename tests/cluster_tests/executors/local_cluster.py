"""A Ray cluster of several nodes on this machine: real raylets, and GPUs that do not exist."""

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ray.cluster_utils import Cluster

from cluster.planning.placement import PRETEND_GPUS

N_NODES, GPUS, CPUS = 3, 2, 2


class LocalCluster:
    """A head without trials and some nodes; tests may kill their processes.

    Args:
        control: The folder that tells `sweep_script.py` what to do, see there.

    Attributes:
        is_as_started: Whether another test can use it: its nodes are those of the start.
    """

    def __init__(self, control: Path) -> None:
        self.control = control
        self.is_as_started = True
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.client_port: int = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Starts a head and three nodes."""
        with _environment({"SWEEP_CONTROL": str(self.control)}):
            head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": self.client_port}
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add_node() for _ in range(N_NODES)]

    def add_node(self, **environment: str) -> object:
        """Adds a node with variables in its environment."""
        with _environment({"SWEEP_CONTROL": str(self.control), **environment}):
            return self.cluster.add_node(num_cpus=CPUS, num_gpus=GPUS)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a run script needs to train here."""
        return {"POSETUNE_ADDRESS": self.cluster.address, PRETEND_GPUS: "1"}

    def kill_raylet(self, index: int) -> None:
        """Kills a node's raylet, and thus the node, without a warning."""
        self.is_as_started = False
        node = self.nodes.pop(index)
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def remove_node(self, index: int) -> None:
        """Removes a node as an administrator does."""
        self.is_as_started = False
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=True)

    def kill_head(self) -> None:
        """Kills the head node, and thus the cluster."""
        self.is_as_started = False
        for processes in self.cluster.head_node.all_processes.values():
            for process in processes:
                os.kill(process.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends all processes."""
        self.cluster.shutdown()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
