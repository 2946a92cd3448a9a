"""The process state that a training depends on: set before each trial, saved with each checkpoint."""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_memory: Any = torch.utils.deterministic  # its one attribute has no declared type


@contextmanager
def reproducible_process(*, threads: int, deterministic: bool, matmul_precision: str) -> Iterator[None]:
    """Makes the block independent of what ran in the process before, and restores the process state afterwards.

    Args:
        threads: CPU threads of torch. The number affects the order of summation and thus can change results.
        deterministic: Use torch's deterministic algorithms only.
        matmul_precision: 'highest', 'high' or 'medium', see `torch.set_float32_matmul_precision`. 'highest' also turns
            off TF32 in convolutions, which torch allows by default.
    """
    before = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        _memory.fill_uninitialized_memory,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        random_state(torch.device("cpu")),
    )
    # cuBLAS reads this when it starts; without it, deterministic mode refuses matrix products on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(deterministic)
        # Filling new memory only guards against reading uninitialised values; it costs time and changes no results.
        _memory.fill_uninitialized_memory = False
        torch.set_float32_matmul_precision(matmul_precision)
        torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"
        yield
    finally:
        n_threads, dtype, algorithms, warn_only, fill, precision, tf32, state = before
        torch.set_num_threads(n_threads)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        _memory.fill_uninitialized_memory = fill
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32
        set_random_state(state, torch.device("cpu"))


def seed_process(seed: int) -> None:
    """Seeds the global generators of torch, numpy and Python, used for initialisation and dropout."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what a user's class may draw from
    torch.manual_seed(seed)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Restores the state of the global generators after the block."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the state of the global generators, as values that `torch.load(..., weights_only=True)` reads.

    Of torch's GPU generators it includes only that of `device`, so a training continues with the same draws on a GPU
    with another index.
    """
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).copy()), *rest),
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device),
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restores the result of `random_state`; the GPU generator's state is restored on `device`."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and state["device"] is not None:
        torch.get_device_module(device).set_rng_state(state["device"], device)
