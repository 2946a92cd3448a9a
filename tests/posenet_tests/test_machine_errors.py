"""Which errors are the machine's, and whether its GPU still answers."""

import pytest
import torch

from posenet.machine_errors import is_gpu_error, is_lost, is_machine_error, is_out_of_memory

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(("device", "lost", "expected"), [(GPU, False, False), (GPU, True, True), (CPU, True, False)])
def test_a_gpu_that_does_not_answer_is_lost(gpus, device, lost, expected):
    gpus.is_lost = lost
    assert is_lost(device) is expected


@pytest.mark.parametrize(
    ("error", "of_memory", "of_gpu"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA driver error: out of memory"), True, False),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate`"), True, False),
        (MemoryError(), True, False),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), False, True),
        (RuntimeError("HIP error: unspecified launch failure"), False, True),
        (torch.AcceleratorError("the device is lost"), False, True),
        (RuntimeError("CUDA driver error: unspecified launch failure"), False, True),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), False, True),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, in `cusolverDnCreate`"), False, True),
        (torch.linalg.LinAlgError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED"), False, False),
        (RuntimeError("this model is broken"), False, False),
        (ValueError("CUDA error"), False, False),
    ],
)
def test_errors_of_memory_and_of_gpus_are_told_apart(error, of_memory, of_gpu):
    assert (is_out_of_memory(error), is_gpu_error(error)) == (of_memory, of_gpu)
    assert is_machine_error(error) is (of_memory or of_gpu)
