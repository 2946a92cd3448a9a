"""Checks whether a cluster is ready for sweeps: a real trial on each device, and room for the data on each node."""

import re
import secrets
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from cluster.executors import ray_nodes, ray_session
from cluster.executors.job import Job
from cluster.executors.ray_nodes import CheckedNode
from cluster.executors.ray_session import ClusterError
from cluster.experiment import Experiment
from cluster.planning.inputs import Inputs
from cluster.planning.placement import Placement, given_device, place_here
from cluster.planning.plan import TrialSpec, make_plan
from cluster.storage.filesystem import Storage
from cluster.trial.trainable import run_trial
from data_pipeline.distorters import NoDistorter
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_names, dataset_path, write_dataset
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.user_error import UserError
from data_pipeline.words import size_text
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP

STORE_ROOM = 1.25
"""The size of an object store, relative to the data: Ray keeps a little more than the data there."""

_TRIALS_S = 120.0

# About a second on one core.
_SIZES = {"train": 4096, "val": 512}
_EPOCHS = 12


@dataclass(frozen=True)
class DeviceResult:
    """The result of a trial on a device.

    Attributes:
        device: The device's name on its machine; if the trial did not start, the kind of device.
        gpu: Model and UUID of a GPU.
        seconds: The duration of the trial, without the start of its process.
        distance_mm: The final validation error, mm.
        problem: Why it failed.
    """

    device: str
    gpu: str | None = None
    seconds: float | None = None
    distance_mm: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DataSize:
    """The size of an experiment's datasets.

    Attributes:
        names: Their names.
        n_bytes: The memory that they take.
    """

    names: list[str]
    n_bytes: int


@contextmanager
def on_this_machine(*, use_gpus: bool) -> Iterator[None]:
    """Runs Ray on this machine for the block, with all its cores and, if wanted, all GPUs that torch sees."""
    with tempfile.TemporaryDirectory(prefix="posetune-") as scratch:
        cores = place_here(_check_experiment(scratch, scratch, 1).config)
    gpus = range(torch.accelerator.device_count() if use_gpus else 0)
    with ray_session.embedded(replace(cores, gpus=tuple(gpus))):
        yield


def try_devices(
    nodes: Sequence[CheckedNode], storage_path: str, *, use_gpus: bool
) -> Iterator[tuple[CheckedNode, DeviceResult]]:
    """Trains the same small corrector on all devices of `nodes` at the same time, as an experiment does.

    A node with GPUs trains it on each GPU, any other node on one CPU core. Its files are written to the storage like
    those of an experiment, and removed at the end.

    Args:
        nodes: Nodes without problems.
        storage_path: The folder for results, absolute.
        use_gpus: Train on the GPUs of nodes that have some.

    Yields:
        A node and the result on one of its devices, as each trial ends.
    """
    places = [
        (node, int(use_gpus and node.node.gpus > 0))
        for node in nodes
        if node.node.cpus
        for _ in range(node.node.gpus if use_gpus and node.node.gpus else 1)
    ]
    if not places:
        return
    with _identical_trials(storage_path, len(places)) as (job, trials):
        work = partial(_train, job, trials, [gpus > 0 for _, gpus in places])
        where = [(node.node_id, gpus) for node, gpus in places]
        for number, result in ray_nodes.run_on_devices(work, where, _TRIALS_S):
            node, gpus = places[number]
            if isinstance(result, ClusterError):
                result = DeviceResult("a GPU" if gpus else "cpu", problem=str(result))
            yield node, result


def find_data(data_dir: Path, names: Sequence[str]) -> DataSize:
    """Returns the size of the datasets `names`; without names, of the largest group such as N_train, N_val and N_test.

    Raises:
        UserError: If one of `names` does not exist.
    """
    sizes = {name: _data_bytes(data_dir, name) for name in dataset_names(data_dir)}
    missing = [name for name in names if name not in sizes]
    if missing:
        has = ", ".join(sizes) or "no dataset"
        raise UserError(f"--sets: {data_dir} has no {', '.join(missing)}; it has {has}")
    families: dict[str, list[str]] = defaultdict(list)
    for name in sizes:
        families[re.sub(r"_(train|val|test)$", "", name)].append(name)
    groups = [list(names)] if names else families.values()
    candidates = [DataSize(group, sum(sizes[name] for name in group)) for group in groups]
    return max(candidates, key=lambda data: data.n_bytes, default=DataSize([], 0))


