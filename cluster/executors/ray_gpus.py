"""Which GPU of a Ray cluster each trial trains on: the one with the fewest trials.

Ray itself would fill a GPU with trials before it uses the next one. So a run reserves whole GPUs, each with the CPU
cores of its trials, by one placement group per GPU, and gives each trial a share of one of these.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Before Ray: it sets the environment that Ray reads when it is imported.
from cluster.executors import ray_nodes  # isort: split

import ray
from ray.air.execution import ResourceManager, ResourceRequest
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.tune.execution import tune_controller
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.planning.placement import Placement

_NODES_INTERVAL_S = 5.0
_MAX_FAILURES = 2


@dataclass(eq=False)
class _Gpu:
    """A GPU that trials may use.

    Attributes:
        node_id: Its node.
        n_places: How many trials may share it.
        n_trials: How many trials it has.
        group: The placement group that reserves it, or waits for it; None if no trial needs it.
        future: What resolves when it is reserved; None if it is.
        n_failures: How many trials failed on it and not on another GPU.
        suspicions: The trials that failed on it and that another GPU tries, and its name for people.
    """

    node_id: str
    n_places: int
    n_trials: int = 0
    group: PlacementGroup | None = None
    future: ray.ObjectRef | None = None
    n_failures: int = 0
    suspicions: dict[str, str] = field(default_factory=dict)

    @property
    def is_bad(self) -> bool:
        """Whether no trial should use it any more. It stays reserved, so that Ray does not offer it again."""
        return self.n_failures >= _MAX_FAILURES

    @property
    def has_place(self) -> bool:
        """Whether a trial can start on it now."""
        return self.group is not None and self.future is None and self.n_trials < self.n_places

    def is_in(self, group_id: str | None) -> bool:
        """Whether the placement group with this id reserves it."""
        return self.group is not None and self.group.id.hex() == group_id

    def reserve(self, cpus_per_trial: int) -> None:
        """Reserves it for this run as soon as no one else uses it."""
        bundle = {"GPU": 1.0, "CPU": float(self.n_places * cpus_per_trial)}
        self.group = placement_group([bundle], bundle_label_selector=[{"ray.io/node-id": self.node_id}])
        self.future = self.group.ready()

    def give_back(self) -> None:
        """Ends the reservation; but the group of a GPU that may be bad is all that distinguishes it from others."""
        if self.n_failures or self.suspicions:
            return
        if self.group is not None:
            remove_placement_group(self.group)
        self.group = self.future = None


class RayGpus(ResourceManager):  # type: ignore[misc] # ray declares no types
    """Tells Tune which trials can start, and where. All trials take the same share of a GPU.

    Args:
        placement: What each trial takes, and how many run at a time.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._gpus: list[_Gpu] = []
        self._known_nodes: set[str] = set()
        self._n_waiting = 0
        self._looked = float("-inf")

    def request_resources(self, resource_request: ResourceRequest) -> None:
        """A trial waits for a place."""
        self._n_waiting += 1
        self._reserve()

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        """A trial does not wait any more."""
        self._n_waiting -= 1

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        """Returns whether a GPU has a place."""
        if self._n_waiting:
            self._reserve()
        return self._best() is not None

    def _reserve(self) -> None:
        """Reserves all GPUs, also those of nodes that have just joined."""
        self._follow_nodes()
        for gpu in self._gpus:
            if gpu.group is None:
                gpu.reserve(self._placement.cpus_per_trial)

    def _best(self) -> _Gpu | None:
        """Returns the GPU that the next trial should use; None if it should wait."""
        usable = [gpu for gpu in self._gpus if not gpu.is_bad]
        # While another GPU tries what failed on a GPU, the latter gets no trials; it might fail them all, and quickly.
        trusted = [gpu for gpu in usable if not gpu.suspicions] or usable
        return min((gpu for gpu in trusted if gpu.has_place), key=lambda gpu: gpu.n_trials, default=None)

    def acquire_resources(self, resource_request: ResourceRequest) -> PlacementGroupAcquiredResources | None:
        """Returns a place on the GPU with the fewest trials; None if there is none."""
        gpu = self._best()
        if gpu is None:
            return None
        gpu.n_trials += 1
        self._n_waiting -= 1
        return PlacementGroupAcquiredResources(resource_request=resource_request, placement_group=gpu.group)

    def free_resources(self, acquired_resource: PlacementGroupAcquiredResources) -> None:
        """The process that had a place has ended. GPUs that no trial needs now are free for others."""
        for gpu in self._gpus:
            if gpu.group == acquired_resource.placement_group:
                gpu.n_trials -= 1
        for gpu in self._gpus:
            if not gpu.n_trials and not self._n_waiting:
                gpu.give_back()

    def failed(self, group_id: str | None, trial_id: str, place: str) -> None:
        """A trial failed because its GPU did, which is `place` for people; another one tries the trial once more."""
        for gpu in self._gpus:
            if gpu.is_in(group_id):
                gpu.suspicions[trial_id] = place

    def ended(self, group_id: str | None, trial_id: str, *, gpu_failed: bool) -> str | None:
        """A trial ended. If it had failed on another GPU before, this shows whether that one is bad.

        Args:
            group_id: The placement group that reserves its GPU; None if its worker was lost, which shows nothing.
            trial_id: The trial.
            gpu_failed: Whether its GPU failed.

        Returns:
            The name of a GPU that is not used any more from now on.
        """
        for gpu in self._gpus:
            place = gpu.suspicions.pop(trial_id, None)
            if place is not None and not gpu.is_bad:
                gpu.n_failures += group_id is not None and not gpu_failed and not gpu.is_in(group_id)
                return place if gpu.is_bad else None
        return None

    @property
    def all_bad(self) -> bool:
        """Whether there are GPUs, and none of them should be used any more."""
        return bool(self._gpus) and all(gpu.is_bad for gpu in self._gpus)

    def get_resource_futures(self) -> list[ray.ObjectRef]:
        """Returns what resolves when a GPU is reserved."""
        return [gpu.future for gpu in self._gpus if gpu.future is not None]

    def update_state(self) -> None:
        """Notes which GPUs are reserved by now."""
        futures = self.get_resource_futures()
        reserved, _ = ray.wait(futures, num_returns=len(futures), timeout=0) if futures else ([], [])
        for gpu in self._gpus:
            if gpu.future in reserved:
                gpu.future = None

    def clear(self) -> None:
        """Gives all GPUs back; no trial runs or waits any more."""
        self._n_waiting = 0
        for gpu in self._gpus:
            gpu.n_trials = 0
            if ray.is_initialized():
                gpu.give_back()

    def _follow_nodes(self) -> None:
        """Forgets GPUs of nodes that were lost, and adds those of nodes that joined."""
        now = time.monotonic()
        if now - self._looked < _NODES_INTERVAL_S:
            return
        self._looked = now
        nodes = ray_nodes.nodes()
        for gpu in self._gpus:
            if gpu.node_id not in nodes and gpu.group is not None:
                remove_placement_group(gpu.group)
        self._gpus = [gpu for gpu in self._gpus if gpu.node_id in nodes]
        joined = {node_id: node for node_id, node in nodes.items() if node_id not in self._known_nodes}
        added = list(joined.values())
        # The run's trials are spread over the nodes that it begins with; further nodes may take as many as they can.
        n_trials = self._placement.slots_on(added) if self._known_nodes else self._placement.n_slots
        for node_id, loads in zip(joined, self._placement.gpu_loads(added, n_trials), strict=True):
            self._gpus += [_Gpu(node_id, n_places) for n_places in loads if n_places]
        self._known_nodes |= set(nodes)


@contextmanager
def placed_by(gpus: RayGpus) -> Iterator[None]:
    """Makes Tune place trials on `gpus` in the block."""
    default = tune_controller.PlacementGroupResourceManager
    tune_controller.PlacementGroupResourceManager = lambda: gpus
    try:
        yield
    finally:
        tune_controller.PlacementGroupResourceManager = default
