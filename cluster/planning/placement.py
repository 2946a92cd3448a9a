"""Where trials run: how many fit on one machine or on several, what each takes, and on which device each ran.

Ray chooses the node and the GPU of a trial and shows the trial only that GPU. It fills a GPU that trials share before
it uses the next one. So a trial requests the largest share of a GPU with which as many trials as possible run at a
time: eight trials on four GPUs are two on each, even if a GPU could take more.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cluster.planning.config import ConfigError, ExperimentConfig, Problem
from data_pipeline.user_error import UserError

PRETEND_GPUS = "POSETUNE_PRETEND_GPUS"
"""If this is set in the environment, a trial with a GPU trains on the CPU. Machines without GPUs use it to test how
trials are placed on the GPUs that a Ray cluster was told about."""


class UnusableNodeError(UserError):
    """Trials cannot be trained on a node that joined or changed; unfinished trials on other nodes have a checkpoint."""


class NoRoomError(ConfigError):
    """No node of a cluster has what a trial needs; an additional node may."""


@dataclass(frozen=True)
class Node:
    """What a machine has.

    Attributes:
        name: Its name.
        cpus: Its CPU cores.
        gpus: Its GPUs.
    """

    name: str
    cpus: int
    gpus: int

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPU(s)" if self.gpus else "no GPU"
        return f"{self.name} ({self.cpus} CPU core(s), {gpus})"


@dataclass(frozen=True)
class Placement:
    """What a trial takes of a machine, and how many run at a time.

    Attributes:
        device: The device as a trial's process sees it: `cpu`, or the first and only GPU.
        n_slots: How many trials run at a time.
        cpus_per_trial: CPU cores of each trial.
        gpu_share: The fraction of a GPU that a trial takes; 0 on the CPU.
        gpus: The indices of the GPUs of this machine that may be used; None for all.
    """

    device: torch.device
    n_slots: int
    cpus_per_trial: int
    gpu_share: float = 0.0
    gpus: tuple[int, ...] | None = None

    @property
    def first_device(self) -> torch.device:
        """The first device for a trial in this process, which sees all GPUs."""
        return torch.device(self.device.type, self.gpus[0]) if self.gpus else self.device

    @property
    def trial_resources(self) -> dict[str, float]:
        """The resources of a trial, for Ray."""
        resources = {"CPU": float(self.cpus_per_trial)}
        return {**resources, "GPU": self.gpu_share} if self.gpu_share else resources

    @property
    def per_gpu(self) -> int | None:
        """How many trials share a GPU; None on the CPU."""
        return round(1 / self.gpu_share) if self.gpu_share else None

    def slots_on(self, nodes: Sequence[Node]) -> int:
        """Returns how many trials run at a time on `nodes`."""
        return _slots(nodes, self.cpus_per_trial, self.per_gpu)


def place_here(
    config: ExperimentConfig, n_trials: int = 1, *, n_cpus: int | None = None, n_gpus: int | None = None
) -> Placement:
    """Places trials on this machine.

    Args:
        config: The experiment's config.
        n_trials: The number of trials to train.
        n_cpus: CPU cores of this machine; the default is those that this process may use.
        n_gpus: GPUs of this machine; the default is those that torch sees.

    Raises:
        ConfigError: With everything that this machine lacks: what was requested, what it has, what to change.
    """
    kind = config.devices[0].type
    n_cpus = _usable_cpus() if n_cpus is None else n_cpus
    if kind == "cpu":
        n_gpus = 0
    elif n_gpus is None:
        n_gpus = torch.get_device_module(kind).device_count()
    problems = []
    if config.cpus_per_trial > n_cpus:
        text = f"got {config.cpus_per_trial}, but this machine has {n_cpus} CPU core(s); request at most {n_cpus}"
        problems.append(Problem("experiment_config.cpus_per_trial", text))
    indices = _indices(config) or tuple(range(n_gpus))
    missing = [index for index in indices if index >= n_gpus]
    if kind != "cpu" and (missing or not indices):
        wanted = ", ".join(f"{kind}:{index}" for index in missing) or kind
        if n_gpus:
            has = f"{n_gpus} GPU(s), {kind}:0 to {kind}:{n_gpus - 1}; use one of these or torch.device('cpu')"
        else:
            has = "no GPU that torch can use; use torch.device('cpu')"
        text = f"{wanted} was requested, but this machine has {has}"
        problems.append(Problem("experiment_config.target_device", text))
    if problems:
        raise ConfigError(problems)
    node = Node(socket.gethostname(), n_cpus, len(indices))
    return _fit(config, n_trials, [node], None if kind == "cpu" else indices)


def place_on(config: ExperimentConfig, n_trials: int, nodes: Sequence[Node]) -> Placement:
    """Places trials on the nodes of a Ray cluster.

    Raises:
        NoRoomError: If no node has what one trial needs: what was requested, what each node has, what to change.
        ConfigError: If the config names GPUs by their indices.
    """
    kind, indices = config.devices[0].type, _indices(config)
    has = nodes_text(nodes)
    differing = [node for node in nodes if node.gpus and set(indices) != set(range(node.gpus))]
    if indices and differing:
        wanted = ", ".join(f"{kind}:{index}" for index in indices)
        some = ",".join(map(str, indices))
        text = (
            f"{wanted} was requested, but GPUs of a Ray cluster cannot be chosen by index; {has}. Write "
            f"torch.device('{kind}'), or start its nodes with only these GPUs: CUDA_VISIBLE_DEVICES={some} ray start …"
        )
        raise ConfigError([Problem("experiment_config.target_device", text)])
    placement = _fit(config, n_trials, nodes, None)
    if not placement.n_slots:
        cores = f"{config.cpus_per_trial} CPU core(s)"
        if kind == "cpu":
            path, change = "cpus_per_trial", "Request fewer cores, or add a node"
            text = f"{cores} per trial were requested"
        else:
            path, change = "target_device", "Use torch.device('cpu'), request fewer cores, or add a node"
            text = f"a GPU and {cores} per trial (cpus_per_trial) were requested"
        text += f", but no node has that; {has}. {change}; run(wait_for_nodes=True) waits for one"
        raise NoRoomError([Problem(f"experiment_config.{path}", text)])
    return placement


def nodes_text(nodes: Sequence[Node]) -> str:
    """Returns what a cluster has, as a text."""
    return "the cluster has " + (", ".join(map(str, nodes)) or "no node")


def given_device(placement: Placement) -> torch.device:
    """Returns the device of a trial in its worker process."""
    if placement.device.type == "cpu":
        # Ray shows all GPUs to a process that requests none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return torch.device("cpu") if PRETEND_GPUS in os.environ else placement.device


def device_name(device: torch.device) -> tuple[str, str | None]:
    """Returns the name of a device on its machine, such as 'cuda:3', and the model and UUID of a GPU; None for a CPU.

    A process that sees only some GPUs of its machine counts only those. The name has the machine's own number.
    """
    if device.type == "cpu":
        return "cpu", None
    index = device.index or 0
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.type == "cuda" else []
    number = shown[index] if index < len(shown) and shown[index] else index
    properties = torch.get_device_module(device).get_device_properties(device)
    uuid = getattr(properties, "uuid", None)  # not every kind of GPU has one
    return f"{device.type}:{number}", properties.name if uuid is None else f"{properties.name} {uuid}"


def _fit(config: ExperimentConfig, n_trials: int, nodes: Sequence[Node], gpus: tuple[int, ...] | None) -> Placement:
    """Finds how many trials run at a time on `nodes`: none if no node has what one trial needs."""
    cpus, kind = config.cpus_per_trial, config.devices[0].type
    if kind == "cpu":
        return Placement(torch.device("cpu"), _slots(nodes, cpus), cpus)
    wanted = min(n_trials, _slots(nodes, cpus, config.trials_per_device))
    at_most = config.trials_per_device
    per_gpu = next(n for n in range(1, at_most + 1) if n == at_most or _slots(nodes, cpus, n) >= wanted)
    return Placement(torch.device(kind, 0), _slots(nodes, cpus, per_gpu), cpus, 1 / per_gpu, gpus)


def _slots(nodes: Sequence[Node], cpus_per_trial: int, per_gpu: int | None = None) -> int:
    """Returns how many trials run at a time, with up to `per_gpu` on each GPU; with None, on CPUs only."""
    # More trials than the CPU cores can feed would only wait.
    by_cpus = [node.cpus // cpus_per_trial for node in nodes]
    return sum(by_cpus if per_gpu is None else map(min, by_cpus, (node.gpus * per_gpu for node in nodes)))


def _indices(config: ExperimentConfig) -> tuple[int, ...]:
    """Returns the indices of the GPUs that a config names; an empty tuple if it names none."""
    return tuple(device.index for device in config.devices if device.index is not None and device.type != "cpu")


def _usable_cpus() -> int:
    """Returns how many CPU cores this process may use; on macOS, which does not say, how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
