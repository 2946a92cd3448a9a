"""Where a run trains: in this process, with a Ray started on this machine, or on a Ray cluster; and how it ended."""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from threading import Thread
from typing import Literal

import torch

from cluster.executors.inline import run_inline
from cluster.executors.job import Job
from cluster.executors.monitor import Monitor
from cluster.executors.signals import Preempted, Signals
from cluster.planning.config import ConfigError, ExperimentConfig, Problem
from cluster.planning.placement import PRETEND_GPUS, UnusableNodeError, place_here
from cluster.schedules.schedule import Schedule
from cluster.searching.rounds import SearchError
from data_pipeline.user_error import UserError

ExecutorName = Literal["ray", "inline"]

_ADDRESS_VARIABLES = ("POSETUNE_ADDRESS", "RAY_ADDRESS")
_WAIT_VARIABLE = "POSETUNE_WAIT_FOR_NODES"
_GRACE_VARIABLE = "POSETUNE_GRACE_S"


@dataclass(frozen=True)
class RunEnd:
    """How the training of a run ended.

    Attributes:
        kind: "complete", or what ended it early: "all_failed" for `stop_if_all_fail`, "interrupted" for Ctrl-C,
            "preempted" for SIGTERM, "unusable_node" for a node on which trials cannot be trained, "search_ended" for a
            search that finds no further combination.
        reason: The error of a trial, a node or a search; empty for the other kinds.
    """

    kind: Literal["complete", "all_failed", "interrupted", "preempted", "unusable_node", "search_ended"]
    reason: str = ""

    @classmethod
    def of(cls, error: KeyboardInterrupt | Preempted | UnusableNodeError | SearchError) -> "RunEnd":
        """Returns the end that an exception caused."""
        if isinstance(error, UnusableNodeError):
            return cls("unusable_node", str(error))
        if isinstance(error, SearchError):
            return cls("search_ended", str(error))
        return cls("preempted" if isinstance(error, Preempted) else "interrupted")

    @property
    def from_outside(self) -> bool:
        """Whether a signal or a node ended the run, and not its trials."""
        return self.kind in ("interrupted", "preempted", "unusable_node")


@dataclass(frozen=True)
class Executor:
    """Where a run trains, and the signals that end it.

    Attributes:
        name: What trains.
        address: The Ray cluster; None to start Ray on this machine.
        wait_for_nodes: Whether to wait for a node if the cluster has none that a trial fits on.
        signals: The signals that this process received.
        closing: To be left at the end of the run: it waits until the Ray that the run started has ended.
    """

    name: ExecutorName
    address: str | None
    wait_for_nodes: bool
    signals: Signals
    closing: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, name: ExecutorName, address: str | None, *, wait_for_nodes: bool) -> "Executor":
        """Returns the executor that the arguments choose; their defaults come from the environment.

        Raises:
            UserError: If a variable of the environment is not a number and should be one.
        """
        address = None if name == "inline" else _cluster_address(address)
        return cls(name, address, wait_for_nodes or os.environ.get(_WAIT_VARIABLE) == "1", _signals())

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Returns what this machine lacks, if trials run on it."""
        if self.address is None:
            try:
                place_here(config)
            except ConfigError as error:
                return error.problems
        return []

    @contextmanager
    def ready(self, config: ExperimentConfig) -> Iterator[None]:
        """Connects to the cluster, if there is one, for the block.

        Raises:
            ConfigError: If no node has what a trial needs.
            ClusterError: If the cluster cannot be used.
        """
        if self.address is None:
            yield
            return
        # A late import: Ray takes seconds to import, and a finished experiment does not need it.
        from cluster.executors import ray_nodes, ray_session

        with ray_session.connected(self.address):
            if self.wait_for_nodes:
                ray_nodes.wait_for_node(config, self.signals)
            placement = ray_nodes.place_on_cluster(config)
            count_gpus = placement.gpu_share > 0 and PRETEND_GPUS not in os.environ
            ray_nodes.require_usable(ray_nodes.check_nodes(str(config.storage_path), count_gpus=count_gpus))
            yield

    def train(self, schedule: Schedule, job: Job, monitor: Monitor) -> RunEnd:
        """Trains what `schedule` gives out, and returns how that ended.

        Raises:
            ClusterError: If Ray cannot be used.
        """
        try:
            self._train(schedule, job, monitor)
        except (KeyboardInterrupt, Preempted, UnusableNodeError, SearchError) as error:
            return RunEnd.of(error)
        return RunEnd("complete") if monitor.why_stop is None else RunEnd("all_failed", monitor.why_stop)

    def _train(self, schedule: Schedule, job: Job, monitor: Monitor) -> None:
        if self.name == "inline":
            run_inline(schedule, job, place_here(job.config), monitor, self.signals)
            return
        if self.address is not None:
            from cluster.executors import ray_nodes, ray_runner

            placement = ray_nodes.place_on_cluster(job.config, schedule.n_parallel)
            ray_runner.run_ray(schedule, job, placement, monitor, self.signals, unbounded=self.wait_for_nodes)
            return
        monitor.progress.starting_ray()
        from cluster.executors import ray_session

        placement = place_here(job.config, schedule.n_parallel)
        # Starting, Ray keeps this process waiting for seconds: time to import Tune.
        import_ahead("cluster.executors.ray_runner")
        with ExitStack() as ray:
            ray.enter_context(ray_session.embedded(placement))
            from cluster.executors import ray_runner

            ray_runner.run_ray(schedule, job, placement, monitor, self.signals)
            # Ray may take seconds to end. Meanwhile the tables and the report are written.
            ending = Thread(target=_close, args=[ray.pop_all()], name="end of Ray")
        ending.start()
        self.closing.callback(ending.join)


def _close(ray: ExitStack) -> None:
    with suppress(Exception):  # all trials have ended: nothing is lost if Ray fails now
        ray.close()


def import_ahead(*modules: str) -> None:
    """Imports modules in a background thread, so that later imports do not wait; those also report any errors."""

    def work() -> None:
        for module in modules:
            with suppress(Exception):
                import_module(module)

    Thread(target=work, name="import ahead").start()


def default_device() -> torch.device:
    """Returns the device for scripts that train where a GPU is: `cuda` on a cluster, and here if there is a GPU.

    The machine that starts a run on a cluster often has no GPU, which says nothing about the cluster. If that has none
    either, the run ends with an error.
    """
    return torch.device("cuda" if _cluster_address() is not None or torch.cuda.is_available() else "cpu")


def _cluster_address(address: str | None = None) -> str | None:
    """Returns the Ray cluster to train on, by default that of the environment; None for this machine."""
    addresses = [address, *(os.environ.get(variable) for variable in _ADDRESS_VARIABLES)]
    address = next((found for found in addresses if found), None)
    return None if address == "local" else address


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
            f"{_GRACE_VARIABLE} is {text!r}, but must be a number: the seconds in which trials save after SIGTERM"
        )
    return Signals(grace_s=grace_s)
