"""Where trials run: how many fit on one machine or on several, what each takes, and on which device each ran.

Ray shows a trial only its GPU. Trials that share GPUs are spread evenly: six trials on four GPUs are two on two of
them and one on each of the others, even if a GPU could take more. `executors/ray_gpus.py` gives each trial its GPU.
"""

import math
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import torch

from cluster.planning.config import ConfigError, ExperimentConfig, Problem
from data_pipeline.user_error import UserError

PRETEND_GPUS = "POSETUNE_PRETEND_GPUS"
"""If this is set in the environment, a trial with a GPU trains on the CPU. Machines without GPUs use it to test how
trials are placed on the GPUs that a Ray cluster was told about."""


_SHOWN_GPUS = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "hip": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),  # the second one counts if the first one is empty
    "xpu": ("ZE_AFFINITY_MASK",),
}
"""The variables that say which GPUs of a machine a process sees: of NVIDIA, AMD and Intel."""

_NO_GPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "-1",  # empty would show all
    "ONEAPI_DEVICE_SELECTOR": "*:cpu",  # an empty ZE_AFFINITY_MASK would show all
}
"""Hides all GPUs from a process."""


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
        # Ray rounds to four decimals, so seven shares of 1/7 would be more than a GPU.
        return {**resources, "GPU": 10_000 // self.per_gpu / 10_000} if self.per_gpu else resources

    @property
    def per_gpu(self) -> int | None:
        """How many trials share a GPU; None on the CPU."""
        return round(1 / self.gpu_share) if self.gpu_share else None

    def slots_on(self, nodes: Sequence[Node]) -> int:
        """Returns how many trials run at a time on `nodes`."""
        return _slots(nodes, self.cpus_per_trial, self.per_gpu)

    def gpu_loads(self, nodes: Sequence[Node], n_trials: int) -> list[list[int]]:
        """Returns how many of at most `n_trials` trials each GPU of each of `nodes` takes at a time."""
        return _gpu_loads(nodes, n_trials, self.cpus_per_trial, self.per_gpu or 0)


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
        os.environ.update(_NO_GPU)
    return torch.device("cpu") if PRETEND_GPUS in os.environ else placement.device


def device_name(device: torch.device) -> tuple[str, str | None]:
    """Returns the name of a device on its machine, such as 'cuda:3', and the model and UUID of a GPU; None for a CPU.

    A process that sees only some GPUs of its machine counts only those. The name has the machine's own number.
    """
    if device.type == "cpu":
        return "cpu", None
    index = device.index or 0
    names = _SHOWN_GPUS.get("hip" if device.type == "cuda" and torch.version.hip else device.type, ())
    shown = next((os.environ[name] for name in names if os.environ.get(name)), "").split(",")
    number = shown[index] if index < len(shown) and shown[index] else index
    properties = torch.get_device_module(device).get_device_properties(device)
    uuid = getattr(properties, "uuid", None)  # not every kind of GPU has one
    return f"{device.type}:{number}", properties.name if uuid is None else f"{properties.name} {uuid}"


def _fit(config: ExperimentConfig, n_trials: int, nodes: Sequence[Node], gpus: tuple[int, ...] | None) -> Placement:
    """Finds how many trials run at a time on `nodes`: none if no node has what one trial needs."""
    cpus, kind = config.cpus_per_trial, config.devices[0].type
    if kind == "cpu":
        return Placement(torch.device("cpu"), _slots(nodes, cpus), cpus)
    loads = list(chain(*_gpu_loads(nodes, n_trials, cpus, config.trials_per_device)))
    return Placement(torch.device(kind, 0), sum(loads), cpus, 1 / (max(loads, default=0) or 1), gpus)


def _slots(nodes: Sequence[Node], cpus_per_trial: int, per_gpu: int | None = None) -> int:
    """Returns how many trials run at a time, with up to `per_gpu` on each GPU; with None, on CPUs only."""
    # More trials than the CPU cores can feed would only wait.
    by_cpus = [node.cpus // cpus_per_trial for node in nodes]
    return sum(by_cpus if per_gpu is None else map(min, by_cpus, (node.gpus * per_gpu for node in nodes)))


def _gpu_loads(nodes: Sequence[Node], n_trials: int, cpus_per_trial: int, per_gpu: int) -> list[list[int]]:
    """Spreads trials evenly over the GPUs of nodes, at most `per_gpu` on each and no more than the CPU cores feed."""
    loads = [[0] * node.gpus for node in nodes]
    for _ in range(per_gpu):
        for node, node_loads in zip(nodes, loads, strict=True):
            room = min(node.gpus, node.cpus // cpus_per_trial - sum(node_loads), n_trials - sum(map(sum, loads)))
            for gpu in range(room):
                node_loads[gpu] += 1
    return loads


def _indices(config: ExperimentConfig) -> tuple[int, ...]:
    """Returns the indices of the GPUs that a config names; an empty tuple if it names none."""
    return tuple(device.index for device in config.devices if device.index is not None and device.type != "cpu")


def _usable_cpus() -> int:
    """Returns how many CPU cores this process may use; on macOS, which does not say, how many the machine has."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(n_cores, _cpu_quota())))


def _cpu_quota(root: Path = Path("/")) -> float:
    """Returns how much CPU time this process gets, in cores: a container may get less than the cores that it sees.

    Linux limits control groups, which form a tree; each limit holds for all groups below.

    Args:
        root: The root of the filesystem.
    """
    quotas = [math.inf]
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # Version 2 has one tree, without names of controllers here; version 1 has one for each controller.
            tree = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            if not controllers or "cpu" in controllers.split(","):
                group = PurePosixPath(path.lstrip("/"))
                quotas += [_quota_of(tree / above) for above in (group, *group.parents)]
    return min(quotas)


def _quota_of(group: Path) -> float:
    """Returns the limit of a control group itself, in cores."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # no such group or no limit
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            return int(quota) / int(period)
    return math.inf
