"""What a program and all processes that it starts cost: time, processor time and memory. For Linux."""

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL_S = 0.1
_MEMORY_INTERVAL_S = 0.5
"""Adding up the memory of a process takes a millisecond, so it is done less often: all looks take 5 % of a core."""
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Cost:
    """What a program cost, with all processes that it started.

    Attributes:
        wall_s: Time from its start to its end.
        cpu_s: Processor time, user and system. It is the larger of two lower bounds: what the kernel adds up of
            processes that their parents wait for, and the sum of what each process had used when it was last seen. The
            first is exact for all programs but Ray, whose raylet does not wait for its workers.
        memory_bytes: The largest sum of proportional set sizes, sampled every half second: memory that processes share
            counts once.
    """

    wall_s: float
    cpu_s: float
    memory_bytes: int


def run_measured(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Cost:
    """Runs a program, waits for it and for all processes that it leaves behind, and returns what they cost.

    This process must have no other children.

    Args:
        command: The program and its arguments.
        log: The file for its output.
        environment: Variables that it gets in addition to those of this process.

    Raises:
        RuntimeError: If the program fails, or if a process that it left behind does not end.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot become the parent of orphans")
    reaped_before_s = _reaped_cpu_s()
    seen = _Seen()
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    while process.poll() is None:
        seen.look()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_INTERVAL_S)
    wall_s = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{log.read_text()[-5000:]}")
    _wait_for_orphans(seen)
    return Cost(wall_s, max(_reaped_cpu_s() - reaped_before_s, sum(seen.cpu_s.values())), seen.memory_bytes)


@dataclass
class _Seen:
    """What was seen of the descendants of this process so far."""

    cpu_s: dict[psutil.Process, float] = field(default_factory=dict)
    memory_bytes: int = 0
    memory_due: float = 0.0

    def look(self) -> None:
        is_memory_due = time.monotonic() >= self.memory_due
        memory_bytes = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                times = process.cpu_times()
                self.cpu_s[process] = times.user + times.system
                if is_memory_due:
                    memory_bytes += process.memory_full_info().pss
        if is_memory_due:
            self.memory_bytes = max(self.memory_bytes, memory_bytes)
            self.memory_due = time.monotonic() + _MEMORY_INTERVAL_S


def _reaped_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _wait_for_orphans(seen: _Seen) -> None:
    """Waits for the processes that a program left behind, such as Ray's daemons, which end soon after it."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # there is none left
            return
        if not ended:
            if time.monotonic() > give_up:
                raise RuntimeError(f"processes did not end: {psutil.Process().children(recursive=True)}")
            seen.look()
            time.sleep(_INTERVAL_S)
