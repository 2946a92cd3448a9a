"""Trained correctors for prediction: millimetres in, millimetres out."""

from collections.abc import Sequence

from torch import Tensor, nn

from data_pipeline.batch import Window, fused_mean, fuses, normalized_windows, window_of
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

    @property
    def window(self) -> Window | None:
        """The window of a model over time; None for a model of single frames."""
        return window_of(self.model)

    @property
    def fuses_subsets(self) -> bool:
        """Whether the model sees all subsets."""
        return fuses(self.model)

    def forward(self, poses_mm: Tensor) -> Tensor:
        """Returns the corrected poses, (N, J, 3), mm, of `poses_mm`, (N, J, 3), mm, camera frame.

        For a model over time, the poses are successive frames of one sequence. For a model that fuses subsets they are
        (N, S, J, 3), in the order of the training set's subsets.
        """
        if self.window is None:
            # A copy: a model that works in place must not change the caller's poses.
            inputs = poses_mm.clone()  # (N, J, 3)
        else:
            inputs = self.window.of_run(poses_mm)  # (N, W, J, 3) or (N, W, S, J, 3)
        if self.window is not None and self.fuses_subsets:
            inputs = inputs.transpose(1, 2)  # (N, S, W, J, 3)
            poses_mm = fused_mean(inputs, self.window)  # (N, J, 3)
        if self.normalizer is None:
            corrected: Tensor = self.model(inputs)
            return corrected
        transform = self.normalizer.transform(poses_mm)
        inputs = transform.normalize(poses_mm) if self.window is None else normalized_windows(inputs, transform)
        return transform.denormalize(self.model(inputs))


class Ensemble(nn.Module):
    """The mean of several correctors.

    Args:
        correctors: At least one.
    """

    def __init__(self, correctors: Sequence[PoseCorrector]) -> None:
        super().__init__()
        self.correctors = nn.ModuleList(correctors)

    @property
    def window(self) -> Window | None:
        """The window of the models over time; None for models of single frames."""
        first = self.correctors[0]
        return first.window if isinstance(first, PoseCorrector) else None

    @property
    def fuses_subsets(self) -> bool:
        """Whether the models see all subsets."""
        first = self.correctors[0]
        return isinstance(first, PoseCorrector) and first.fuses_subsets

    def forward(self, poses_mm: Tensor) -> Tensor:
        """Returns the mean of the corrected poses, (N, J, 3), mm, of `poses_mm`, as `PoseCorrector` does."""
        first, *others = self.correctors
        total: Tensor = first(poses_mm)
        for corrector in others:
            total = total + corrector(poses_mm)
        return total / len(self.correctors)
