"""The nodes of the Ray cluster that this process is connected to: what they have, and whether trials can run on them.

Before anything is trained, a run checks that a trial fits on some node, that all nodes have the same torch, Python and
code, and that all see the folder for results.
"""

import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.executors import node_facts

# Before Ray: it sets the environment that Ray reads when it is imported.
from cluster.executors.ray_session import ClusterError, by_value  # isort: split

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.executors.signals import Preempted, Signals
from cluster.planning.config import ExperimentConfig
from cluster.planning.placement import Node, NoRoomError, Placement, place_on
from cluster.storage.filesystem import Storage
from data_pipeline.words import say

_ANSWER_S = 60.0
# Ray asks a node every 3 s whether it lives, and believes that it does not at the fifth time without an answer.
_NOTICE_S = 30.0
_LOOK_AGAIN_S = 2.0
PRINT_INTERVAL_S = 60.0
_HEAD = "node:__internal_head__"

T = TypeVar("T")


def place_on_cluster(config: ExperimentConfig, n_trials: int = 1) -> Placement:
    """Places trials on the cluster that this process is connected to.

    Raises:
        ConfigError: If no node has what a trial needs.
    """
    return place_on(config, n_trials, list(nodes().values()))


def wait_for_node(config: ExperimentConfig, signals: Signals) -> None:
    """Waits for a node that a trial fits on: prints that, and asks the autoscaler for a node.

    Raises:
        Preempted: At SIGTERM.
        ConfigError: If no additional node would help.
    """
    printed: float | None = None
    try:
        while True:
            try:
                place_on_cluster(config)
                return
            except NoRoomError as error:
                if signals.preempted:
                    raise Preempted from None
                if printed is None or time.monotonic() - printed >= PRINT_INTERVAL_S:
                    say(f"waiting for a node: {error.problems[0].text}", sys.stderr)
                    printed = time.monotonic()
                gpu = {} if config.devices[0].type == "cpu" else {"GPU": 1}
                request_resources(bundles=[{"CPU": config.cpus_per_trial, **gpu}])
                time.sleep(_LOOK_AGAIN_S)
    finally:
        if printed is not None:
            request_resources(bundles=[])  # the request would outlast this process; trials make their own


