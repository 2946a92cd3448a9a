"""Clean termination on SIGTERM, the signal of schedulers and `kill`."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SAME_S = 5.0  # signals within this time count as one


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the block with an exception, as Ctrl-C does, so that no partial files are left.

    The process then exits with status 143, which shells report for a process ended by SIGTERM. A second SIGTERM within
    seconds, as some schedulers send it, does not interrupt the cleaning up. Outside the main thread the function does
    nothing, because other threads receive no signals.
    """
    last = -math.inf

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _SAME_S:
            last = time.monotonic()
            raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
