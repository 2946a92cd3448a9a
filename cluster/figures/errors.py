"""Figures of errors before and after the correction: by joint, over frames, and against each other."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.figures.style import (
    BLACK,
    COLUMN_IN,
    CORRECTED,
    SMALL_PT,
    UNCORRECTED,
    FigureError,
    Numbers,
    add_legend,
    add_note,
    fitting_all,
    n_text,
    new_figure,
    paper_style,
)
from data_pipeline.skeleton import Skeleton
from data_pipeline.words import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDING_MM = 1e-3
"""A change up to this is neither better nor worse, as in the metrics `improved` and `worsened`."""

_FEW_FRAMES = 1000
_FRAMES_OF_A_BIN = 20
_MAX_BINS = 10


@paper_style()
def errors_by_joint(
    skeleton: Skeleton,
    before_mm: Mapping[str, Sequence[float]],
    after_mm: Mapping[str, Sequence[float]],
    *,
    n_planned: int | None = None,
    width_in: float = COLUMN_IN,
) -> "Figure":
    """Draws the mean distance of each joint, and of each finger in bold, before and after the correction.

    Joints outside fingers come first, then the fingers with their joints from the palm outwards. Whiskers are sample
    standard deviations over repetitions.

    Args:
        skeleton: The skeleton.
        before_mm: Mean distances before the correction, in each of R repetitions, by the name of the joint or finger;
            NaN for missing numbers.
        after_mm: The same after the correction.
        n_planned: The planned number of repetitions; None if all are given.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there is no number at all.
    """
    groups = _joints_by_finger(skeleton)
    names = [name for group in groups for name in group]
    before, after = (_stacked(names, values) for values in (before_mm, after_mm))  # (P, R) each
    if np.isnan(before).all() or np.isnan(after).all():
        raise FigureError("there are no errors by joint: no repetition has a number for any joint or finger")
    heights = np.concatenate([np.arange(len(group)) + 0.6 * g for g, group in enumerate(groups)])
    heights += np.repeat([sum(map(len, groups[:g])) for g in range(len(groups))], list(map(len, groups)))  # (P,)

    figure = new_figure(width_in, 0.5 + 0.125 * (heights[-1] + 1))
    axes = figure.add_subplot()
    means = [_mean_of_numbers(values) for values in (before, after)]  # (P,) each
    axes.hlines(heights, means[0], means[1], color="#BBBBBB", linewidth=1.5)
    entries: list[tuple[str, Any]] = []
    for label, values, mean, colour, marker in (
        ("before", before, means[0], UNCORRECTED, "D"),
        ("after", after, means[1], CORRECTED, "o"),
    ):
        whiskers = _std_of_numbers(values)
        drawn = axes.errorbar(
            mean, heights, xerr=whiskers, color=colour, fmt=marker, capsize=1.5, elinewidth=0.8, markersize=3
        )
        entries.append((label, drawn))
    for height, *pair in zip(heights, *means, strict=True):
        if np.isnan(pair).any():
            axes.text(0.5, height, "no number", transform=axes.get_yaxis_transform(), size=SMALL_PT, va="center")
    axes.set_yticks(heights, fitting_all(names, 0.28 * width_in * 72, SMALL_PT))
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        if name in dict(skeleton.fingers):
            tick.set_fontweight("bold")
    axes.set_ylim(heights[-1] + 0.8, -0.8)  # the first on top
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("Mean distance (mm)")
    add_legend(figure, entries)
    count = f"{n_text(after.shape[1], n_planned)} repetition{'s' if max(after.shape[1], n_planned or 1) > 1 else ''}"
    sentences = [f"Mean ± standard deviation over {count}." if after.shape[1] > 1 else f"{count}."]
    missing = int(np.isnan(after).any(axis=0).sum())
    if missing:
        sentences.append(f"{missing} of them lack values; missing values are left out.")
    add_note(figure, sentences)
    return figure


@paper_style()
def error_histogram(
    before_mm: Numbers, after_mm: Numbers, *, of: str = "one repetition", width_in: float = COLUMN_IN
) -> "Figure":
    """Draws the distribution of the mean distances of poses before and after the correction.

    A frame has a pose for each subset. The last bin, up to the 99.5th percentile, also includes all larger distances,
    and the figure says how many.

    Args:
        before_mm: The mean distance of each pose before, (N,).
        after_mm: The same after, (N,).
        of: The repetition of the poses, such as 'repetition 0'.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there are no frames, or if they do not pair up.
    """
    before, after, remarks = _frames(before_mm, after_mm)
    highest = np.percentile(np.concatenate([before, after]), 99.5)
    step = max(0.1, float(f"{highest / 50:.1g}"))  # a round width, for some fifty bins
    edges = step * np.arange(max(1, np.ceil(highest / step)) + 1)  # (B + 1,)
    figure = new_figure(width_in, 2.1)
    axes = figure.add_subplot()
    entries: list[tuple[str, Any]] = []
    for label, errors, colour, style in (
        ("before", before, UNCORRECTED, "--"),
        ("after", after, CORRECTED, "-"),
    ):
        shares = 100 * np.histogram(np.minimum(errors, (edges[-2] + edges[-1]) / 2), edges)[0] / len(errors)  # (B,)
        axes.stairs(shares, edges, color=colour, fill=True, alpha=0.2)
        drawn = axes.stairs(shares, edges, color=colour, linestyle=style, linewidth=1.2)
        axes.axvline(float(np.median(errors)), color=colour, linestyle=style, linewidth=0.8)
        entries.append((f"{label}: median {np.median(errors):.1f} mm, mean {errors.mean():.1f} mm", drawn))
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Mean distance of a pose (mm)")
    axes.set_ylabel(f"Poses (% per {step:g} mm)")
    add_legend(figure, entries)
    beyond = [int((errors > edges[-1]).sum()) for errors in (before, after)]
    if any(beyond):
        n_before, n_after = count(beyond[0], "pose"), f"{beyond[1]:,}"
        remarks.append(f"The last bin includes {n_before} before and {n_after} after that lie beyond it.")
    add_note(figure, [f"{len(before):,} poses of {of}; vertical lines: medians.", *remarks])
    return figure


@paper_style()
def improvement_by_error(
    before_mm: Numbers, after_mm: Numbers, *, of: str = "one repetition", width_in: float = COLUMN_IN
) -> "Figure":
    """Draws the improvement of poses against the backbone's error, with means over bins of equally many poses.

    A frame has a pose for each subset. Whiskers show the middle half of a bin's poses. A standard error would be too
    small: neighbouring frames are correlated, and so are the poses of one frame. The axes show the middle 99 % of the
    poses, and the figure says how many lie outside.

    Args:
        before_mm: The mean distance of each pose before, (N,).
        after_mm: The same after, (N,).
        of: The repetition of the poses, such as 'repetition 0'.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there are no frames, or if they do not pair up.
    """
    before, after, remarks = _frames(before_mm, after_mm)
    improvement = before - after  # (N,)
    n_bins = int(np.clip(len(before) // _FRAMES_OF_A_BIN, 1, _MAX_BINS))
    bins = np.array_split(np.argsort(before, kind="stable"), n_bins)
    x = np.array([before[frames].mean() for frames in bins])  # (B,)
    mean = np.array([improvement[frames].mean() for frames in bins])  # (B,)
    low, high = np.array([np.percentile(improvement[frames], [25, 75]) for frames in bins]).T  # (B,) each

    figure = new_figure(width_in, 2.4)
    axes = figure.add_subplot()
    (left, right), (bottom, top) = _limits(before), _limits(improvement)
    bottom, top = min(bottom, -0.05 * top), max(top, -0.05 * bottom)  # zero is always visible
    if len(before) < _FEW_FRAMES:
        axes.scatter(before, improvement, s=4, color="#AAAAAA", linewidths=0, rasterized=True)
    else:
        cells = axes.hexbin(
            *(before, improvement), gridsize=(36, 20), extent=(left, right, bottom, top), bins="log", mincnt=1
        )
        cells.set_cmap("Greys")
        cells.set_clim(0.7, None)
        figure.colorbar(cells, ax=axes, label="Poses per cell", pad=0.02, format="{x:g}")
    axes.axhline(0, color=BLACK, linewidth=0.8)
    drawn = axes.errorbar(
        *(x, mean), yerr=(mean - np.minimum(low, mean), np.maximum(high, mean) - mean), color=CORRECTED, fmt="o-"
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("Mean distance of a pose before (mm)")
    axes.set_ylabel("Improvement (mm)")
    add_legend(figure, [(f"mean of {len(before) // n_bins:,} poses each, 25–75 %", drawn)])
    improved, worsened = 100 * (improvement > ROUNDING_MM).mean(), 100 * (improvement < -ROUNDING_MM).mean()
    outside = int(((before < left) | (before > right) | (improvement < bottom) | (improvement > top)).sum())
    if outside:
        remarks.append(f"{outside:,} poses lie outside the axes but are included in the means.")
    add_note(
        figure, [f"{len(before):,} poses of {of}: {improved:.1f} % improved, {worsened:.1f} % worsened.", *remarks]
    )
    return figure


def _joints_by_finger(skeleton: Skeleton) -> list[list[str]]:
    """Returns the names of joints outside fingers, then of each finger and its joints."""
    in_fingers = {joint for _, joints in skeleton.fingers for joint in joints}
    others = [name for joint, name in enumerate(skeleton.joint_names) if joint not in in_fingers]
    fingers = [[name, *(skeleton.joint_names[joint] for joint in joints)] for name, joints in skeleton.fingers]
    return [group for group in [others, *fingers] if group]


def _stacked(names: Sequence[str], values: Mapping[str, Sequence[float]]) -> Numbers:
    """Returns the values of P parts in R repetitions, (P, R); NaN for missing values."""
    n = max((len(repetitions) for repetitions in values.values()), default=0)
    stacked = np.full((len(names), max(1, n)), np.nan)
    for row, name in zip(stacked, names, strict=True):
        repetitions = values.get(name, ())
        row[: len(repetitions)] = repetitions
    return stacked


def _mean_of_numbers(values: Numbers) -> Numbers:
    """Returns the means over repetitions with a number, (P, R) -> (P,); NaN if no repetition has one."""
    counts = np.isfinite(values).sum(axis=1)
    means: Numbers = np.nansum(values, axis=1) / np.where(counts, counts, np.nan)
    return means


def _std_of_numbers(values: Numbers) -> Numbers:
    """Returns sample standard deviations over repetitions with a number, (P, R) -> (P,); NaN with fewer than two."""
    freedom = np.isfinite(values).sum(axis=1) - 1
    squares = np.nansum((values - _mean_of_numbers(values)[:, None]) ** 2, axis=1)
    deviations: Numbers = np.sqrt(squares / np.where(freedom > 0, freedom, np.nan))
    return deviations


def _limits(values: Numbers) -> tuple[float, float]:
    """Returns the ends of an axis for the middle 99 % of values, with a margin."""
    low, high = np.percentile(values, [0.5, 99.5])
    margin = 0.06 * (high - low) + 0.01
    return float(low - margin), float(high + margin)


def _frames(before_mm: Numbers, after_mm: Numbers) -> tuple[Numbers, Numbers, list[str]]:
    """Returns the errors of frames that have both, float64, and a remark if some frames do not."""
    if np.shape(before_mm) != np.shape(after_mm):
        raise FigureError(
            f"{np.size(before_mm)} frames before and {np.size(after_mm)} after the correction do not pair"
        )
    known = np.isfinite(before_mm) & np.isfinite(after_mm)
    if not known.any():
        raise FigureError("there are no frames whose errors before and after the correction are numbers")
    left_out = int((~known).sum())
    remarks = [f"Frames left out because a value is missing: {left_out:,}."] if left_out else []
    return before_mm[known].astype(np.float64), after_mm[known].astype(np.float64), remarks
