"""A picture of examples: label, input and prediction as skeletons."""

import io
import threading

import numpy as np

from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton

_COLOURS = {"label": "black", "input": "#D55E00", "prediction": "#0072B2"}  # told apart by colour-blind people too
_MAX_EXAMPLES = 6


def plot_examples(inputs: Array, predictions: Array, labels: Array, skeleton: Skeleton, *, title: str) -> bytes:
    """Draws up to six examples and returns a PNG; on a screen, where matplotlib has one, they are shown too.

    Args:
        inputs: Uncorrected poses, (E, J, 3), mm.
        predictions: Corrected poses, (E, J, 3), mm.
        labels: True poses, (E, J, 3), mm.
        skeleton: The skeleton with J joints.
        title: Stands above the picture.
    """
    # Imported where it is needed: it takes a second, and most runs draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = min(len(labels), _MAX_EXAMPLES)
    figure = Figure(figsize=(4 * n, 4.6), layout="constrained")
    figure.suptitle(title)
    for e in range(n):
        axes = figure.add_subplot(1, n, e + 1, projection="3d")
        for name, poses in (("label", labels), ("input", inputs), ("prediction", predictions)):
            # A camera looks along z with y down; on paper z goes into the page and y up.
            x, y, z = poses[e, :, 0], poses[e, :, 2], -poses[e, :, 1]  # (J,) each
            ends = np.array([(x[[a, b]], y[[a, b]], z[[a, b]]) for a, b in skeleton.bones])  # (B, 3, 2)
            for bone, line in enumerate(ends):
                axes.plot(*line, color=_COLOURS[name], linewidth=1.5, label=name if bone == 0 else None)
            axes.scatter(x, y, z, color=_COLOURS[name], s=8)
        before, after = (np.linalg.norm(poses[e] - labels[e], axis=1).mean() for poses in (inputs, predictions))
        axes.set_title(f"{before:.1f} → {after:.1f} mm", fontsize=10)
        axes.set_aspect("equal")
        axes.set_axis_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call] # matplotlib declares no types for it
    _show(buffer.getvalue(), title)
    return buffer.getvalue()


def _show(picture: bytes, title: str) -> None:
    """Shows a picture on the screen, where there is one and this thread may use it: workers have neither."""
    if threading.current_thread() is not threading.main_thread():
        return
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() == "agg":
        return
    plt.figure(title, figsize=(12, 4), clear=True)
    plt.imshow(plt.imread(io.BytesIO(picture)))
    plt.axis("off")
    plt.show(block=False)
    plt.pause(0.001)  # lets the window draw itself
