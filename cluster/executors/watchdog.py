"""Ends a worker whose trial hangs, and tells those who come after it where it hung."""

import faulthandler
import os
import tempfile
from contextlib import ExitStack

from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage
from cluster.storage.folders import TrialFolder


class Watchdog:
    """Ends this process when its trial does not report for too long; a context around the trial.

    It is Python's `faulthandler`, which needs no lock of the interpreter: it also ends a process that hangs in native
    code. It leaves a traceback in a file, for `how_it_hung`.

    Args:
        timeout_s: How long a trial may take between two calls of `watch`; None for as long as it likes.
        folder: The trial's.
        run_id: The run of the experiment in which it is trained.
    """

    def __init__(self, timeout_s: float | None, folder: TrialFolder, run_id: str) -> None:
        self.timeout_s = timeout_s
        self.folder, self.run_id = folder, run_id
        self.stack = ExitStack()
        self.first_line = f"{run_id} the trial did not report for {timeout_s} s (trial_timeout_s), and was here:\n"

    def __enter__(self) -> None:
        if self.timeout_s is not None:
            self.place, self.name = _place(self.folder, self.run_id)
            self.place.write(self.name, self.first_line.encode())
            self.file = self.stack.enter_context(self.place.opened_file(self.name, os.O_WRONLY | os.O_APPEND))
            self.watch()

    def watch(self) -> None:
        """Begins to count the time anew."""
        if self.timeout_s is not None:
            faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=self.file)

    def rest(self) -> None:
        """Stops counting."""
        if self.timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()

    def __exit__(self, *exception: object) -> None:
        if self.timeout_s is not None:
            self.rest()
            self.stack.close()
            self.place.remove(self.name)


def how_it_hung(folder: TrialFolder, run_id: str) -> str | None:
    """Returns where a trial hung in this run of the experiment, for people; None if it did not."""
    place, name = _place(folder, run_id)
    content = place.read(name)
    if content is None:
        return None
    place.remove(name)
    text = content.decode(errors="replace")
    first_line, _, trace = text.partition("\n")
    # Without a traceback the worker was lost for another reason; another run's file says nothing of this one.
    if not trace or not first_line.startswith(run_id):
        return None
    return text.removeprefix(f"{run_id} ")


def _place(folder: TrialFolder, run_id: str) -> tuple[Storage, str]:
    """Returns where the traceback goes: an object store has no file that could be written when all else hangs."""
    if folder.local is not None:
        return folder.experiment / FileNames.in_trial(folder.trial_id), FileNames.HANG
    return Storage(tempfile.gettempdir()), f"posetune-{run_id}-{folder.trial_id.replace('/', '-')}.txt"
