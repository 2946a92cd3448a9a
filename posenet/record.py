"""One number of a training, and when and of what it was taken."""

from typing import Literal, NamedTuple

Space = Literal["default", "original"]
"""Where poses are compared: as the corrector sees them, or in millimetres in the camera frame."""


class Record(NamedTuple):
    """A row of the long records.

    Attributes:
        epoch: The epoch it belongs to, from 1.
        batch: Batches of that epoch that were done, from 1; 0 for the final evaluation with the epoch's weights.
        split: 'train', 'val' or 'test'.
        subset: The subset; 'mean' for the mean over subsets, and for what belongs to none.
        space: 'default' (normalised) or 'original' (mm).
        metric: See `posenet.evaluator`; in training also 'loss', 'batch_loss' and 'batch_grad_norm'.
        value: The number.
    """

    epoch: int
    batch: int
    split: str
    subset: str
    space: Space
    metric: str
    value: float
