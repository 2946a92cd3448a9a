"""Errors that tell nothing of what was computed: the machine had not the memory, or its GPU failed."""

import re

import torch

# torch has a class for the memory of a GPU alone, and libraries of the GPU have none.
_NO_MEMORY = re.compile(r"can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED")
_GPU = re.compile(r"CUDA error|HIP error|CUBLAS_STATUS_|CUDNN_STATUS_")


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error is for want of memory, of the machine or of its GPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY.search(str(error)) is not None


def is_machine_error(error: BaseException) -> bool:
    """Tells whether an error comes from the machine, so that the same may succeed on another one or later."""
    return (
        is_out_of_memory(error)
        or isinstance(error, torch.AcceleratorError)
        or (isinstance(error, RuntimeError) and _GPU.search(str(error)) is not None)
    )
