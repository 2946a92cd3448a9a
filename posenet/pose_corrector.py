"""Trained correctors for prediction: millimetres in, millimetres out."""

from collections.abc import Sequence

from torch import Tensor, nn

from data_pipeline.normalizers import Normalizer


class PoseCorrector(nn.Module):
    """A trained model with its normalizer.

    Args:
        model: The model; it works in normalised space.
        normalizer: The fitted normalizer of the training; None for none.
    """

    def __init__(self, model: nn.Module, normalizer: Normalizer | None) -> None:
        super().__init__()
        self.model = model
        self.normalizer = normalizer

    def forward(self, poses_mm: Tensor) -> Tensor:
        """Returns the corrected poses, (N, J, 3), mm, of `poses_mm`, (N, J, 3), mm, camera frame."""
        if self.normalizer is None:
            # A copy: a model that works in place must not change the caller's poses.
            corrected: Tensor = self.model(poses_mm.clone())
            return corrected
        transform = self.normalizer.transform(poses_mm)
        return transform.denormalize(self.model(transform.normalize(poses_mm)))


class Ensemble(nn.Module):
    """The mean of several correctors.

    Args:
        correctors: At least one.
    """

    def __init__(self, correctors: Sequence[PoseCorrector]) -> None:
        super().__init__()
        self.correctors = nn.ModuleList(correctors)

    def forward(self, poses_mm: Tensor) -> Tensor:
        """Returns the mean of the corrected poses, (N, J, 3), mm, of `poses_mm`, (N, J, 3), mm, camera frame."""
        first, *others = self.correctors
        total: Tensor = first(poses_mm)
        for corrector in others:
            total = total + corrector(poses_mm)
        return total / len(self.correctors)
