"""Everything of a process that a training depends on: set before each trial, saved with each checkpoint."""

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
    """Gives the block a process that does not depend on what ran in it before, and puts it back afterwards.

    Args:
        threads: CPU threads of torch. Sums over threads are taken in another order, so it can change a number.
        deterministic: Use torch's deterministic algorithms only.
        matmul_precision: 'highest', 'high' or 'medium', see `torch.set_float32_matmul_precision`. With 'highest'
            convolutions do without TF32 too, which torch allows them by default.
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
    # cuBLAS reads it when it starts; without it deterministic mode refuses matrix products on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(deterministic)
        # Filling new memory guards against reading what nobody wrote; it costs time and changes no number.
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
    """Seeds the generators that torch, numpy and Python use where none is passed: initialisation and dropout."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what a user's class may draw from
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the state of those generators, as values that `torch.load(..., weights_only=True)` reads.

    Of torch's generators for GPUs it is that of `device` alone: a training goes on with the same draws on a GPU of
    another index.
    """
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).copy()), *rest),
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device),
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Puts the generators where `random_state` found them, that of a GPU on `device`."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and state["device"] is not None:
        torch.get_device_module(device).set_rng_state(state["device"], device)
