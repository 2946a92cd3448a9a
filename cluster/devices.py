"""Where trials run: the target device of a config as slots that trials take and give back.

A slot is room for one trial. Ray knows each device by a resource of its own, so that a trial can be sent to the GPU
that the config names (Ray's own `GPU` resource cannot be asked for by index), and so that trials that share GPUs are
spread over them instead of filling one after another.
"""

import os
from collections import Counter
from dataclasses import dataclass, field

import torch

from cluster.config import ConfigError, ExperimentConfig, Problem


@dataclass(frozen=True)
class Placement:
    """Devices, and how many trials each takes at a time.

    Attributes:
        devices: The devices, each with its index where it is a GPU.
        trials_per_device: How many trials share one.
        cpus_per_trial: CPU cores of each trial.
    """

    devices: tuple[torch.device, ...]
    trials_per_device: int
    cpus_per_trial: int

    @property
    def n_slots(self) -> int:
        """How many trials run at a time."""
        return len(self.devices) * self.trials_per_device

    @property
    def ray_resources(self) -> dict[str, float]:
        """What the machine is declared to have, for Ray."""
        return {resource_name(device): float(self.trials_per_device) for device in self.devices}

    def trial_resources(self, device: torch.device) -> dict[str, float]:
        """What a trial on `device` takes of the machine, for Ray."""
        return {"CPU": float(self.cpus_per_trial), resource_name(device): 1.0}


def resource_name(device: torch.device) -> str:
    """Returns the name of the Ray resource that stands for a device."""
    return f"posetune:{device}"


def place(config: ExperimentConfig, *, n_cpus: int | None = None, n_gpus: int | None = None) -> Placement:
    """Finds the devices of this machine that a config asks for.

    Args:
        config: The experiment's config.
        n_cpus: CPU cores of this machine; by default those that this process may use.
        n_gpus: GPUs of this machine; by default those that torch sees.

    Raises:
        ConfigError: With all that this machine does not have: what was asked for, what there is, what to change.
    """
    n_cpus = _usable_cpus() if n_cpus is None else n_cpus
    n_gpus = torch.cuda.device_count() if n_gpus is None else n_gpus
    problems = []
    if config.cpus_per_trial > n_cpus:
        text = f"got {config.cpus_per_trial}, but this machine has {n_cpus} CPU core(s); ask for at most {n_cpus}"
        problems.append(Problem("experiment_config.cpus_per_trial", text))
    on_cpu = config.devices[0].type == "cpu"
    wanted = config.devices
    if wanted == [torch.device("cuda")]:
        wanted = [torch.device("cuda", index) for index in range(n_gpus)]
    missing = [device for device in wanted if (device.index or 0) >= n_gpus]
    if not on_cpu and (missing or not wanted):
        asked = ", ".join(map(str, missing or config.devices))
        if n_gpus:
            has = f"{n_gpus} GPU(s), cuda:0 to cuda:{n_gpus - 1}; take one of these or torch.device('cpu')"
        else:
            has = "no GPU that torch can use; take torch.device('cpu')"
        text = f"{asked} was asked for, but this machine has {has}"
        problems.append(Problem("experiment_config.target_device", text))
    if problems:
        raise ConfigError(problems)

    by_cpus = n_cpus // config.cpus_per_trial
    if on_cpu:
        return Placement((torch.device("cpu"),), by_cpus, config.cpus_per_trial)
    # More trials than the CPU cores feed would only wait.
    per_device = min(config.trials_per_device, max(1, by_cpus // len(wanted)))
    return Placement(tuple(wanted[:by_cpus]), per_device, config.cpus_per_trial)


def _usable_cpus() -> int:
    """Returns how many CPU cores this process may use; where the system does not tell (macOS), how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Slots:
    """Which device each running trial has."""

    placement: Placement
    taken: dict[str, torch.device] = field(default_factory=dict)

    def take(self, trial: str) -> torch.device:
        """Gives a trial a place on the device with the fewest trials."""
        load = Counter(self.taken.values())
        device = min(self.placement.devices, key=lambda device: load[device])  # the first of equals
        self.taken[trial] = device
        return device

    def give_back(self, trial: str) -> None:
        """Frees a trial's place."""
        self.taken.pop(trial, None)
