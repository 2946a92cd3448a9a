"""A machine with two GPUs that do not exist: torch's calls are recorded, and tensors stay on the CPU."""

from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class FakeGpus:
    """Replaces `torch.cuda`.

    Attributes:
        calls: The calls that change a GPU, in order: their names and arguments.
        current: The index of the current GPU.
        states: The states of the GPUs' generators; any values.
        is_lost: Whether the GPUs do not answer any more.
    """

    def __init__(self):
        self.calls = []
        self.current = 0
        self.states = [torch.tensor([10]), torch.tensor([11])]
        self.is_lost = False

    def current_device(self):
        return self.current

    def set_device(self, device):
        self.current = device if isinstance(device, int) else device.index
        self.calls.append(("set_device", self.current))

    def empty_cache(self):
        self.calls.append(("empty_cache", self.current))

    def reset_peak_memory_stats(self, device):
        self.calls.append(("reset_peak_memory_stats", device.index))

    def max_memory_reserved(self, device):
        return 3 * 2**30

    def memory_reserved(self, device):
        return 2 * 2**30

    def mem_get_info(self, device):
        return 4 * 2**30, 16 * 2**30

    def synchronize(self, device):
        if self.is_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def get_rng_state(self, device):
        return self.states[device.index]

    def set_rng_state(self, state, device):
        self.states[device.index] = state

    def get_rng_state_all(self):
        return list(self.states)

    def set_rng_state_all(self, states):
        self.states = list(states)

    def get_device_properties(self, device):
        return SimpleNamespace(name="A GPU", uuid=f"number-{device.index}")


class GeneratorOnTheCpu(torch.Generator):
    """A generator on the CPU instead of on a GPU."""

    def __new__(cls, device=None):
        return super().__new__(cls)


class OnTheCpu(TorchFunctionMode):
    """Makes tensors on the CPU instead of on a GPU."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        if function is torch.Tensor.pin_memory:
            return arguments[0]
        return function(*map(_here, arguments), **{name: _here(value) for name, value in (named or {}).items()})


def _here(value):
    return CPU if isinstance(value, torch.device) and value.type == "cuda" else value
