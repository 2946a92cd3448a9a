"""Hands, datasets and families for all tests."""

import dataclasses
import importlib
import inspect
import itertools
import os
import pkgutil
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from data_pipeline.pose_dataset import PoseDataset
from data_pipeline.skeleton import HANDS17, ICVL, NYU, Skeleton

ROOT = Path(__file__).parents[1]
"""The folder of the repository."""

SHARED_DATA = Path(os.environ.get("POSETUNE_SHARED_DATA") or ROOT.parent / "shared" / "data")
"""The folder of the leaderboard's files; tests that read them skip if they are missing."""

SKELETONS = [HANDS17, ICVL, NYU]


def hands(skeleton: Skeleton, n: int, seed: int = 0, dtype=torch.float32):
    """Returns poses, about 15 mm off, and labels of n hands about 1 m from the camera, (N, J, 3) each, mm."""
    draw = np.random.default_rng(seed).normal
    centres = np.array([0, 0, 1000]) + draw(scale=80, size=(n, 1, 3))
    labels = centres + draw(scale=40, size=(n, skeleton.n_joints, 3))
    poses = labels + draw(scale=8, size=labels.shape) + 5
    return torch.tensor(poses, dtype=dtype), torch.tensor(labels, dtype=dtype)


def pose_dataset(skeleton: Skeleton, n: int, subsets=("DEFAULT",), seed: int = 0) -> PoseDataset:
    """Returns a dataset of n hands with read-only arrays, like those that trials share.

    Each subset has its own error of a few millimetres for each joint, and noise.
    """
    _, labels = hands(skeleton, n, seed)
    labels = labels.numpy()
    noise = np.random.default_rng([seed, n]).normal
    poses = {}
    for number, subset in enumerate(subsets):
        bias = np.random.default_rng(number).normal(scale=6, size=labels.shape[1:])
        poses[subset] = (labels + bias + noise(scale=6, size=labels.shape)).astype(np.float32)
    for array in (labels, *poses.values()):
        array.flags.writeable = False
    return PoseDataset("hands", labels, poses, skeleton, "fingerprint")


@contextmanager
def no_waiting_for_the_gpu() -> Iterator[None]:
    """Makes what waits for the GPU in the block an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype feature")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def global_random_states():
    """Returns the states of all global generators, for comparison."""
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


def members(module: ModuleType, base: type) -> list[type]:
    """Returns the concrete classes of a family that are defined in a module, or in the modules of a package."""
    submodules = pkgutil.iter_modules(getattr(module, "__path__", []), f"{module.__name__}.")
    return [
        value
        for home in [module, *(importlib.import_module(submodule.name) for submodule in submodules)]
        for value in vars(home).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == home.__name__
        and not inspect.isabstract(value)
    ]


def cases(module: ModuleType, base: type, arguments: dict[type, list[dict]]):
    """Returns (class, arguments) of all members; those without an entry in `arguments` get their defaults."""
    return [(member, kwargs) for member in members(module, base) for kwargs in arguments.get(member, [{}])]


def on_skeletons(cases):
    """Returns (case, skeleton): the first case of each class on every skeleton, the others on one each, in turn."""
    turns = itertools.cycle(SKELETONS)
    seen = set()
    pairs = []
    for case in cases:
        is_first = case[0] not in seen
        seen.add(case[0])
        pairs += [(case, skeleton) for skeleton in (SKELETONS if is_first else [next(turns)])]
    return pairs


def case_id(case) -> str:
    member, kwargs = case
    return f"{member.__name__}({', '.join(f'{name}={value!r}' for name, value in kwargs.items())})"


def pair_id(pair) -> str:
    case, skeleton = pair
    return f"{case_id(case)}-{skeleton.name}"


def assert_is_encoded_by_its_arguments(member: type, kwargs: dict) -> None:
    """Asserts that an instance is a frozen dataclass that stores its constructor arguments."""
    instance = member(**kwargs)
    parameters = inspect.signature(member).parameters
    assert dataclasses.is_dataclass(member)
    assert [field.name for field in dataclasses.fields(member)] == list(parameters)
    for name, parameter in parameters.items():
        held, given = getattr(instance, name), kwargs.get(name, parameter.default)
        # A sequence may be kept as a tuple, so that the instance can be hashed.
        assert held == (tuple(given) if isinstance(given, list) else given)
    for name in parameters:
        try:
            setattr(instance, name, None)
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"{name} can be changed")
    assert instance == member(**kwargs)
    assert hash(instance) == hash(member(**kwargs))


def same_bits(first, second) -> bool:
    """Returns whether two states are equal: mappings, sequences, tensors and plain values, NaN equal to itself."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(), second.nan_to_num())
    if isinstance(first, dict):
        return list(first) == list(second) and all(same_bits(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return (
            type(first) is type(second)
            and len(first) == len(second)
            and all(same_bits(*pair) for pair in zip(first, second, strict=True))
        )
    return first == second or (first != first and second != second)
