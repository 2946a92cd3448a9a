"""A training of a few samples before a run: errors in the user's own classes are found before anything starts.

It runs the code of a training: distorter, augmenters, normalizer, model, loss, backward pass, optimizer, scheduler and
evaluation. It trains copies on the CPU and keeps nothing.
"""

import copy
import inspect
import json
import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cluster.planning import builders
from cluster.planning.config import Problem, Settings
from cluster.planning.inputs import Inputs, set_keys
from cluster.planning.own_code import definition, is_own, names_in, own_objects, raised_at
from cluster.planning.plan import Plan
from cluster.planning.search_space import SearchSpace
from cluster.trial.parts import build_parts
from data_pipeline.batch import DeviceDataset, on_device
from data_pipeline.pose_dataset import PoseDataset
from posenet.machine_errors import is_machine_error
from posenet.reproducible import reproducible_process
from posenet.solver import DivergedError

N_SAMPLES = 4

_MORE_SAMPLES = 256
"""For classes that fail with fewer samples than they learn from, such as a normalizer that finds ten components."""

_WITHOUT_GPU = re.compile("not compiled with CUDA|No CUDA GPUs|NVIDIA driver|to be on the same device", re.IGNORECASE)
"""Errors of a class that puts tensors on the GPU by itself, where a trial would find a GPU."""

_MOST = 50
"""Distinct sets of classes that are rehearsed; beyond that only sets with a class that none of these has."""


@dataclass(frozen=True)
class _Role:
    """What a part of a training does.

    Attributes:
        key: Its key in the dicts.
        interface: How PoseTune uses it.
    """

    key: str
    interface: str


_ROLES = {
    "distorter": _Role(
        "base_hyperparams.distorter", "__call__(self, samples, generator) returns the inputs, (N, J, 3), mm"
    ),
    "augmenter": _Role(
        "base_hyperparams.augmenters",
        "__call__(self, poses, labels, skeleton, generator) returns the new poses and labels, a tuple of two tensors "
        "(N, J, 3), mm",
    ),
    "normalizer": _Role(
        "experiment_config.normalizer", "transform(self, poses), with poses (N, J, 3) in mm, returns a PoseTransform"
    ),
    "model": _Role("base_hyperparams.model", "forward(self, poses) returns the corrected poses, (N, J, 3) like poses"),
    "loss": _Role(
        "base_hyperparams.loss_function",
        "__call__(self, poses, labels, skeleton), with poses and labels (N, J, 3), returns a tensor with one number",
    ),
    "error": _Role(
        "base_hyperparams.loss_function",
        "error(poses, labels, skeleton), with poses and labels (N, J, 3), returns a tensor (N, K)",
    ),
    "metric": _Role(
        "solver_config.metrics",
        "metric(poses, labels, skeleton), with poses and labels (N, J, 3) in mm, returns a tensor (N,) or (N, K)",
    ),
    "optimizer": _Role("base_hyperparams.optimizer", "a torch.optim.Optimizer with step(self, closure)"),
    "scheduler": _Role("base_hyperparams.scheduler", "a torch LRScheduler, stepped after each epoch"),
}


class _PartError(Exception):
    """A part raised an error, the cause, or returned something wrong."""

    def __init__(self, role: str, part: Any, error: BaseException) -> None:
        super().__init__(str(error))
        self.role, self.part, self.error = role, part, error


class _WrongResultError(Exception):
    """A part returned something else than it should."""


class _Watched:
    """A part of a training, whose errors say that it raised them."""

    def __init__(self, role: str, part: Any) -> None:
        self._role, self._part = role, part

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        return partial(self._call, name) if callable(value) else value

    def __call__(self, *args: Any) -> Any:
        return self._call("__call__", *args)

    def _call(self, name: str, *args: Any) -> Any:
        try:
            result = getattr(self._part, name)(*args)
            check = _CHECKS.get((self._role, name))
            wrong = None if check is None else check(result, *args)
            if wrong is not None:
                raise _WrongResultError(f"{'it' if name == '__call__' else f'{name}()'} returns {wrong}")
        except (Exception, SystemExit) as error:
            raise _PartError(self._role, self._part, error) from error
        return result


