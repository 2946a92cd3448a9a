import gc
import os
import re
import signal

import pytest
import torch
from hypothesis import HealthCheck, settings

from cluster import training
from cluster.executors import inline
from cluster.experiment import Experiment
from tests.fake_gpu import FakeGpus, GeneratorOnTheCpu, OnTheCpu
from tests.support import SKELETONS

# A background process of a shell ignores Ctrl-C, and so would all processes that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Small tensors gain nothing from a second thread, and lose much if another process uses the core.
torch.set_num_threads(1)

# By default, Ray's workers have a lower priority than all other processes, including those that run other tests. Beside
# three busy processes, a sweep took more than four minutes; with this setting, it took one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("RAY_worker_niceness", "0")

# Examples have no deadline, so that no test fails on a busy machine. `make test` tries the same few examples each time;
# `make test-all` tries new ones and prints how to reproduce a failure.
settings.register_profile(
    "quick", max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "thorough", settings.get_profile("quick"), max_examples=100, derandomize=False, print_blob=True
)
settings.load_profile("quick")


# pytest-xdist gives its workers 80 columns; without them, what is printed to a pipe has its usual width.
os.environ.pop("COLUMNS", None)


# The tests themselves are millions of objects that live until the end: looking through them again and again for garbage
# costs each process several seconds.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    # Addresses in the names of tests would differ between the processes that run them.
    for item in items:
        item._nodeid = re.sub(r" at 0x[0-9a-f]+", "", item.nodeid)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU"))


@pytest.fixture(params=SKELETONS, ids=lambda skeleton: skeleton.name)
def skeleton(request):
    return request.param


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that do not exist, see `fake_gpu.py`."""
    gpus = FakeGpus()
    monkeypatch.setattr(torch, "get_device_module", lambda device: gpus)
    monkeypatch.setattr(torch, "Generator", GeneratorOnTheCpu)
    with OnTheCpu():
        yield gpus


@pytest.fixture(scope="session", autouse=True)
def without_reports():
    """Runs in this process write no report page, which takes longer than a small training; see `with_reports`."""
    with pytest.MonkeyPatch.context() as patch:
        write_report = Experiment._write_report
        patch.setattr(Experiment, "_write_report", lambda self, table: None)
        # Nor do they import its libraries in a thread, which might change the filters of warnings during the next test.
        patch.setattr(training, "import_ahead", lambda *modules: None)
        yield write_report


@pytest.fixture(scope="session", autouse=True)
def failed_trials_are_rows():
    """Inline runs in this process go on after a failed trial, as those with Ray do; see `with_errors`."""
    with pytest.MonkeyPatch.context() as patch:
        run_trial = inline.run_trial
        patch.setattr(inline, "run_trial", lambda *args, raise_errors, **how: run_trial(*args, **how))
        yield run_trial


@pytest.fixture
def with_errors(failed_trials_are_rows, monkeypatch):
    """Makes inline runs raise the error of a trial."""
    monkeypatch.setattr(inline, "run_trial", failed_trials_are_rows)


@pytest.fixture
def with_reports(without_reports, monkeypatch):
    """Makes runs write their report page."""
    monkeypatch.setattr(Experiment, "_write_report", without_reports)
