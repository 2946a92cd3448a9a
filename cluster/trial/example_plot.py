"""A picture of examples during the training: label, input and prediction as skeletons."""

import io
import threading

from cluster.figures.hands import skeletons
from cluster.figures.style import save
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton

_MAX_EXAMPLES = 6
_EXAMPLE_IN = 2.0


def plot_examples(inputs: Array, predictions: Array, labels: Array, skeleton: Skeleton, *, title: str) -> bytes:
    """Draws up to six examples and returns a PNG; also shows it if matplotlib has a screen.

    Args:
        inputs: Uncorrected poses, (E, J, 3), mm.
        predictions: Corrected poses, (E, J, 3), mm.
        labels: True poses, (E, J, 3), mm.
        skeleton: The skeleton with J joints.
        title: The title of the picture.
    """
    first = slice(_MAX_EXAMPLES)
    figure = skeletons(
        inputs[first],
        {title: predictions[first]},
        labels[first],
        skeleton,
        width_in=_EXAMPLE_IN * len(labels[first]),
    )
    picture = save(figure, "png")
    _show(picture, title)
    return picture


def _show(picture: bytes, title: str) -> None:
    """Shows a picture if there is a screen that this thread may use; not in a worker."""
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
