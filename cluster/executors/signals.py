"""Ctrl-C and SIGTERM, which a scheduler sends before it ends a job, as flags that a run can check."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Preempted(BaseException):
    """SIGTERM ended the training; unfinished trials have a checkpoint."""


@dataclass
class Signals:
    """The signals that this process received.

    The flags are plain attributes and not `threading.Event`s: setting an event takes a lock, for which a signal that
    interrupts the handler of another one would wait forever. Slurm and a batch file may both send SIGTERM at once.

    Attributes:
        interrupted: Ctrl-C: end now.
        preempted: SIGTERM: save and end soon; Slurm and Kubernetes send it some time before they end the job.
        grace_s: How long trials may take to save after SIGTERM, seconds.
    """

    interrupted: bool = False
    preempted: bool = False
    grace_s: float = 20.0

    def pause(self, seconds: float) -> None:
        """Waits.

        Raises:
            Preempted: If SIGTERM was noted.
        """
        time.sleep(seconds)
        if self.preempted:
            raise Preempted

    @contextmanager
    def sigterm_noted(self) -> Iterator[None]:
        """Notes SIGTERM for the block instead of ending; only in the main thread."""

        def note(number: int, frame: FrameType | None) -> None:
            self.preempted = True

        with _handler(signal.SIGTERM, note):
            yield

    @contextmanager
    def first_sigint_noted(self) -> Iterator[None]:
        """Notes the first Ctrl-C for the block, but not the second; only in the main thread."""
        before = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(number, before)

        with _handler(signal.SIGINT, note):
            yield


@contextmanager
def _handler(number: signal.Signals, handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)
