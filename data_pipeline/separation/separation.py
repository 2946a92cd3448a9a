"""The separation of a validation or test set from a training set, in numbers and in words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.files.json_numbers import Count, Number
from data_pipeline.words import first_of

MAX_CORRELATION = 0.1
"""If the errors of two frames correlate more than this, a corrector can learn one from the other."""

NEAR_MM = 5.0
"""Frames whose joints are this close to each other on average are near-duplicates.

This is about two frames of a video: NYU moves by 2.8 mm from frame to frame, ICVL by 6.7 mm.
"""

MAX_NEAR_SHARE = 0.05
"""A larger share of near-duplicates is not a coincidence: other people and other recordings have none."""

_SHOWN = 3  # subjects in a sentence


@dataclass(frozen=True)
class Separation:
    """How far the frames of a set are from the frames of a training set.

    Attributes:
        frames: The number of frames in the set.
        shared_subjects: Subjects that are in both sets; None if subjects are not known.
        duplicates: How many of the frames have exactly the label of a training frame.
        near_share: The share of frames with a training frame within `NEAR_MM`, from a sample of the frames.
        near_correlation: The correlation of the errors in such pairs; None if there are too few.
        frames_in_shared_sequences: How many of them are in a sequence that has training frames; None if sequences are
            not known.
        min_distance: The smallest distance of these from a training frame of their sequence, in frames; None for none.
        median_distance: The median distance.
        correlation: The correlation of the backbone's errors in frames at the smallest distance; None if unknown. With
            several backbones it is the largest one.
        median_correlation: The same at the median distance.
        better_split: The text of a split that would keep a distance; None if this one does, or if none can.
    """

    frames: Count
    shared_subjects: tuple[str, ...] | None
    duplicates: Count
    near_share: Number
    near_correlation: Number | None
    frames_in_shared_sequences: Count | None = None
    min_distance: Count | None = None
    median_distance: Number | None = None
    correlation: Number | None = None
    median_correlation: Number | None = None
    better_split: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Separation":
        """Returns what `to_json` wrote."""
        shared = content["shared_subjects"]
        return cls(**{**content, "shared_subjects": None if shared is None else tuple(shared)})

    @property
    def is_interpolation(self) -> bool:
        """Whether a corrector could do well on the set by remembering training frames."""
        return self._is_near_in_time or self._is_near_in_space

    @property
    def _is_near_in_time(self) -> bool:
        return self.correlation is not None and self.correlation > MAX_CORRELATION

    @property
    def _is_near_in_space(self) -> bool:
        return self.near_share >= MAX_NEAR_SHARE or self.duplicates >= MAX_NEAR_SHARE * self.frames

    def sentence(self, part: str) -> str:
        """Returns what is known about the distance, for a caption.

        Args:
            part: What the set is: "test" or "validation".
        """
        return " ".join([self._distance(part), *self._subjects(part), *self._duplicates(part)])

    @property
    def meaning(self) -> str | None:
        """What results on the set measure because of their distance, as a sentence; None if there is nothing to say."""
        if not self.is_interpolation:
            return None
        if self._is_near_in_space or (self.median_correlation or 0.0) > MAX_CORRELATION:
            return "These results measure interpolation within a recording."
        return "Results on the nearest of these frames partly measure interpolation within a recording."

    def warning(self, part: str) -> str | None:
        """Returns why results on the set measure interpolation, and a better split; None if they do not."""
        if self.meaning is None:
            return None
        reason = self._distance(part) if self._is_near_in_time else " ".join(self._duplicates(part))
        return f"{reason} {self.meaning}{self.advice}"

    @property
    def advice(self) -> str:
        """A sentence that names the better split, after a space; empty if there is none."""
        return "" if self.better_split is None else f" A split that keeps a distance: {self.better_split}."

    def _distance(self, part: str) -> str:
        """Returns a sentence about the distance in frames."""
        if self.frames_in_shared_sequences is None:
            return f"The distance of {part} frames from training frames is not known, since their sequences are not."
        if self.min_distance is None:
            return f"No {part} frame is in a sequence of the training set."
        share = "" if self.frames_in_shared_sequences == self.frames else f"{self.frames_in_shared_sequences:,} "
        median = round(self.median_distance or 0)
        text = (
            f"{share}{part} frames are {self.min_distance:,} or more frames (median {median:,}) away from training "
            "frames of the same sequence"
        )
        if self.correlation is not None:
            text += f", where the backbone's errors correlate at {_correlation(self.correlation)}"
            if self.median_correlation is not None:
                text += f" (median distance: {_correlation(self.median_correlation)})"
        return f"{text[0].upper()}{text[1:]}."

    def _subjects(self, part: str) -> list[str]:
        if self.shared_subjects is None:
            return []
        if not self.shared_subjects:
            return [f"No subject is in both the training and the {part} set."]
        noun = "subject" if len(self.shared_subjects) == 1 else "subjects"
        return [f"Training and {part} frames share the {noun} {first_of(self.shared_subjects, _SHOWN)}."]

    def _duplicates(self, part: str) -> list[str]:
        """Returns a sentence about duplicates and near-duplicates, if there are any."""
        if self.near_share == 0 and self.duplicates == 0:
            return []
        errors = (
            ""
            if self.near_correlation is None
            else f", and their errors correlate at {_correlation(self.near_correlation)}"
        )
        same = f"; {self.duplicates:,} are duplicates" if self.duplicates else ""
        percent = 100 * self.near_share
        share = f"{percent:.0f} %" if percent >= 1 or percent == 0 else "Less than 1 %"
        return [f"{share} of the {part} frames have a training frame within {NEAR_MM:g} mm{errors}{same}."]


def _correlation(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # + 0.0 turns −0 into 0