def memory_problems(node: CheckedNode, data: DataSize) -> list[str]:
    """Returns why a node's shared memory is too small for the data, and what to do."""
    needed = int(data.n_bytes * STORE_ROOM)
    what = f"{size_text(data.n_bytes)} of data ({', '.join(data.names)}) should have {size_text(needed)}"
    problems = []
    if node.store_bytes < needed:
        problems.append(
            f"the object store has {size_text(node.store_bytes)}, but {what}; Ray would write the rest to disk. Start "
            f"the node with --object-store-memory={needed} or more, and with as much /dev/shm"
        )
    free = node.facts.get("shm_bytes")
    if free is not None and free < needed:
        problems.append(
            f"/dev/shm has {size_text(free)} free, but {what}. Enlarge it: mount -o remount,size=… /dev/shm; for a "
            "container docker run --shm-size=…; on Kubernetes a volume such as shm of kubernetes_rayjob.yaml"
        )
    return problems


def _data_bytes(data_dir: Path, name: str) -> int:
    # Files store the numbers as they are in memory, and little else.
    paths = (dataset_path(data_dir, name, part) for part in ("labels", "poses"))
    return sum(path.stat().st_size for path in paths if path.exists())


@contextmanager
def _identical_trials(storage_path: str, n_trials: int) -> Iterator[tuple[Job, list[TrialSpec]]]:
    """Plans an experiment whose trials are all the same; removes its files after the block."""
    with tempfile.TemporaryDirectory(prefix="posetune-") as data_dir:
        for seed, (part, size) in enumerate(_SIZES.items()):
            labels = synthetic_hands(size, seed)
            write_dataset(Path(data_dir), part, labels, Backbone("A").predict(labels, seed))
        experiment = _check_experiment(storage_path, data_dir, n_trials)
        inputs = Inputs(Path(data_dir))
        plan = make_plan(experiment.space, inputs, n_repetitions=n_trials, seed=0)
        job = Job.of(experiment.config, experiment.space, inputs)
        try:
            # With the same seed all give the same numbers.
            yield job, [replace(trial, seed=plan.trials[0].seed) for trial in plan.trials]
        finally:
            _remove_all(experiment.folder.storage)


def _check_experiment(storage_path: str, data_dir: str, n_trials: int) -> Experiment:
    return Experiment(
        {
            "name": f"cluster_check-{secrets.token_hex(8)}",
            "train_set": "train",
            "train_set_size": None,
            "val_set": "val",
            "val_set_size": None,
            "use_preset": True,
            "normalizer": Shifter,
            "target_device": torch.device("cpu"),  # each trial gets its own
            "n_repetitions": n_trials,
            "init_weights_path": None,
            "data_dir": data_dir,
            "storage_path": storage_path,
        },
        {
            "num_epochs": _EPOCHS,
            "batch_size": 128,
            "log_frequency": 1,
            "log_loss": False,
            "log_grad": False,
            "verbose": False,
            "show_plots": False,
            "interest_keys": [],
            "val_example_indices": [],
            "val_example_subset": "DEFAULT",
        },
        {
            "model": CorrectorMLP,
            "model_args": {"hidden_dims": [128, 128]},
            "loss_function": MetricLoss(errors.coordinate_difference, "absolute"),
            "loss_space": "default",
            "eval_space": "original",
            "optimizer": torch.optim.Adam,
            "optimizer_args": {"lr": 1e-3},
            "scheduler": torch.optim.lr_scheduler.StepLR,
            "scheduler_args": {"step_size": 8},
            "scheduler_requires_metric": False,
            "distorter": NoDistorter,
            "distorter_args": {},
            "augmenters": [],
        },
    )


def _train(job: Job, trials: Sequence[TrialSpec], on_gpu: Sequence[bool], number: int) -> DeviceResult:
    """Trains a trial in the process of a device."""
    gpu = torch.accelerator.current_accelerator() or torch.device("cuda")  # none: pretended, or an error that says so
    device, share = (torch.device(gpu.type, 0), 1.0) if on_gpu[number] else (torch.device("cpu"), 0.0)
    trial = job.trial(trials[number], given_device(Placement(device, 1, 1, share)))
    folder = job.folder.trial(trial.id)
    *_, last = run_trial(trial, job.data(trial.settings), folder)
    trained = folder.read_trial()
    return DeviceResult(
        device=trained.device or str(trial.device),
        gpu=trained.gpu,
        seconds=trained.train_seconds,
        distance_mm=last.val_distance_mm,
        problem=last.error,
    )


def _remove_all(storage: Storage, path: str = "") -> None:
    """Removes a folder and its content."""
    if storage.local is not None:
        shutil.rmtree(storage.local, ignore_errors=True)
        return
    for name in storage.names(path):
        below = f"{path}/{name}" if path else name
        _remove_all(storage, below)
        storage.remove(below)