def nodes() -> dict[str, Node]:
    """Returns the nodes that are alive now, by their ids."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    return {node["NodeID"]: _node(node, alone=hosts[node["NodeManagerHostname"]] == 1) for node in alive}


def _node(node: Mapping[str, Any], *, alone: bool) -> Node:
    host, resources = node["NodeManagerHostname"], node["Resources"]
    # The beginning of Ray's id distinguishes nodes on the same machine.
    name = host if alone else f"{host}/{node['NodeID'][:4]}"
    return Node(name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


@dataclass(frozen=True)
class CheckedNode:
    """The result of checking a node.

    Attributes:
        node_id: Ray's id of it.
        node: What it has.
        facts: Its facts, see `node_facts.collect_facts`; empty if it did not answer.
        problems: Why trials cannot run on it, and what to do.
        store_bytes: The size of its object store.
        is_head: Whether it is the cluster's head.
        has_driver: Whether this process runs on it.
    """

    node_id: str
    node: Node
    facts: Mapping[str, Any]
    problems: list[str]
    store_bytes: int
    is_head: bool
    has_driver: bool


def check_nodes(storage_path: str, *, count_gpus: bool) -> list[CheckedNode]:
    """Checks all nodes of the cluster at the same time.

    Args:
        storage_path: The folder for results, absolute; this process writes a file to it that every node must see.
        count_gpus: Check whether torch sees the GPUs that Ray was told about.

    Raises:
        StorageError: If this process cannot use the folder for results.
    """
    storage = Storage(storage_path)
    probe = f".probe-{secrets.token_hex(8)}"
    ours = node_facts.versions()
    alive = nodes()
    resources = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    storage.write(probe, b"")
    try:
        with by_value([node_facts]):
            collect = ray.remote(num_cpus=0, max_retries=0)(node_facts.collect_facts)
            answers = {
                collect.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
                    storage_path, probe, node_id, count_gpus=count_gpus
                ): node_id
                for node_id in alive
            }
            ray.wait(list(answers), num_returns=len(answers), timeout=_ANSWER_S)
        noticed = time.monotonic() + _NOTICE_S
        checked = []
        for answer, node_id in answers.items():
            node = alive[node_id]
            try:
                facts, problems = ray.get(answer, timeout=0), []
            except ray.exceptions.RayError as error:
                # Unless the error comes from the node itself, Ray may still have to notice that the node is dead.
                answered = isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.RuntimeEnvSetupError)
                if _is_gone(node_id, time.monotonic() if answered else noticed):
                    continue  # a node may leave at any time; another may replace it
                facts, problems = {}, [_no_answer(error)]
            if facts:
                problems += _differences(ours, facts["versions"])
                problems += _storage_problems(storage, facts["storage"], f"{probe}-{node_id}")
                if count_gpus:
                    problems += _gpu_problems(node.gpus, facts["gpus"])
            checked.append(
                CheckedNode(
                    node_id,
                    node,
                    facts,
                    [f"{node.name}: {problem}" for problem in problems],
                    store_bytes=int(resources[node_id].get("object_store_memory", 0)),
                    is_head=_HEAD in resources[node_id],
                    has_driver=node_id == ray.get_runtime_context().get_node_id(),
                )
            )
        return checked
    finally:
        for name in [probe, *(f"{probe}-{node_id}" for node_id in alive)]:
            storage.remove(name)


def require_usable(nodes: Iterable[CheckedNode]) -> None:
    """Checks that trials can run on all nodes.

    Raises:
        ClusterError: With the problems of all nodes.
    """
    problems = [problem for checked in nodes for problem in checked.problems]
    if problems:
        raise ClusterError("\n  ".join(["trials cannot run on this Ray cluster:", *problems]))


def run_on_devices(
    work: Callable[[int], T], places: Sequence[tuple[str, int]], timeout_s: float
) -> Iterator[tuple[int, T | ClusterError]]:
    """Calls `work` once on each of some devices, all at the same time, each in a separate process.

    Each process keeps its device until all are done, so no two get the same GPU.

    Args:
        work: Takes the index of its place.
        places: For each device the id of its node, and how many GPUs it takes: 1, or 0 for a CPU core.
        timeout_s: The time limit of all calls together.

    Yields:
        The index of a place, with what `work` returned there or with the error; in the order in which they end.
    """
    worker = ray.remote(max_restarts=0)(_Worker)
    shared = ray.put(work)
    workers = [
        worker.options(
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote()
        for node_id, gpus in places
    ]
    try:
        waiting = {worker.call.remote(shared, number): number for number, worker in enumerate(workers)}
        end = time.monotonic() + timeout_s
        while waiting:
            ended, _ = ray.wait(list(waiting), num_returns=1, timeout=max(0.0, end - time.monotonic()))
            if not ended:
                break
            number = waiting.pop(ended[0])
            try:
                yield number, ray.get(ended[0])
            except ray.exceptions.RayError as error:
                yield number, ClusterError(str(error).strip().splitlines()[-1])
        for number in waiting.values():
            yield number, ClusterError(f"it did not end within {timeout_s:.0f} s; does another run use the device?")
    finally:
        for worker in workers:
            ray.kill(worker)


class _Worker:
    """A process that calls a function."""

    def call(self, work: Callable[[int], T], number: int) -> T:
        return work(number)


def _is_gone(node_id: str, until: float) -> bool:
    """Returns whether a node has left the cluster; waits for it until a time of `time.monotonic`."""
    while node_id in nodes():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _no_answer(error: ray.exceptions.RayError) -> str:
    """Returns why a node did not answer."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return f"it did not answer within {_ANSWER_S:.0f} s"
    return f"it could not run anything: {str(error).strip().splitlines()[-1]}"  # Ray's text contains a stack


def _differences(ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> list[str]:
    return [
        f"{name} is {theirs[name] or 'not installed'} there and {ours[name]} here, so numbers may differ; install the "
        "same version on all nodes"
        for name in ours
        if theirs[name] != ours[name]
    ]


def _gpu_problems(told: int, seen: int | str) -> list[str]:
    if not told or (isinstance(seen, int) and seen >= told):
        return []  # a node may be started with fewer GPUs than it has
    return [
        f"Ray was told about {told} GPU(s), torch sees: {seen}. Install a torch for this GPU and its driver, or start "
        "the node with the right --num-gpus"
    ]


def _storage_problems(storage: Storage, problem: str | None, written: str) -> list[str]:
    if problem is None and storage.read(written) is None:
        problem = "this process does not see the file that the node wrote there"
    if problem is None:
        return []
    return [
        f"{storage.location} cannot hold the results: {problem}. Set storage_path to a folder that all nodes share, or "
        "to an object store such as s3://bucket/results"
    ]
