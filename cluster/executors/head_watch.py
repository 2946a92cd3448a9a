"""Ends a run soon after the head of its Ray was lost, with an error that says so.

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

_INTERVAL_S = 1.0
_ANSWER_S = 5.0
_END_S = 10.0  # for the main thread, which may be waiting inside Ray

AGAIN = "Run the script again to continue: finished trials are kept, the others continue from their last checkpoint"


class HeadLostError(UserError):
    """The head of Ray was lost during the run."""


def answers(address: str) -> None:
    """Raises an OSError if nothing listens at `host:port`."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


@contextmanager
def head_watched(address: str, why: Callable[[float], str], patience_s: float) -> Iterator[None]:
    """Watches the head of Ray during the block, which a `KeyboardInterrupt` ends if the head is lost.

    If the block does not end within seconds after that, the process ends. A block outside the main thread is not
    interrupted.

    Args:
        address: Where it listens, `host:port`.
        why: Returns the text of the error, given for how many seconds the head has not answered.
        patience_s: How long it may not answer.

    Raises:
        HeadLostError: If it is lost.
    """
    watch = _Watch(address, why, patience_s)
    thread = threading.Thread(target=watch.work, name="head watch", daemon=True)
    thread.start()
    try:
        yield
    except BaseException as error:
        if watch.lost is not None:
            raise HeadLostError(watch.lost) from error
        raise
    finally:
        watch.ended.set()
    if watch.lost is not None:
        raise HeadLostError(watch.lost)


class _Watch:
    def __init__(self, address: str, why: Callable[[float], str], patience_s: float) -> None:
        self.address, self.why, self.patience_s = address, why, patience_s
        self.lost: str | None = None
        self.ended = threading.Event()
        self.interrupts = threading.current_thread() is threading.main_thread()

    def work(self) -> None:
        """Looks at intervals until the block ends or the head is lost."""
        silent_since: float | None = None
        while not self.ended.wait(_INTERVAL_S):
            began = time.monotonic()
            try:
                answers(self.address)
                silent_since = None
                continue
            except OSError as error:
                if not self.patience_s and not isinstance(error, ConnectionRefusedError):
                    continue  # a busy machine answers late
                reason = error.strerror or error
            if silent_since is None:
                silent_since = began
                if self.patience_s:
                    text = f"warning: the head of Ray at {self.address} does not answer ({reason}): waiting for it"
                    print(f"{text} for up to {self.patience_s:.0f} s", file=sys.stderr, flush=True)
            if time.monotonic() - silent_since >= self.patience_s:
                self._lose(time.monotonic() - silent_since)
                return

    def _lose(self, silent_s: float) -> None:
        self.lost = f"{self.why(silent_s)}. {AGAIN}"
        if self.interrupts:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self.ended.wait(_END_S):
            print(f"\nerror: {self.lost}", file=sys.stderr, flush=True)
            os._exit(1)  # the main thread waits in Ray's own code, which no signal interrupts
