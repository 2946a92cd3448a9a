"""Whether a cluster is ready for sweeps: a real trial on each of its devices, and room for the data on each node."""

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
from cluster.executors.ray_nodes import Examined
from cluster.executors.ray_session import ClusterError
from cluster.experiment import Experiment
from cluster.planning.inputs import Sources
from cluster.planning.placement import Placement, given_device, place_here
from cluster.planning.plan import TrialSpec, make_plan
from cluster.storage.filesystem import Storage
from cluster.trial.trainable import run_trial
from data_pipeline.distorters import NoDistorter
from data_pipeline.normalizers import Shifter
from data_pipeline.pose_dataset import dataset_names, dataset_path, write_dataset
from data_pipeline.preparation.synthetic import Backbone, synthetic_hands
from data_pipeline.user_error import UserError
from posenet import errors
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP

STORE_ROOM = 1.25
"""An object store should have room for so many times the data: Ray keeps a little more there than the data alone."""

_TRIALS_S = 120.0

# About a second on one core.
_SIZES = {"train": 4096, "val": 512}
_EPOCHS = 12


@dataclass(frozen=True)
class Tried:
    """How a trial went on a device.

    Attributes:
        device: The device as its machine calls it; what was asked for where it did not come to that.
        gpu: Model and UUID of a GPU.
        seconds: What the trial took, without the start of its process.
        distance_mm: The validation error it ended with, mm.
        problem: Why it failed.
    """

    device: str
    gpu: str | None = None
    seconds: float | None = None
    distance_mm: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Data:
    """The datasets of an experiment.

    Attributes:
        names: Their names.
        n_bytes: What they take in memory.
    """

    names: list[str]
    n_bytes: int


@contextmanager
def on_this_machine(*, use_gpus: bool) -> Iterator[None]:
    """Runs a Ray of our own for the block, with all cores of this machine and, if asked, all GPUs that torch sees."""
    with tempfile.TemporaryDirectory(prefix="posetune-") as nowhere:
        cores = place_here(_planned(nowhere, nowhere, 1).config)
    gpus = range(torch.accelerator.device_count() if use_gpus else 0)
    with ray_session.embedded(replace(cores, gpus=tuple(gpus))):
        yield


def try_devices(nodes: Sequence[Examined], storage_path: str, *, use_gpus: bool) -> Iterator[tuple[Examined, Tried]]:
    """Trains the same small corrector on all devices of `nodes` at the same time, as an experiment does.

    On a node with GPUs it is trained on each of them, on any other node with CPU cores on one of these. Its files are
    written to the storage as those of an experiment, and removed at the end.

    Args:
        nodes: Nodes without problems.
        storage_path: The folder for results, absolute.
        use_gpus: Train on GPUs where there are some.

    Yields:
        A node, and how the trial went on a device of it, when it has ended.
    """
    places = [
        (node, int(use_gpus and node.node.gpus > 0))
        for node in nodes
        if node.node.cpus
        for _ in range(node.node.gpus if use_gpus and node.node.gpus else 1)
    ]
    if not places:
        return
    with _experiment(storage_path, len(places)) as (job, trials):
        work = partial(_train, job, trials, [gpus > 0 for _, gpus in places])
        where = [(node.node_id, gpus) for node, gpus in places]
        for number, outcome in ray_nodes.run_on_devices(work, where, _TRIALS_S):
            node, gpus = places[number]
            if isinstance(outcome, ClusterError):
                outcome = Tried("a GPU" if gpus else "cpu", problem=str(outcome))
            yield node, outcome


