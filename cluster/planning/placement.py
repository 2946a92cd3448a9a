"""Where trials run: how many fit on one machine or on several, what each takes of them, and what it really ran on.

Ray chooses the node and the GPU of a trial and shows the trial that GPU alone. It fills a GPU that trials share before
it takes the next one. So a trial asks for the largest share of a GPU with which as many run at a time as there is room
for: eight trials on four GPUs are two on each, however many a GPU might take.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cluster.planning.config import ConfigError, ExperimentConfig, Problem
from data_pipeline.user_error import UserError

PRETEND_GPUS = "POSETUNE_PRETEND_GPUS"
"""Where this is set in the environment, a trial that was given a GPU trains on the CPU: for trying out, on machines
without GPUs, how trials are spread over those that a Ray cluster was told it has."""


class UnfitNodeError(UserError):
    """A node came, or changed, on which trials cannot be trained; what was being trained elsewhere has a checkpoint."""


class NoRoomError(ConfigError):
    """No node of a cluster has what a trial needs; another one may."""


@dataclass(frozen=True)
class Node:
    """What a machine has.

    Attributes:
        name: What it is called.
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
        device: The device as a trial's process sees it: `cpu`, or the first and only one of its kind.
        n_slots: How many trials run at a time.
        cpus_per_trial: CPU cores of each trial.
        gpu_share: The part of a GPU that a trial takes; 0 on the CPU.
        gpus: The GPUs of this machine that may be taken, by index; None where all may.
    """

    device: torch.device
    n_slots: int
    cpus_per_trial: int
    gpu_share: float = 0.0
    gpus: tuple[int, ...] | None = None

    @property
    def first_device(self) -> torch.device:
        """The device that this process, which sees all of them, would take first."""
        return torch.device(self.device.type, self.gpus[0]) if self.gpus else self.device

    @property
    def trial_resources(self) -> dict[str, float]:
        """What a trial takes, for Ray."""
        resources = {"CPU": float(self.cpus_per_trial)}
        return {**resources, "GPU": self.gpu_share} if self.gpu_share else resources

    @property
    def per_gpu(self) -> int | None:
        """How many such trials share a GPU; None on the CPU."""
        return round(1 / self.gpu_share) if self.gpu_share else None

    def slots_on(self, nodes: Sequence[Node]) -> int:
        """Returns how many such trials run at a time on `nodes`."""
        return _slots(nodes, self.cpus_per_trial, self.per_gpu)


def place_here(
    config: ExperimentConfig, n_trials: int = 1, *, n_cpus: int | None = None, n_gpus: int | None = None
) -> Placement:
    """Places trials on this machine.

    Args:
        config: The experiment's config.
        n_trials: How many trials there are to train.
        n_cpus: CPU cores of this machine; by default those that this process may use.
        n_gpus: GPUs of this machine; by default those that torch sees.

    Raises:
        ConfigError: With all that this machine does not have: what was asked for, what there is, what to change.
    """
    kind = config.devices[0].type
    n_cpus = _usable_cpus() if n_cpus is None else n_cpus
    if kind == "cpu":
        n_gpus = 0
    elif n_gpus is None:
        n_gpus = torch.get_device_module(kind).device_count()
    problems = []
    if config.cpus_per_trial > n_cpus:
        text = f"got {config.cpus_per_trial}, but this machine has {n_cpus} CPU core(s); ask for at most {n_cpus}"
        problems.append(Problem("experiment_config.cpus_per_trial", text))
    indices = _indices(config) or tuple(range(n_gpus))
    missing = [index for index in indices if index >= n_gpus]
    if kind != "cpu" and (missing or not indices):
        asked = ", ".join(f"{kind}:{index}" for index in missing) or kind
        if n_gpus:
            has = f"{n_gpus} GPU(s), {kind}:0 to {kind}:{n_gpus - 1}; take one of these or torch.device('cpu')"
        else:
            has = "no GPU that torch can use; take torch.device('cpu')"
        text = f"{asked} was asked for, but this machine has {has}"
        problems.append(Problem("experiment_config.target_device", text))
    if problems:
        raise ConfigError(problems)
    node = Node(socket.gethostname(), n_cpus, len(indices))
    return _fit(config, n_trials, [node], None if kind == "cpu" else indices)


def place_on(config: ExperimentConfig, n_trials: int, nodes: Sequence[Node]) -> Placement:
    """Places trials on the nodes of a Ray cluster.

    Raises:
        NoRoomError: If no node has what one trial needs: what was asked for, what each node has, what to change.
        ConfigError: If GPUs are named that cannot be chosen.
    """
    kind, indices = config.devices[0].type, _indices(config)
    has = what_there_is(nodes)
    differing = [node for node in nodes if node.gpus and set(indices) != set(range(node.gpus))]
    if indices and differing:
        asked = ", ".join(f"{kind}:{index}" for index in indices)
        some = ",".join(map(str, indices))
        text = (
            f"{asked} was asked for, but of a Ray cluster's GPUs none can be chosen by its index; {has}. Write "
            f"torch.device('{kind}'), or start its nodes with these GPUs alone: CUDA_VISIBLE_DEVICES={some} ray start …"
        )
        raise ConfigError([Problem("experiment_config.target_device", text)])
    placement = _fit(config, n_trials, nodes, None)
    if not placement.n_slots:
        cores = f"{config.cpus_per_trial} CPU core(s)"
        if kind == "cpu":
            path, change = "cpus_per_trial", "Ask for fewer cores, or add a node"
            text = f"{cores} a trial were asked for"
        else:
            path, change = "target_device", "Take torch.device('cpu'), ask for fewer cores, or add a node"
            text = f"a GPU and {cores} a trial (cpus_per_trial) were asked for"
        text += f", but no node has that; {has}. {change}; run(wait_for_nodes=True) waits for one"
        raise NoRoomError([Problem(f"experiment_config.{path}", text)])
    return placement


def what_there_is(nodes: Sequence[Node]) -> str:
    """Returns what a cluster has, for people."""
    return "the cluster has " + (", ".join(map(str, nodes)) or "no node")


def given_device(placement: Placement) -> torch.device:
    """Returns the device of a trial in the process that Ray gave to it."""
    if placement.device.type == "cpu":
        # Ray shows all GPUs to whoever asks for none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return torch.device("cpu") if PRETEND_GPUS in os.environ else placement.device


def device_name(device: torch.device) -> tuple[str, str | None]:
    """Returns what a device is called on its machine, such as 'cuda:3', and what its GPU says that it is.

    This process may be shown some GPUs of the machine only, and then counts those; the first name is the machine's own
    number. The second is model and UUID, None for a CPU.
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
    """Finds how many trials run at a time on `nodes`, none where no node has what one trial needs."""
    cpus, kind = config.cpus_per_trial, config.devices[0].type
    if kind == "cpu":
        return Placement(torch.device("cpu"), _slots(nodes, cpus), cpus)
    wanted = min(n_trials, _slots(nodes, cpus, config.trials_per_device))
    at_most = config.trials_per_device
    per_gpu = next(n for n in range(1, at_most + 1) if n == at_most or _slots(nodes, cpus, n) >= wanted)
    return Placement(torch.device(kind, 0), _slots(nodes, cpus, per_gpu), cpus, 1 / per_gpu, gpus)


def _slots(nodes: Sequence[Node], cpus_per_trial: int, per_gpu: int | None = None) -> int:
    """Returns how many trials run at a time, so many on each GPU; without GPUs where that is None."""
    # More trials than the CPU cores feed would only wait.
    by_cpus = [node.cpus // cpus_per_trial for node in nodes]
    return sum(by_cpus if per_gpu is None else map(min, by_cpus, (node.gpus * per_gpu for node in nodes)))


def _indices(config: ExperimentConfig) -> tuple[int, ...]:
    """Returns the indices of the GPUs that a config names; none where it leaves the choice open."""
    return tuple(device.index for device in config.devices if device.index is not None and device.type != "cpu")


def _usable_cpus() -> int:
    """Returns how many CPU cores this process may use; where the system does not tell (macOS), how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
