"""The process state that a training depends on: set before each trial, saved with each checkpoint."""

import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from posenet.allocator import keep_freed_memory

_memory: Any = torch.utils.deterministic  # its one attribute has no declared type

T = TypeVar("T")

# Without it, deterministic mode refuses matrix products on a GPU. The first one of a process decides, which may be one
# of the user's script.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

_COMPILER_IS_DETERMINISTIC = "TORCHINDUCTOR_DETERMINISTIC"
"""The variable that torch.compile reads when it is imported."""

# What torch computes with float32 numbers, each with its own precision.
_backends: Any = torch.backends  # not all of its attributes have declared types
_MATMULS = (_backends.cuda.matmul, _backends.mkldnn.matmul)
_GPU_LAYERS = (_backends.cudnn.conv, _backends.cudnn.rnn)
_CPU_LAYERS = (_backends.mkldnn.conv, _backends.mkldnn.rnn)


@contextmanager
def reproducible_process(*, threads: int, deterministic: bool, matmul_precision: str) -> Iterator[None]:
    """Makes the block independent of what ran in the process before, and restores the process state afterwards.

    Only the limits of `keep_freed_memory`, which cannot be read, remain.

    Args:
        threads: CPU threads of torch. The number affects the order of summation and thus can change results.
        deterministic: Use torch's deterministic algorithms only.
        matmul_precision: 'highest', 'high' or 'medium', see `torch.set_float32_matmul_precision`. 'highest' also turns
            off TF32 in convolutions, which torch allows by default.
    """
    keep_freed_memory()
    before = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.backends.cudnn.benchmark,
        torch.get_deterministic_debug_mode(),
        os.environ.get(_COMPILER_IS_DETERMINISTIC),
        _memory.fill_uninitialized_memory,
        _Precision.now(),
        random_state(torch.device("cpu")),
    )
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)  # the CPU; "cpu" would delay each call of torch
        torch.backends.cudnn.benchmark = False  # it would choose among algorithms by their speed
        _set_deterministic(2 if deterministic else 0)
        # Filling new memory only guards against reading uninitialised values; it costs time and changes no results.
        _memory.fill_uninitialized_memory = False
        _Precision.set(matmul_precision)
        # A script may be in such a mode, in which tensors have no gradients or less precision.
        modes = [torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda")]
        with torch.inference_mode(False), torch.enable_grad(), modes[0], modes[1]:
            yield
    finally:
        n_threads, dtype, device, benchmark, deterministic_mode, of_compiler, fill, precision, state = before
        torch.set_num_threads(n_threads)
        torch.set_default_dtype(dtype)
        torch.set_default_device(None if device.type == "cpu" else device)
        torch.backends.cudnn.benchmark = benchmark
        _set_deterministic(deterministic_mode)
        if of_compiler is None:
            del os.environ[_COMPILER_IS_DETERMINISTIC]
        else:
            os.environ[_COMPILER_IS_DETERMINISTIC] = of_compiler
        _memory.fill_uninitialized_memory = fill
        precision.restore()
        set_random_state(state, torch.device("cpu"))


def _set_deterministic(mode: int) -> None:
    """Sets a mode of `torch.set_deterministic_debug_mode`, also for models that use torch.compile.

    `torch.use_deterministic_algorithms` would import torch.compile, which takes as long as the import of torch.
    """
    torch.set_deterministic_debug_mode(mode)
    os.environ[_COMPILER_IS_DETERMINISTIC] = "1" if mode else "0"
    if "torch._inductor.config" in sys.modules:
        sys.modules["torch._inductor.config"].deterministic = bool(mode)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Precision:
    """The precision of float32 computations. Torch has an old and a new way to set it, and a script may use both.

    Attributes:
        matmul: `torch.get_float32_matmul_precision()`; None if it cannot be read, since the new way was used.
        layers: `torch.backends.cudnn.allow_tf32`, likewise.
        of_each: The `fp32_precision` of each kind of computation, which is the new way.
    """

    matmul: str | None
    layers: bool | None
    of_each: tuple[str, ...]

    @classmethod
    def now(cls) -> "_Precision":
        return cls(
            _if_readable(torch.get_float32_matmul_precision),
            _if_readable(lambda: torch.backends.cudnn.allow_tf32),
            tuple(kind.fp32_precision for kind in (*_MATMULS, *_GPU_LAYERS, *_CPU_LAYERS)),
        )

    def restore(self) -> None:
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.layers is not None:
            torch.backends.cudnn.allow_tf32 = self.layers
        for kind, precision in zip((*_MATMULS, *_GPU_LAYERS, *_CPU_LAYERS), self.of_each, strict=True):
            kind.fp32_precision = precision

    @staticmethod
    def set(matmul_precision: str) -> None:
        tf32 = matmul_precision != "highest"
        torch.set_float32_matmul_precision(matmul_precision)
        torch.backends.cudnn.allow_tf32 = tf32
        # The old way does not change what follows the general `torch.backends.fp32_precision`.
        for kind in _GPU_LAYERS:
            kind.fp32_precision = "tf32" if tf32 else "ieee"
        for kind in _CPU_LAYERS:
            kind.fp32_precision = "ieee"


def _if_readable(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except RuntimeError:
        return None


@contextmanager
def current_gpu(device: torch.device) -> Iterator[None]:
    """Makes a GPU the current one in the block, else some calls would open a context on the first GPU.

    Restores the current GPU and the generators of all GPUs afterwards. Does nothing for the CPU.
    """
    if device.type == "cpu":
        yield
        return
    gpu = torch.get_device_module(device)
    index, states = gpu.current_device(), gpu.get_rng_state_all()
    try:
        gpu.set_device(device)
        yield
    finally:
        gpu.set_rng_state_all(states)  # they are in the memory of this process, so this works even without the GPU
        with suppress(RuntimeError):  # after some errors a GPU does not answer
            gpu.set_device(index)


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
