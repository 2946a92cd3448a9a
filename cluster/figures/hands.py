"""Hands in space: examples as skeletons, uncorrected, corrected and true."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cluster.figures.style import (
    COLUMN_IN,
    CORRECTED,
    LABEL,
    SMALL_PT,
    TINY_PT,
    UNCORRECTED,
    FigureError,
    Numbers,
    add_legend,
    add_note,
    fitting,
    new_figure,
    paper_style,
)
from data_pipeline.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

_MIN_SIDE_IN = 0.6
_PAGE_IN = 9.0


@paper_style()
def skeletons(
    inputs_mm: Numbers,
    corrected_mm: Mapping[str, Numbers],
    labels_mm: Numbers,
    skeleton: Skeleton,
    *,
    of: str = "one repetition",
    n_examples: int | None = None,
    n_log_points: int | None = None,
    width_in: float = COLUMN_IN,
) -> "Figure":
    """Draws examples side by side, in one row for each of several log points of the training.

    If that would be higher than a page, several log points share a row, as long as hands stay large enough. All hands
    have the same scale and viewpoint, a little above and to the side of the camera, because the errors of a backbone
    are largest along the camera's axis. The title of each hand is its mean distance before and after. If not all
    examples or log points are drawn, the figure says so.

    Args:
        inputs_mm: Uncorrected poses of E examples, (E, J, 3), mm, camera frame.
        corrected_mm: Corrected poses, (E, J, 3) each, by the title of their row, such as 'epoch 10'.
        labels_mm: True poses, (E, J, 3).
        skeleton: The skeleton with J joints.
        of: The repetition of the examples, such as 'repetition 0'.
        n_examples: Draw at most this many, from the first on; None for as many as fit into the width.
        n_log_points: Draw at most this many, evenly from the first to the last; 1 draws the last. None draws all.
        width_in: The figure's width, inches.

    Raises:
        FigureError: If there are no examples or log points, if none should be drawn, or if a coordinate is not finite.
    """
    if any(n is not None and n < 1 for n in (n_examples, n_log_points)):
        raise FigureError("a figure of hands needs at least one example and one log point")
    if not len(labels_mm) or not corrected_mm:
        raise FigureError("there are no skeletons: no example was followed (`val_example_indices`)")
    n_shown = min(n_examples or len(labels_mm), len(labels_mm), max(1, int(width_in / _MIN_SIDE_IN)))
    shown = _evenly(list(corrected_mm.items()), n_log_points or len(corrected_mm))
    hands = np.stack([poses[:n_shown] for poses in (inputs_mm, labels_mm, *dict(shown).values())])  # (2 + L, E, J, 3)
    if not np.isfinite(hands).all():
        raise FigureError("there are no skeletons: a coordinate of an example is not a finite number")
    centres = (hands.min(axis=(0, 2)) + hands.max(axis=(0, 2))) / 2  # (E, 3)
    radius = np.linalg.norm(hands - centres[:, None], axis=3).max()  # the radius of a ball that contains any hand

    n_beside = _n_beside(len(shown), n_shown, width_in)
    n_rows = -(-len(shown) // n_beside)
    figure = new_figure(width_in, n_rows * _row_in(n_beside * n_shown, width_in))
    parts = figure.subfigures(n_rows, n_beside, squeeze=False).flat[: len(shown)]
    entries: dict[str, Any] = {}
    for part, (title, poses) in zip(parts, shown, strict=True):
        part.suptitle(fitting(title, width_in * 72 / n_beside - 8, SMALL_PT), fontsize=SMALL_PT)
        for e, label in enumerate(labels_mm[:n_shown]):
            axes = part.add_subplot(1, n_shown, e + 1, projection="3d")
            for name, colour, pose in (
                ("label", LABEL, label),
                ("uncorrected", UNCORRECTED, inputs_mm[e]),
                ("corrected", CORRECTED, poses[e]),
            ):
                entries[name] = _draw_hand(axes, pose - centres[e], skeleton, colour)
            before, after = (np.linalg.norm(pose - label, axis=1).mean() for pose in (inputs_mm[e], poses[e]))
            axes.set_title(f"{before:.1f} → {after:.1f}", fontsize=TINY_PT, pad=0)
            axes.set(xlim=(-radius, radius), ylim=(-radius, radius), zlim=(-radius, radius))
            axes.set_box_aspect((1, 1, 1), zoom=1.62)
            axes.set_proj_type("ortho")
            axes.view_init(elev=20, azim=-65)
            axes.set_axis_off()
    add_legend(figure, list(entries.items()))
    sentences = [f"Examples of {of}: mean distance before → after (mm)."]
    if n_shown < len(labels_mm):
        sentences.append(f"The first {n_shown} of {len(labels_mm)} examples.")
    if len(shown) < len(corrected_mm):
        sentences.append(f"{len(shown)} of {len(corrected_mm)} log points.")
    add_note(figure, sentences)
    return figure


def _row_in(n_hands: int, width_in: float) -> float:
    """Returns the height of a row of hands, including its titles."""
    return min(0.85 * width_in / n_hands, 3.0) + 0.3


def _n_beside(n_log_points: int, n_examples: int, width_in: float) -> int:
    """Returns how many log points share a row: the smallest number that keeps the figure within a page."""
    most = max(1, int(width_in / (n_examples * _MIN_SIDE_IN)))
    heights = {n: -(-n_log_points // n) * _row_in(n * n_examples, width_in) for n in range(1, most + 1)}
    return next((n for n, height in heights.items() if height <= _PAGE_IN), most)


def _evenly(points: Sequence[T], n: int) -> list[T]:
    """Returns at most n of the points, evenly from the first to the last; for n = 1 the last."""
    places = np.linspace(len(points) - 1, 0, min(n, len(points))).astype(int)
    return [points[place] for place in places[::-1]]


def _draw_hand(axes: Any, pose: Numbers, skeleton: Skeleton, colour: str) -> Any:
    """Draws a hand, (J, 3), and returns its bones for the legend."""
    # A camera looks along z with y down; on paper z goes into the page and y up.
    x, y, z = pose[:, 0], pose[:, 2], -pose[:, 1]  # (J,) each
    ends = [joint for bone in skeleton.bones for joint in (*bone, -1)]
    x, y, z = (np.append(axis, np.nan)[ends] for axis in (x, y, z))  # (3 B,) each: NaN ends a bone
    (bones,) = axes.plot(x, y, z, color=colour, linewidth=1.0, marker="o", markersize=1.6, markeredgewidth=0)
    return bones