def find_data(data_dir: Path, names: Sequence[str]) -> Data:
    """Returns the datasets `names`, or without any the largest that belong together, such as N_train, N_val and N_test.

    Raises:
        UserError: If one of `names` is not there.
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
    candidates = [Data(group, sum(sizes[name] for name in group)) for group in groups]
    return max(candidates, key=lambda data: data.n_bytes, default=Data([], 0))


def memory_problems(node: Examined, data: Data) -> list[str]:
    """Returns why the data has too little room in a node's shared memory, and what to do."""
    needed = int(data.n_bytes * STORE_ROOM)
    what = f"{in_words(data.n_bytes)} of data ({', '.join(data.names)}) should have {in_words(needed)}"
    problems = []
    if node.store_bytes < needed:
        problems.append(
            f"the object store has {in_words(node.store_bytes)}, but {what}; Ray would write to disk what does not "
            f"fit. Start the node with --object-store-memory={needed} or more, and with as much /dev/shm"
        )
    free = node.facts.get("shm_bytes")
    if free is not None and free < needed:
        problems.append(
            f"/dev/shm has {in_words(free)} free, but {what}. Make it larger: mount -o remount,size=… /dev/shm; for a "
            "container docker run --shm-size=…; on Kubernetes a volume as shm of kubernetes_rayjob.yaml"
        )
    return problems


def in_words(n_bytes: int) -> str:
    """Returns a number of bytes as text with three digits or so."""
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _data_bytes(data_dir: Path, name: str) -> int:
    # Numbers are stored as they are kept in memory; what the files have beside them is next to nothing.
    paths = (dataset_path(data_dir, name, part) for part in ("labels", "poses"))
    return sum(path.stat().st_size for path in paths if path.exists())


@contextmanager
def _experiment(storage_path: str, n_trials: int) -> Iterator[tuple[Job, list[TrialSpec]]]:
    """Plans an experiment whose trials are all the same; its files are gone after the block."""
    with tempfile.TemporaryDirectory(prefix="posetune-") as data_dir:
        for seed, (part, size) in enumerate(_SIZES.items()):
            labels = synthetic_hands(size, seed)
            write_dataset(Path(data_dir), part, labels, Backbone("A").predict(labels, seed))
        experiment = _planned(storage_path, data_dir, n_trials)
        sources = Sources(Path(data_dir))
        plan = make_plan(experiment.space, sources, n_repetitions=n_trials, seed=0)
        job = Job(experiment.config, experiment.space, sources.sets, sources.tables, sources.weights)
        try:
            # With the same seed all end with the same numbers.
            yield job, [replace(trial, seed=plan.trials[0].seed) for trial in plan.trials]
        finally:
            _remove_all(experiment.folder.storage)


def _planned(storage_path: str, data_dir: str, n_trials: int) -> Experiment:
    return Experiment(
        {
            "name": f"cluster_check-{secrets.token_hex(8)}",
            "train_set": "train",
            "train_set_size": None,
            "val_set": "val",
            "val_set_size": None,
            "use_preset": True,
            "normalizer": Shifter,
            "target_device": torch.device("cpu"),  # each trial is given its own
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


def _train(job: Job, trials: Sequence[TrialSpec], on_gpu: Sequence[bool], number: int) -> Tried:
    """What the process of a device does."""
    kind, share = ("cuda", 1.0) if on_gpu[number] else ("cpu", 0.0)
    device = torch.device(kind, 0) if share else torch.device(kind)
    trial = job.trial(trials[number], given_device(Placement(device, 1, 1, share)))
    folder = job.folder.trial(trial.id)
    *_, last = run_trial(trial, job.data(trial.settings), folder)
    content = folder.read_trial() or {}
    return Tried(
        device=content.get("device", str(trial.device)),
        gpu=content.get("gpu"),
        seconds=content.get("train_seconds"),
        distance_mm=last.val_distance_mm,
        problem=last.error,
    )


def _remove_all(storage: Storage, path: str = "") -> None:
    """Removes a folder with all that is in it."""
    if storage.local is not None:
        shutil.rmtree(storage.local, ignore_errors=True)
        return
    for name in storage.names(path):
        below = f"{path}/{name}" if path else name
        _remove_all(storage, below)
        storage.remove(below)
