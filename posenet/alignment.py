"""Procrustes alignment of poses with their labels: it removes differences in position, rotation and size."""

import torch
from torch import Tensor


def aligned(poses: Tensor, labels: Tensor) -> Tensor:
    """Moves, rotates and scales each pose so that the sum of its joints' squared distances to the label is minimal.

    The rotation is a unit quaternion: the eigenvector with the largest eigenvalue of a 4 x 4 matrix (Horn, "Closed-form
    solution of absolute orientation using unit quaternions", 1987). It is therefore always proper, and a mirrored hand
    does not match its label. If several rotations are best (joints on a line), it is one of them. A pose whose joints
    are all in one point moves to the centre of its label. A pose with a number that is not finite becomes NaN.

    Args:
        poses: Poses, (N, J, 3), in any unit.
        labels: Labels, (N, J, 3).

    Returns:
        The aligned poses, (N, J, 3), float64, in the unit of the labels.
    """
    poses, labels = poses.double(), labels.double()
    centre = labels.mean(dim=1, keepdim=True)  # (N, 1, 3)
    source, target = poses - poses.mean(dim=1, keepdim=True), labels - centre
    # `eigh` raises an error for NaN. A NaN of the pose still reaches the result, through `source`.
    matrices = _horn_matrices(source.mT @ target).nan_to_num()  # (N, 4, 4)
    eigenvalues, eigenvectors = torch.linalg.eigh(matrices)  # (N, 4), (N, 4, 4)
    rotations = _rotations(eigenvectors[:, :, -1])  # (N, 3, 3)
    # The largest eigenvalue is the sum of the products of rotated pose and label; it is never negative.
    size = source.square().sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float64).tiny)  # (N,)
    scales = (eigenvalues[:, -1].clamp(min=0) / size)[:, None, None]  # (N, 1, 1)
    found: Tensor = scales * (source @ rotations.mT) + centre
    return found


def _horn_matrices(products: Tensor) -> Tensor:
    """Returns Horn's matrices, (N, 4, 4), of the sums of products of pose and label coordinates, (N, 3, 3)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(dim=1) for row in products.unbind(dim=1))
    rows = (
        *(xx + yy + zz, yz - zy, zx - xz, xy - yx),
        *(yz - zy, xx - yy - zz, xy + yx, zx + xz),
        *(zx - xz, xy + yx, yy - xx - zz, yz + zy),
        *(xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    return torch.stack(rows, dim=1).view(-1, 4, 4)  # (N, 16) -> (N, 4, 4)


def _rotations(quaternions: Tensor) -> Tensor:
    """Returns the rotation matrices, (N, 3, 3), of unit quaternions w x y z, (N, 4)."""
    w, x, y, z = quaternions.unbind(dim=1)
    rows = (
        *(w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return torch.stack(rows, dim=1).view(-1, 3, 3)  # (N, 9) -> (N, 3, 3)
