"""Ends a run soon after its Ray was lost, with an error that says so.

Ray itself says nothing for a minute, and then ends the process with a page of C++.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from data_pipeline.user_error import UserError
from data_pipeline.words import say

_INTERVAL_S = 1.0
_ANSWER_S = 5.0
_END_S = 15.0  # for the main thread, which may be waiting inside Ray

AGAIN = "Run the script again to continue: finished trials are kept, the others continue from their last checkpoint"


class HeadLostError(UserError):
    """The head of Ray, or the Ray of this machine, was lost during the run."""


def answers(address: str) -> None:
    """Raises an OSError if nothing listens at `host:port`."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


@contextmanager
def head_watched(look: Callable[[], str | None], patience_s: float, close: Callable[[], None]) -> Iterator[None]:
    """Watches Ray during the block, which a `KeyboardInterrupt` ends if Ray is lost.

    If the block and `close` do not end within seconds after that, the process ends. A block outside the main thread is
    not interrupted.

    Args:
        look: Returns what is wrong with Ray; None if nothing is. It is called every second.
        patience_s: How long something may be wrong: half as long as Ray itself waits.
        close: Ends Ray, or the connection to it, after the block.

    Raises:
        HeadLostError: If it is lost.
    """
    watch = _Watch(look, patience_s)
    thread = threading.Thread(target=watch.work, name="head watch", daemon=True)
    thread.start()
    try:
        try:
            yield
        finally:
            if watch.lost is None:
                watch.ended.set()
            close()  # without its head, Ray may wait here as well
    except BaseException as error:
        if watch.lost is not None:
            raise HeadLostError(watch.lost) from error
        raise
    finally:
        watch.ended.set()
    if watch.lost is not None:
        raise HeadLostError(watch.lost)


class _Watch:
    def __init__(self, look: Callable[[], str | None], patience_s: float) -> None:
        self.look, self.patience_s = look, patience_s
        # After twice its patience, Ray itself ends the process.
        self.end_s = min(_END_S, patience_s / 2) if patience_s else _END_S
        self.lost: str | None = None
        self.ended = threading.Event()
        self.interrupts = threading.current_thread() is threading.main_thread()

    def work(self) -> None:
        """Looks at intervals until the block ends or Ray is lost."""
        wrong_since: float | None = None
        while not self.ended.wait(_INTERVAL_S):
            began = time.monotonic()
            wrong = self.look()
            if wrong is None:
                wrong_since = None
                continue
            if wrong_since is None:
                wrong_since = began
                if self.patience_s:
                    text = f"warning: {wrong}: waiting for up to {self.patience_s:.0f} s"
                    say(text, sys.stderr)
            if time.monotonic() - wrong_since >= self.patience_s:
                self._lose(wrong)
                return

    def _lose(self, wrong: str) -> None:
        if self.ended.is_set():  # what is wrong is that Ray has ended
            return
        self.lost = f"{wrong}. {AGAIN}"
        if self.interrupts:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self.ended.wait(self.end_s):
            say(f"\nerror: {self.lost}", sys.stderr)
            os._exit(1)  # the main thread waits in Ray's own code, which no signal interrupts
