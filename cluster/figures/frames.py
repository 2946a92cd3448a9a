"""Figures of the errors of frames of a video: by their distance from training frames, and over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.figures.style import (
    BLACK,
    COLUMN_IN,
    CORRECTED,
    UNCORRECTED,
    FigureError,
    Numbers,
    add_legend,
    add_note,
    fitting,
    new_figure,
    paper_style,
)
from data_pipeline.frame_table import Indices
from data_pipeline.words import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_N_BINS = 10
_MAX_PANELS = 6
_POINTS_OF_A_PANEL = 250


@dataclass(frozen=True)
class Recording:
    """The errors of the frames of a sequence.

    Attributes:
        name: Its name, such as 'sequence 3 (subject 2)'.
        index: The number of each frame in the sequence, ascending, (N,).
        before_mm: The mean distance of each frame before the correction, (N,).
        after_mm: The same after the correction, (N,).
    """

    name: str
    index: Indices
    before_mm: Numbers
    after_mm: Numbers


@paper_style()
def improvement_by_distance(
    before_mm: Numbers, after_mm: Numbers, distance: Numbers, *, of: str = "one repetition", width_in: float = COLUMN_IN
) -> "Figure":
    """Draws the mean improvement of frames in bins of their distance from the nearest training frame.

    An improvement that falls with the distance shows that a corrector remembers training frames. Whiskers show the
    middle half of a bin's frames; the bars below show how many frames a bin has.

    Args:
        before_mm: The mean distance of each frame's joints before the correction, (N,).
        after_mm: The same after, (N,).
        distance: The distance of each frame from the nearest training frame of its sequence, in frames, (N,); NaN in
            sequences without training frames.
        of: The repetition of the frames, such as 'repetition 0'.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If no frame has a distance.
    """
    is_known = np.isfinite(distance)
    if not is_known.any():
        raise FigureError("no frame is in a sequence with training frames")
    improvement, at = (before_mm - after_mm)[is_known], distance[is_known]  # (n,) each
    step = _round_up((at.max() - at.min() + 1) / _N_BINS)
    bins = (at // step).astype(np.int64)  # (n,)
    shown = np.unique(bins)  # (B,)
    of_bins = [improvement[bins == number] for number in shown]
    mean = np.array([values.mean() for values in of_bins])  # (B,)
    low, high = np.array([np.percentile(values, [25, 75]) for values in of_bins]).T  # (B,) each

    figure = new_figure(width_in, 2.7)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles = step * (shown + 0.5)
    upper.axhline(0, color=BLACK, linewidth=0.8)
    drawn = upper.errorbar(
        *(middles, mean), yerr=(mean - np.minimum(low, mean), np.maximum(high, mean) - mean), color=CORRECTED, fmt="o-"
    )
    upper.set_ylabel("Improvement (mm)")
    lower.bar(middles, [len(values) for values in of_bins], width=0.9 * step, color="#999999")
    lower.set_ylabel("Frames")
    lower.set_xlim(step * shown[0], step * (shown[-1] + 1))
    lower.set_xlabel("Distance from the nearest training frame (frames)")
    add_legend(figure, [(f"bins {step} wide: mean, 25–75 %", drawn)])
    others = int((~is_known).sum())
    are = "is" if others == 1 else "are"
    remarks = [f"{count(others, 'frame')} in sequences without training frames {are} left out."] if others else []
    add_note(figure, [f"{count(len(at), 'frame')} of {of}.", *remarks])
    return figure


@paper_style()
def error_over_time(
    recordings: Sequence[Recording], *, of: str = "one repetition", width_in: float = COLUMN_IN
) -> "Figure":
    """Draws the errors before and after the correction along the frames of sequences, a panel for each.

    A line is interrupted where frames are missing. In long sequences, a point is the mean of several successive frames.

    Args:
        recordings: The sequences; the figure shows the first six.
        of: The repetition of the frames, such as 'repetition 0'.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there are no sequences.
    """
    if not recordings:
        raise FigureError("there are no sequences to draw")
    shown = recordings[:_MAX_PANELS]
    figure = new_figure(width_in, 0.4 + 1.15 * len(shown))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    entries: list[tuple[str, Any]] = []
    widest = 1
    for axes, recording in zip(panels, shown, strict=True):
        index, before, after, width = _points(recording)
        widest = max(widest, width)
        lines = [
            axes.plot(index, values, color=colour, linestyle=style, linewidth=0.9)[0]
            for values, colour, style in ((before, UNCORRECTED, "--"), (after, CORRECTED, "-"))
        ]
        entries = list(zip(("before", "after"), lines, strict=True))
        axes.set_title(fitting(recording.name, 0.8 * width_in * 72, 8), loc="left")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.set_ylabel("Error (mm)")
    panels[-1].set_xlabel("Frame of the sequence")
    add_legend(figure, entries)
    sentences = [f"Mean distance of each frame’s joints, {of}."]
    if widest > 1:
        sentences.append(f"A point is the mean of up to {widest} successive frames.")
    if len(shown) < len(recordings):
        sentences.append(f"The first {len(shown)} of {len(recordings)} sequences.")
    add_note(figure, sentences)
    return figure


def _points(recording: Recording) -> tuple[Numbers, Numbers, Numbers, int]:
    """Returns the points of a line, (P,) each, with NaN where it is interrupted, and the frames of a point."""
    index = recording.index
    step = max(1, int(np.median(np.diff(index)))) if len(index) > 1 else 1  # of sets with every n-th frame
    width = math.ceil(len(index) / _POINTS_OF_A_PANEL)
    bins = index // (step * width)  # (N,)
    _, starts, counts = np.unique(bins, return_index=True, return_counts=True)
    columns = [
        np.add.reduceat(values.astype(np.float64), starts) / counts
        for values in (index, recording.before_mm, recording.after_mm)
    ]  # (P,) each
    gaps = np.flatnonzero(np.diff(bins[starts]) > 1) + 1
    at, before, after = (np.insert(values, gaps, np.nan) for values in columns)
    return at, before, after, width


def _round_up(width: float) -> int:
    """Returns the next round number: 1, 2, 5, 10, 20 and so on."""
    power = 10 ** math.floor(math.log10(width)) if width >= 1 else 1
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width))
