"""Errors of the machine, not of the computation: it is out of memory, or its GPU failed."""

import re

import torch

# torch has an error class only for GPU memory that its own allocator lacks, and GPU libraries have none.
_NO_MEMORY = re.compile(r"can't allocate memory|(CUDA|HIP)( driver)? error: out of memory|[A-Z]_STATUS_ALLOC_FAILED")
_GPU = re.compile(r"(CUDA|HIP)( driver| unknown)? error|\b(CU|HIP|ROC)[A-Z]+_STATUS_")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that the machine or its GPU is out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY.search(str(error)) is not None


def is_lost(device: torch.device) -> bool:
    """Returns whether this process cannot use its GPU any more, which some errors cause."""
    if device.type == "cpu":
        return False
    try:
        torch.get_device_module(device).synchronize(device)
    except RuntimeError:
        return True
    return False


def is_machine_error(error: BaseException) -> bool:
    """Returns whether the machine caused an error, so that the same computation may succeed elsewhere or later."""
    return is_out_of_memory(error) or is_gpu_error(error)


def is_gpu_error(error: BaseException) -> bool:
    """Returns whether a GPU failed; a wrong computation, such as a row that does not exist, may cause that too."""
    return not is_out_of_memory(error) and (
        isinstance(error, torch.AcceleratorError)
        or (
            isinstance(error, RuntimeError)
            and not isinstance(error, torch.linalg.LinAlgError)  # type: ignore[attr-defined] # the numbers' fault
            and _GPU.search(str(error)) is not None
        )
    )
