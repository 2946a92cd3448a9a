"""Ctrl-C, and the notice that a scheduler gives before it ends a job, as something that a run can look at."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


class Preempted(BaseException):
    """SIGTERM ended the training; what was being trained has a checkpoint."""


@dataclass(frozen=True)
class Signals:
    """What was asked of this process from outside.

    Attributes:
        interrupted: Ctrl-C: end now.
        preempted: SIGTERM: keep what there is and end soon; Slurm and Kubernetes send it some time before the end.
        grace_s: How long after it trials may take to save.
    """

    interrupted: threading.Event = field(default_factory=threading.Event)
    preempted: threading.Event = field(default_factory=threading.Event)
    grace_s: float = 20.0

    @contextmanager
    def sigterm_noted(self) -> Iterator[None]:
        """Turns SIGTERM into an event for the block; outside the main thread does nothing."""
        with _turned(signal.SIGTERM, self.preempted, once=False):
            yield

    @contextmanager
    def first_sigint_noted(self) -> Iterator[None]:
        """Turns the first Ctrl-C into an event for the block and lets the second one through; as above."""
        with _turned(signal.SIGINT, self.interrupted, once=True):
            yield


@contextmanager
def _turned(number: signal.Signals, event: threading.Event, *, once: bool) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        if once:
            signal.signal(number, before)

    signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)
