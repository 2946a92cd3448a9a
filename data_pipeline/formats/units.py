"""Refuses poses whose unit is not that of the format that they were read with."""

from pathlib import Path

import numpy as np

from data_pipeline.bones import MM_PER_UNIT, guess_unit
from data_pipeline.formats.catalogue import FORMATS, PoseFormat
from data_pipeline.formats.frames import FormatError
from data_pipeline.pose_dataset import Array

HAND_SIZES_MM = (50.0, 400.0)
"""Plausible sizes of hands in millimetres: from a baby's fist to more than the largest finger span."""

_N_FRAMES = 4096  # enough for a median

_MM_PER_UNIT = {**MM_PER_UNIT, "millimetres": 1.0}


def require_hands(path: Path, pose_format: PoseFormat, poses: Array) -> None:
    """Checks the unit of poses, (N, J, 3), mm, by the median size of the hands: see `require_unit`."""
    some = poses[:: -(-len(poses) // _N_FRAMES)].astype(np.float64)  # (n, J, 3)
    sizes_mm = 2 * np.linalg.norm(some - some.mean(axis=1, keepdims=True), axis=2).max(axis=1)  # (n, J, 3) -> (n,)
    require_unit(path, pose_format, "the median size of a hand", float(np.median(sizes_mm)), HAND_SIZES_MM)


def require_unit(
    path: Path, pose_format: PoseFormat, what: str, length_mm: float, plausible_mm: tuple[float, float]
) -> None:
    """Checks that a typical length of the poses in a file is plausible, or at least not in any other unit.

    Args:
        path: The file.
        pose_format: The format that it was read with.
        what: The length in words.
        length_mm: The length.
        plausible_mm: The smallest and the largest plausible length.

    Raises:
        FormatError: If the length is plausible in another unit; the text names the format that has it, if there is one.
    """
    guess = guess_unit(length_mm, *plausible_mm)
    if plausible_mm[0] <= length_mm <= plausible_mm[1] or guess is None:
        return
    mm_per_unit = pose_format.mm_per_unit * MM_PER_UNIT[guess]
    unit = next((name for name, mm in _MM_PER_UNIT.items() if mm == mm_per_unit), f"units of {mm_per_unit:g} mm")
    others = (
        other
        for other in FORMATS.values()
        if (other.suffixes, other.skeleton, other.mm_per_unit)
        == (pose_format.suffixes, pose_format.skeleton, mm_per_unit)
    )
    other = next(others, None)
    advice = f"multiply its coordinates by {MM_PER_UNIT[guess]:g}" if other is None else f"give the format {other.name}"
    raise FormatError(
        f"{path} seems to be in {unit}: read as {pose_format.name}, {what} is {length_mm:.3g} mm; {advice}, "
        "or insist with --force"
    )
