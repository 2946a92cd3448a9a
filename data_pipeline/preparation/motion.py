"""The sequences of a dataset, how much the hand moves from frame to frame, and cuts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_pipeline.frame_table import CUT_MM, FrameTable, group_codes, in_order, mean_distances_mm, motion_mm
from data_pipeline.pose_dataset import Array

_N_PAIRS = 4096  # random pairs; enough for a median
_MIN_SAMPLES = 100  # in a shorter video the hand may not move
_SHUFFLED = 0.5  # neighbours in a video differ by a few hundredths of what random frames differ by


@dataclass(frozen=True)
class Motion:
    """How the N samples of a dataset follow each other.

    Attributes:
        sequences: The number of frames in each sequence, by name; None if sequences are not known.
        subjects: The number of frames of each subject, by name; None if subjects are not known.
        steps: The number of neighbouring samples that are successive frames of a sequence.
        step_mm: The median step between them, averaged over the joints, mm; None if there are none.
        random_step_mm: The median distance of two random frames, likewise, mm.
        cuts: The samples at which a cut begins, a step of more than `CUT_MM` within a sequence.
    """

    sequences: dict[str, int] | None
    subjects: dict[str, int] | None
    steps: int
    step_mm: float | None
    random_step_mm: float
    cuts: list[int]

    @classmethod
    def of(cls, labels: Array, frames: FrameTable) -> "Motion":
        """Measures labels, (N, J, 3), mm, in the order of their frames."""
        steps = motion_mm(labels)  # (N - 1,)
        is_next = ~frames.run_starts(len(labels))[1:]  # (N - 1,)
        first, second = np.random.default_rng(0).integers(0, len(labels), (2, _N_PAIRS))
        return cls(
            _counts(frames.sequence),
            _counts(frames.subject),
            int(is_next.sum()),
            float(np.median(steps[is_next])) if is_next.any() else None,
            float(np.median(mean_distances_mm(labels[first], labels[second]))),
            (np.flatnonzero(is_next & (steps > CUT_MM)) + 1).tolist(),
        )

    @property
    def is_shuffled(self) -> bool:
        """Whether neighbouring samples differ about as much as random ones."""
        if self.step_mm is None or self.steps < _MIN_SAMPLES - 1:
            return False
        return self.step_mm > _SHUFFLED * self.random_step_mm


def _counts(names: npt.NDArray[np.object_] | None) -> dict[str, int] | None:
    return None if names is None else dict(zip(in_order(names), np.bincount(group_codes(names)).tolist(), strict=True))