def _check_distorted(result: Any, samples: Any, generator: Any) -> str | None:
    return _unlike(result, samples.poses)


def _check_augmented(result: Any, poses: Tensor, labels: Tensor, *rest: Any) -> str | None:
    if not isinstance(result, tuple | list) or len(result) != 2:
        return f"{_spelled(result)} instead of a tuple of two tensors"
    return _unlike(result[0], poses) or _unlike(result[1], labels)


def _check_normalized(result: Any, poses: Tensor) -> str | None:
    return _unlike(result[0], poses)


def _check_learned(result: Any) -> str | None:
    try:
        json.dumps(result)
    except (TypeError, ValueError) as error:
        return f"something that is not JSON ({error}) instead of a dict of lists of numbers"
    return None


def _check_loss(result: Any, poses: Tensor, *rest: Any) -> str | None:
    if not isinstance(result, Tensor) or result.numel() != 1:
        return f"{_spelled(result)} instead of a tensor with one number"
    if poses.requires_grad and not result.requires_grad:
        return "a tensor without a gradient; compute it from poses with operations of torch"
    return None


def _check_metric(result: Any, poses: Tensor, *rest: Any) -> str | None:
    if isinstance(result, Tensor) and result.ndim in (1, 2) and len(result) == len(poses):
        return None
    return f"{_spelled(result)} instead of a tensor ({len(poses)},) or ({len(poses)}, K)"


_CHECKS: Mapping[tuple[str, str], Callable[..., str | None]] = {
    ("distorter", "__call__"): _check_distorted,
    ("augmenter", "__call__"): _check_augmented,
    ("normalizer", "normalize"): _check_normalized,
    ("normalizer", "learned"): _check_learned,
    ("loss", "__call__"): _check_loss,
    ("metric", "__call__"): _check_metric,
}


def _unlike(result: Any, poses: Tensor) -> str | None:
    if isinstance(result, Tensor) and (result.shape, result.dtype) == (poses.shape, poses.dtype):
        return None
    return f"{_spelled(result)} instead of {_spelled(poses)}"


