"""One number of a training, with its time and subject."""

from typing import Literal, NamedTuple

Space = Literal["default", "original"]
"""The space in which poses are compared: the corrector's, or millimetres in the camera frame."""


class Record(NamedTuple):
    """A row of the long records.

    Attributes:
        epoch: The epoch, from 1.
        batch: The number of batches done in that epoch, from 1; 0 for the final evaluation with the epoch's weights.
        split: 'train', 'val' or 'test'.
        subset: The subset; 'mean' for the mean over subsets, and for numbers that belong to no subset; 'fused' for the
            pose that a model computes from all subsets.
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
