"""SIGTERM, by which schedulers and `kill` end a process, as an end that cleans up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the block as Ctrl-C does, so that nothing half-written stays behind.

    The process then ends with the status 143, as shells tell of one that the signal ended. Outside the main thread,
    which signals do not come to, it does nothing.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