def _spelled(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return f"something of type {type(value).__name__}"


def rehearse(plan: Plan, space: SearchSpace, inputs: Inputs) -> list[Problem]:
    """Trains a few samples with each distinct set of classes that has one of the user's own.

    Args:
        plan: The combinations, which were checked.
        space: Their settings.
        inputs: The data that their check read.

    Returns:
        A problem for each error, with the user's file and line. The global generators stay as they are.
    """
    first_of = {names_in(combination.encoded): combination for combination in reversed(plan.combinations)}
    rehearsed: set[str] = set()
    n_rehearsed = 0
    problems: dict[Problem, None] = {}
    for names, combination in reversed(first_of.items()):
        is_known = n_rehearsed >= _MOST and names <= rehearsed
        if is_known or not (own_objects(names) or space.base.solver.metrics):
            continue
        problem = _rehearsed(space.settings(combination.row_indices), inputs)
        problems |= {} if problem is None else {problem: None}
        n_rehearsed += 1
        rehearsed |= names
    return list(problems)


def _rehearsed(settings: Settings, inputs: Inputs) -> Problem | None:
    """Trains a few samples; returns the problem if that fails, and with more samples too."""
    problem = _rehearsed_with(N_SAMPLES, settings, inputs)
    return None if problem is None or _rehearsed_with(_MORE_SAMPLES, settings, inputs) is None else problem


def _rehearsed_with(n_samples: int, settings: Settings, inputs: Inputs) -> Problem | None:
    """Trains the first samples of each set; returns the problem if that fails."""
    config, hyperparams = settings.experiment, settings.hyperparams
    sets = {split: _first_samples(n_samples, inputs.read_set(key)) for split, key in set_keys(settings).items()}
    data = {split: DeviceDataset.of(dataset, torch.device("cpu")) for split, dataset in sets.items()}
    tables = {
        file: on_device(inputs.read_table(file).array, torch.device("cpu"))
        for file in builders.build_distorter(hyperparams).tables
    }
    try:
        with (
            warnings.catch_warnings(),
            reproducible_process(
                threads=config.cpus_per_trial,
                deterministic=config.deterministic_mode,
                matmul_precision=settings.solver.matmul_precision,
            ),
        ):
            warnings.simplefilter("ignore")  # they appear in the training
            parts = build_parts(_watched(n_samples, copy.deepcopy(settings)), 0, data, tables)
            for _ in parts.solver.epochs():
                parts.evaluators["val"].final(parts.solver.model)
            if parts.normalizer is not None:
                parts.normalizer.learned()
    except DivergedError:
        return None  # that is the result of a trial
    except (Exception, SystemExit) as error:
        role = _role_of(error)
        failed = error if isinstance(error, _PartError) else _PartError(role, getattr(hyperparams, role), error)
        if config.devices[0].type != "cpu" and _WITHOUT_GPU.search(str(failed.error)):
            return None
        return _problem(failed.role, failed.part, failed.error)
    return None


def _first_samples(n_samples: int, dataset: PoseDataset) -> PoseDataset:
    rows = slice(n_samples)
    poses = {subset: array[rows] for subset, array in dataset.poses.items()}
    return replace(dataset, labels=dataset.labels[rows], poses=poses, frames=dataset.frames.take(rows))


def _watched(n_samples: int, settings: Settings) -> Settings:
    """Returns settings for an epoch of one batch, whose parts say which of them raised an error."""
    hyperparams: Any = settings.hyperparams
    normalizer: Any = settings.experiment.normalizer
    changes: dict[str, Any] = {
        "loss_function": _Watched("loss", builders.build_loss(hyperparams)),
        "augmenters": [_Watched("augmenter", augmenter) for augmenter in hyperparams.augmenters],
        "distorter": lambda **arguments: _Watched("distorter", hyperparams.distorter(**arguments)),
    }
    experiment = settings.experiment
    if normalizer is not None:
        made: Any = lambda skeleton: _Watched("normalizer", normalizer(skeleton))  # noqa: E731
        experiment = replace(experiment, normalizer=made)
    metrics: Any = [_Watched("metric", metric) for metric in settings.solver.metrics]
    solver = replace(
        settings.solver, num_epochs=1, batch_size=n_samples, val_example_indices=(), metrics=metrics, callbacks=()
    )
    return Settings(experiment, solver, replace(hyperparams, **changes))


def _role_of(error: BaseException) -> str:
    """Returns which part that is not watched raised an error: the innermost one that the error passed through."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        part = frame.f_locals.get("self")
        if isinstance(part, torch.optim.lr_scheduler.LRScheduler):
            return "scheduler"
        if isinstance(part, torch.optim.Optimizer):
            return "optimizer"
        if isinstance(part, torch.nn.Module) or frame.f_globals.get("__name__") == "posenet.solver":
            return "model"
    return "model"


def _problem(role: str, part: Any, error: BaseException) -> Problem | None:
    """Returns the problem that a part raised an error; None if the error is not the user's to fix here."""
    kind = part if isinstance(part, type) or inspect.isfunction(part) else type(part)
    needs_gpu = isinstance(error, AssertionError) and builders.is_of_torch(kind)
    if is_machine_error(error) or needs_gpu:
        return None  # it may work where it is trained
    if role == "loss" and not is_own(kind.__module__):
        role, kind = "error", getattr(part, "error", kind)
    where = raised_at(error) or definition(kind)
    key, interface = _ROLES[role].key, _ROLES[role].interface
    reason = str(error) if isinstance(error, _WrongResultError) else f"{type(error).__name__}: {error}"
    text = f"the {role} {kind.__name__} fails for {N_SAMPLES} samples, at {where}: {reason}"
    return Problem(key, f"{text}. Expected: {interface}; see docs/your_own_classes.md")
