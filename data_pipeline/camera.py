"""The pinhole camera: image coordinates with depth to millimetres and back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Coordinates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A depth camera without distortion: x = (u − cx)·d / fx, y = (v − cy)·d / fy, z = d.

    A negative fy makes y point up in the camera frame, while v always points down in the image.

    Attributes:
        fx: Focal length along u, pixels.
        fy: Focal length along v, pixels.
        cx: Principal point along u, pixels.
        cy: Principal point along v, pixels.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def to_xyz(self, uvd: Coordinates) -> Coordinates:
        """Converts `uvd` (u and v in pixels, d in mm), (..., 3), to points (..., 3), mm, camera frame."""
        u, v, d = np.moveaxis(uvd, -1, 0)  # each (...)
        return np.stack([(u - self.cx) * d / self.fx, (v - self.cy) * d / self.fy, d], axis=-1)  # (..., 3)

    def to_uvd(self, xyz: Coordinates) -> Coordinates:
        """Converts `xyz`, mm, camera frame, (..., 3), z not 0, to u and v in pixels and d in mm, (..., 3)."""
        x, y, z = np.moveaxis(xyz, -1, 0)  # each (...)
        return np.stack([x * self.fx / z + self.cx, y * self.fy / z + self.cy, z], axis=-1)  # (..., 3)
