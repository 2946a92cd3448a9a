"""Clean termination on SIGTERM, the signal of schedulers and `kill`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the block with an exception, as Ctrl-C does, so that no partial files are left.

    The process then exits with status 143, which shells report for a process ended by SIGTERM. A second SIGTERM, as
    some schedulers send it, does not interrupt the cleaning up. Outside the main thread the function does nothing,
    because other threads receive no signals.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
