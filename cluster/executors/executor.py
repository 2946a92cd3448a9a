"""Where a run trains: in this process, with a Ray of its own on this machine, or on a Ray cluster."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cluster.executors.inline import run_inline
from cluster.executors.job import Job
from cluster.executors.monitor import Watch
from cluster.executors.signals import Signals
from cluster.planning.config import ConfigError, ExperimentConfig, Problem
from cluster.planning.placement import PRETEND_GPUS, place_here
from cluster.planning.plan import TrialSpec
from data_pipeline.user_error import UserError

Executor = Literal["ray", "inline"]

_ADDRESS_VARIABLES = ("POSETUNE_ADDRESS", "RAY_ADDRESS")
_WAIT_VARIABLE = "POSETUNE_WAIT_FOR_NODES"
_GRACE_VARIABLE = "POSETUNE_GRACE_S"


@dataclass(frozen=True)
class Workplace:
    """Where a run trains, and what ends it from outside.

    Attributes:
        executor: What trains.
        address: The Ray cluster; None for a Ray of our own.
        wait_for_nodes: Whether to wait where the cluster has no node yet that a trial fits on.
        signals: What was asked of this process.
    """

    executor: Executor
    address: str | None
    wait_for_nodes: bool
    signals: Signals

    @classmethod
    def of(cls, executor: Executor, address: str | None, *, wait_for_nodes: bool) -> "Workplace":
        """Returns the workplace that the arguments name, or else the environment.

        Raises:
            UserError: If the environment has something else where a number should be.
        """
        named = [address, *(os.environ.get(variable) for variable in _ADDRESS_VARIABLES)]
        address = next((name for name in named if name), None)
        if executor == "inline" or address == "local":
            address = None
        return cls(executor, address, wait_for_nodes or os.environ.get(_WAIT_VARIABLE) == "1", _signals())

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Returns what this machine lacks, where it is the one that trains."""
        if self.address is None:
            try:
                place_here(config)
            except ConfigError as error:
                return error.problems
        return []

    @contextmanager
    def ready(self, config: ExperimentConfig) -> Iterator[None]:
        """Holds the connection to a cluster for the block, where there is one.

        Raises:
            ConfigError: If none of its nodes has what a trial needs.
            ClusterError: If it cannot be used; also RayInUseError.
        """
        if self.address is None:
            yield
            return
        # Imported where it is needed: it takes seconds, and a finished experiment does without.
        from cluster.executors import ray_nodes, ray_session

        with ray_session.connected(self.address):
            if self.wait_for_nodes:
                ray_nodes.wait_for_node(config, self.signals)
            placement = ray_nodes.place_on_cluster(config)
            count_gpus = placement.gpu_share > 0 and PRETEND_GPUS not in os.environ
            examined = ray_nodes.examine_nodes(str(config.storage_path), count_gpus=count_gpus)
            ray_nodes.require_usable(examined)
            yield

    def train(self, trials: Sequence[TrialSpec], job: Job, watch: Watch) -> None:
        """Trains `trials`; see the executors.

        Raises:
            KeyboardInterrupt: If Ctrl-C ended it.
            Preempted: If SIGTERM did.
            RayInUseError: If the script has started Ray itself.
        """
        if self.executor == "inline":
            run_inline(trials, job, place_here(job.config), watch, self.signals)
            return
        from cluster.executors import ray_nodes, ray_runner, ray_session

        if self.address is not None:
            placement = ray_nodes.place_on_cluster(job.config, len(trials))
            ray_runner.run_ray(trials, job, placement, watch, self.signals, unbounded=self.wait_for_nodes)
            return
        placement = place_here(job.config, len(trials))
        with ray_session.embedded(placement):
            ray_runner.run_ray(trials, job, placement, watch, self.signals)


def _signals() -> Signals:
    text = os.environ.get(_GRACE_VARIABLE)
    if not text:
        return Signals()
    try:
        grace_s = float(text)
    except ValueError:
        grace_s = math.nan
    if not 0 <= grace_s < math.inf:
        raise UserError(
            f"{_GRACE_VARIABLE} is {text!r}, and should be a number: the seconds that trials have to save at SIGTERM"
        )
    return Signals(grace_s=grace_s)
