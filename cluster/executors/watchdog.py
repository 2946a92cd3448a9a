"""Ends a worker whose trial hangs, and records where it hung for the next worker."""

import faulthandler
import os
import tempfile
from contextlib import ExitStack

from cluster.storage.file_names import FileNames
from cluster.storage.filesystem import Storage
from cluster.storage.folders import TrialFolder


class Watchdog:
    """Ends this process if its trial does not report for too long; a context around the trial.

    It uses Python's `faulthandler`, which needs no lock of the interpreter, so it also ends a process that hangs in
    native code. It leaves a traceback in a file, which `read_hang` reads.

    Args:
        timeout_s: The longest time between two calls of `reset`; None for no limit.
        folder: The trial's folder.
        run_id: The run of the experiment that trains it.
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
            self.reset()

    def reset(self) -> None:
        """Restarts the time."""
        if self.timeout_s is not None:
            faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=self.file)

    def pause(self) -> None:
        """Stops the time until the next `reset`."""
        if self.timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()

    def __exit__(self, *exception: object) -> None:
        if self.timeout_s is not None:
            self.pause()
            self.stack.close()
            self.place.remove(self.name)


def read_hang(folder: TrialFolder, run_id: str) -> str | None:
    """Returns a text that says where a trial hung in this run of the experiment; None if it did not hang."""
    place, name = _place(folder, run_id)
    content = place.read(name)
    if content is None:
        return None
    place.remove(name)
    text = content.decode(errors="replace")
    first_line, _, trace = text.partition("\n")
    # Without a traceback the worker was lost for another reason; the file of another run does not count.
    if not trace or not first_line.startswith(run_id):
        return None
    return text.removeprefix(f"{run_id} ")


def _place(folder: TrialFolder, run_id: str) -> tuple[Storage, str]:
    """Returns where the traceback is: a local file, since a hanging process cannot write to an object store."""
    if folder.local is not None:
        return folder.experiment / FileNames.in_trial(folder.trial_id), FileNames.HANG
    return Storage(tempfile.gettempdir()), f"posetune-{run_id}-{folder.trial_id.replace('/', '-')}.txt"
