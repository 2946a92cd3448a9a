"""Processing large datasets in chunks, with a progress bar."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Timer

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from data_pipeline.words import visible

CHUNK = 16_384
"""Samples per chunk; keeps float64 copies of a large dataset small."""

_DELAY_S = 0.5


def chunks(n_samples: int, size: int = CHUNK) -> Iterator[slice]:
    """Yields slices of `size` samples, together all of `n_samples` in order; the last one may be shorter."""
    for start in range(0, n_samples, size):
        yield slice(start, min(start + size, n_samples))


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error if the block takes longer than `_DELAY_S`, and only on a terminal.

    Args:
        doing: The description of the work.
        total: The number of steps; None if it is unknown or the work is a single step.

    Yields:
        A function that takes the number of additional steps done.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Count(), TimeRemainingColumn())
    # Notebooks set FORCE_COLOR, which for Rich means a terminal; a bar would be written again and again.
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(visible(doing), total=total)
    # A timer shows the bar, because work in a single step never calls `advance`.
    timer = Timer(_DELAY_S, bar.start)
    if bar.console.is_terminal:
        timer.start()
    try:
        yield partial(bar.advance, task)
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()
        if bar.live.is_started:  # a bar that was never shown would print an empty line
            bar.stop()


class _Count(MofNCompleteColumn):
    """The number of steps done; empty while neither steps nor their total are known."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None and not task.completed else super().render(task)
