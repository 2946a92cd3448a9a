"""Large datasets, some thousand samples at a time, and a bar that shows how far one is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CHUNK = 16_384
"""Samples; keeps the float64 copies of a large dataset small."""

_A_MOMENT_S = 1.0


def chunks(n_samples: int, size: int = CHUNK) -> Iterator[slice]:
    """Yields slices of `size` samples, together all of `n_samples` in order; the last one may be shorter."""
    for start in range(0, n_samples, size):
        yield slice(start, min(start + size, n_samples))


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a bar for what takes more than a moment, on standard error and only where that is a terminal.

    Args:
        doing: What is done.
        total: How many steps there are; None where nobody knows.

    Yields:
        A function that takes how many more steps are done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(doing, total=total)
    began = time.monotonic()

    def advance(n_steps: int) -> None:
        bar.advance(task, n_steps)
        if bar.console.is_terminal and time.monotonic() - began > _A_MOMENT_S:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:  # one that is not shown would end with an empty line
            bar.stop()
