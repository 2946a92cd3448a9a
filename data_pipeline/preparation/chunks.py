"""Large datasets, some thousand samples at a time, and a bar that shows how far one is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Timer

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

CHUNK = 16_384
"""Samples; keeps the float64 copies of a large dataset small."""

_A_MOMENT_S = 0.5


def chunks(n_samples: int, size: int = CHUNK) -> Iterator[slice]:
    """Yields slices of `size` samples, together all of `n_samples` in order; the last one may be shorter."""
    for start in range(0, n_samples, size):
        yield slice(start, min(start + size, n_samples))


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a bar for what takes more than a moment, on standard error and only where that is a terminal.

    Args:
        doing: What is done.
        total: How many steps there are; None where nobody knows, or where it is done in one go.

    Yields:
        A function that takes how many more steps are done.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Count(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(doing, total=total)
    # A clock of its own shows it, since what is done in one go never comes by to do so.
    moment = Timer(_A_MOMENT_S, bar.start)
    if bar.console.is_terminal:
        moment.start()
    try:
        yield partial(bar.advance, task)
    finally:
        moment.cancel()
        if moment.is_alive():
            moment.join()
        if bar.live.is_started:  # one that is not shown would end with an empty line
            bar.stop()


class _Count(MofNCompleteColumn):
    """How many steps are done, once it is known that there are any."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None and not task.completed else super().render(task)
