"""Ctrl-C and SIGTERM, which a scheduler sends before it ends a job, as events that a run can check."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


class Preempted(BaseException):
    """SIGTERM ended the training; unfinished trials have a checkpoint."""


@dataclass(frozen=True)
class Signals:
    """The signals that this process received.

    Attributes:
        interrupted: Ctrl-C: end now.
        preempted: SIGTERM: save and end soon; Slurm and Kubernetes send it some time before they end the job.
        grace_s: How long trials may take to save after SIGTERM, seconds.
    """

    interrupted: threading.Event = field(default_factory=threading.Event)
    preempted: threading.Event = field(default_factory=threading.Event)
    grace_s: float = 20.0

    @contextmanager
    def sigterm_noted(self) -> Iterator[None]:
        """Turns SIGTERM into an event for the block; only in the main thread."""
        with _signal_as_event(signal.SIGTERM, self.preempted, once=False):
            yield

    @contextmanager
    def first_sigint_noted(self) -> Iterator[None]:
        """Turns the first Ctrl-C into an event for the block, but not the second; only in the main thread."""
        with _signal_as_event(signal.SIGINT, self.interrupted, once=True):
            yield


@contextmanager
def _signal_as_event(number: signal.Signals, event: threading.Event, *, once: bool) -> Iterator[None]:
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
