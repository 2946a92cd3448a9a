"""What tests of GPUs rely on, and what cannot fail on a machine without one."""

import warnings

import torch

from tests.support import ROOT, no_waiting_for_the_gpu


def test_the_warning_with_which_torch_begins_to_watch_a_gpu_is_no_error(monkeypatch):
    modes = []

    def set_mode(mode):
        modes.append(mode)
        if len(modes) == 1:
            text = (
                "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
            )
            warnings.warn(text, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with no_waiting_for_the_gpu():
        assert modes == ["error"]
    assert modes == ["error", "default"]


def test_no_test_watches_a_gpu_in_another_way():
    watching = [path.name for path in (ROOT / "tests").rglob("*.py") if "cuda.set_sync_debug_mode(" in path.read_text()]
    assert set(watching) - {"test_support.py"} == {"support.py"}
