"""Kernel ridge regression of the correction on the pose."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from data_pipeline.batch import Window
from data_pipeline.normalizers import PoseTransform, ViewpointNormalizer
from data_pipeline.skeleton import Skeleton
from posenet import errors
from posenet.models.corrector import ClosedFormCorrector
from posenet.models.gaussian_smoother import GaussianSmoother
from posenet.models.layers import check_count, check_positive

AXES = ("input", "palm")
"""The axes in which poses may be compared: those of the normalised input, and those of the palm."""

_HAND_FRAMES = range(-200, 201, 25)
"""The frames that the hand's size is estimated from, by their distance from the corrected one: far enough apart for
different errors, and few enough to be read for each pose."""

_CAUSAL_HAND_FRAMES = range(-400, 1, 25)

_JITTER = 1e-6
"""Added to the kernel of each centre with itself, so that similar centres have a Cholesky factor; it moves a correction
by about 1e-6 / ridge of itself."""


class KernelCorrector(ClosedFormCorrector):
    """A weighted sum of Gaussian kernels around training poses, the centres; the weights are a closed-form solution.

    With the centres c_1 … c_M, the correction of a pose x is f(x) = Σ_m k(x, c_m) a_m, where

        k(x, c) = exp(−d(x, c)² / (2 · bandwidth²)),  d² = mean over the joints of their squared distances,

    and a minimises `Σ_i |label_i − x_i − f(x_i)|² + ridge · tr(aᵀ K a)`, with the kernels K of the centres among
    themselves. The first samples of the first epoch, whose order is random, become the centres. If all samples are
    centres, this is kernel ridge regression, the posterior mean of a Gaussian process (Rasmussen and Williams,
    "Gaussian Processes for Machine Learning", 2006, eq. 2.25). With fewer centres it is the subset of regressors (eq.
    8.14), also known as the Nyström approximation. Far from all centres the correction is zero.

    One epoch fits the model. With distorters or augmenters, further epochs add new variants of the samples: the sum
    over i is the mean over epochs of the sum over an epoch's samples.

    A backbone errs differently on each person, and people differ in the size of their hands. With `hand_bandwidth`, a
    frame is near a centre only if their hands have about the same size: the mean lengths of their bones over 17 frames
    around each, up to 200 frames away. The kernel is multiplied by exp(−h² / (2 · hand_bandwidth²)), with the mean h²
    over the bones of the squared difference of these lengths. So a hand of another size than any in the training data
    is left as it is, or only smoothed.

    Args:
        skeleton: The skeleton of the poses; any, but with a palm for the axes of the palm.
        bandwidth: The distance d at which the kernel is exp(−1/2), in the unit of the normalised poses; in mm with a
            normalizer that keeps mm.
        ridge: The variance of the errors that the pose does not explain, relative to that of the corrections that it
            does: larger values shrink the correction.
        n_centres: M. Time and memory of a fit grow with M³ and M²; a checkpoint has 8·M² bytes for each of the axes.
        axes: One or both of `AXES`. In the axes of the palm, those of `ViewpointNormalizer`, a pose seen from another
            side is the same pose. With both, the correction is the mean of two regressions, which often transfers
            better to another recording than either.
        sigma: First smooth the poses over time as `GaussianSmoother` does, with this width in frames; None does not.
        hand_bandwidth: The difference of hand sizes at which the kernel is exp(−1/2), in the unit of the normalised
            poses; None ignores the size of the hand.
        causal: See only the frame itself and those before it; the size of the hand then comes from up to 400 frames
            before.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        bandwidth: float,
        ridge: float,
        n_centres: int = 512,
        axes: Sequence[str] = ("input",),
        sigma: float | None = None,
        hand_bandwidth: float | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__(skeleton)
        check_positive("bandwidth", bandwidth)
        check_positive("ridge", ridge)
        if hand_bandwidth is not None:
            check_positive("hand_bandwidth", hand_bandwidth)
        check_count("n_centres", n_centres)
        if not axes or not set(axes) <= set(AXES) or len(set(axes)) < len(axes):
            raise ValueError(f"axes must have one or both of {', '.join(AXES)}, not {list(axes)}")
        self.bandwidth = bandwidth
        self.ridge = ridge
        self.n_centres = n_centres
        self.axes = axes
        self.hand_bandwidth = hand_bandwidth
        self.smoother = None if sigma is None else GaussianSmoother(skeleton, sigma=sigma, causal=causal)
        self.window = None if self.smoother is None else self.smoother.window
        if hand_bandwidth is not None:
            near = Window(0, 0) if self.window is None else self.window
            self.window = replace(near, distant=_CAUSAL_HAND_FRAMES if causal else _HAND_FRAMES)
        self._palm = ViewpointNormalizer(skeleton) if "palm" in axes else None
        coordinates = 3 * skeleton.n_joints
        n_lengths = 0 if hand_bandwidth is None else len(skeleton.bones)
        # In float64, since similar centres have large weights of opposite signs. Centres without a sample have the
        # weight zero. A is the number of axes.
        self.register_buffer("centres", torch.zeros(len(axes), n_centres, coordinates + n_lengths, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(len(axes), n_centres, coordinates, dtype=torch.float64))
        self._n_epochs = 0
        self._gram: Tensor | None = None  # Σ kᵀk over the samples of all epochs, (A, n, n) for n ≤ M centres
        self._moments: Tensor | None = None  # Σ kᵀ(label − pose), (A, n, 3J)
        self._waiting: list[tuple[Tensor, Tensor]] = []  # batches before there are enough samples to choose centres

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3), or to those of windows, (N, W, J, 3): (N, J, 3)."""
        smoothed, points, turns = self._points(poses)
        kernels = self._kernels(points, self.get_buffer("centres"))  # (A, N, M)
        found = (kernels @ self.get_buffer("weights")).to(poses.dtype)  # (A, N, 3J)
        corrections = [
            turned.view_as(smoothed) if turn is None else turn.denormalize(turned.view_as(smoothed))
            for turned, turn in zip(found, turns, strict=True)
        ]  # (N, J, 3) each
        correction: Tensor = sum(corrections[1:], corrections[0]) / len(corrections)
        return correction if self.smoother is None else correction + (smoothed - self.corrected_frame(poses))

    def add(self, poses: Tensor, labels: Tensor) -> None:
        """Adds the samples of a batch to the sums; inputs and labels, (N, J, 3), in the same space."""
        if self._gram is not None:
            self._add(poses, labels)
            return
        self._waiting.append((poses, labels))
        if sum(len(waiting) for waiting, _ in self._waiting) >= self.n_centres:
            self._choose_centres()

    def fit(self) -> None:
        """Computes the weights of the centres from the samples of all epochs so far."""
        if self._gram is None:
            self._choose_centres()
        assert self._gram is not None
        assert self._moments is not None
        self._n_epochs += 1
        n = self._gram.shape[1]
        centres = self.get_buffer("centres")[:, :n]  # (A, n, 3J)
        identity = torch.eye(n, dtype=torch.float64, device=centres.device)
        # With K = LLᵀ and a = L⁻ᵀb the penalty is ridge · |b|², so b is the solution of a well-conditioned system.
        lower = torch.linalg.cholesky(self._kernels(centres, centres) + _JITTER * identity)  # (A, n, n)

        inverse = torch.linalg.solve_triangular(lower, identity, upper=False)  # (A, n, n), L⁻¹
        gram = inverse @ self._gram @ inverse.mT / self._n_epochs  # (A, n, n)
        moments = inverse @ self._moments / self._n_epochs  # (A, n, 3J)
        factor = torch.linalg.cholesky(gram + self.ridge * identity)  # (A, n, n)
        self.get_buffer("weights")[:, :n] = inverse.mT @ torch.cholesky_solve(moments, factor)  # (A, n, 3J)

    def sums(self) -> dict[str, Any]:
        """Returns what the next epoch needs in addition to the weights, for a checkpoint between two epochs."""
        return {"n_epochs": self._n_epochs, "gram": self._gram, "moments": self._moments}

    def load_sums(self, sums: Mapping[str, Any]) -> None:
        """Continues from the result of `sums`; the weights are loaded separately."""
        device = self.get_buffer("centres").device
        self._n_epochs = sums["n_epochs"]
        self._gram, self._moments = (
            None if sums[name] is None else sums[name].to(device, copy=True) for name in ("gram", "moments")
        )
        self._waiting.clear()

    def _choose_centres(self) -> None:
        poses = torch.cat([poses for poses, _ in self._waiting])[: self.n_centres]  # (n, J, 3) or (n, W, J, 3)
        centres = self.get_buffer("centres")
        n = len(poses)
        centres[:, :n] = self._points(poses)[1]
        self._gram = centres.new_zeros(len(centres), n, n)
        self._moments = centres.new_zeros(len(centres), n, self.get_buffer("weights").shape[2])
        for batch in self._waiting:
            self._add(*batch)
        self._waiting.clear()

    def _add(self, poses: Tensor, labels: Tensor) -> None:
        assert self._gram is not None
        assert self._moments is not None
        smoothed, points, turns = self._points(poses)
        kernels = self._kernels(points, self.get_buffer("centres")[:, : self._gram.shape[1]])  # (A, N, n)
        missing = labels - smoothed  # (N, J, 3)
        in_axes = [missing if turn is None else turn.normalize(missing) for turn in turns]  # (N, J, 3) each
        self._gram += kernels.mT @ kernels
        self._moments += kernels.mT @ torch.stack(in_axes).flatten(2).double()

    def _smoothed(self, poses: Tensor) -> Tensor:
        """Returns the poses that are compared and corrected, (N, J, 3)."""
        if self.smoother is None:
            return self.corrected_frame(poses)
        smoothed: Tensor = self.smoother(poses[:, : self.smoother.window.size])
        return smoothed

    def _points(self, poses: Tensor) -> tuple[Tensor, Tensor, list[PoseTransform | None]]:
        """Returns what the fit needs of poses, (N, J, 3), or of their windows, (N, W, J, 3).

        Returns:
            The poses that are corrected, (N, J, 3); what the kernels compare, (A, N, D), float64, with D = 3J + B if
            they compare the size of the hand and 3J otherwise; and what turns vectors into the axes.
        """
        smoothed = self._smoothed(poses)  # (N, J, 3)
        points, turns = self._in_axes(smoothed)  # (A, N, 3J)
        if self.hand_bandwidth is None:
            return smoothed, points, turns
        assert self.window is not None
        distant = poses[:, self.window.n_near :]  # (N, F, J, 3)
        lengths = errors.bone_lengths(distant.flatten(0, 1), self.skeleton)  # (N·F, B)
        lengths = lengths.view(*distant.shape[:2], lengths.shape[1]).double().mean(dim=1)  # (N, B)
        # In units in which d², the mean over the joints, and h², the mean over the bones, have the same bandwidth.
        unit = math.sqrt(self.skeleton.n_joints / lengths.shape[1]) * self.bandwidth / self.hand_bandwidth
        return smoothed, torch.cat([points, (lengths * unit).expand(len(points), -1, -1)], dim=2), turns

    def _in_axes(self, poses: Tensor) -> tuple[Tensor, list[PoseTransform | None]]:
        """Returns poses, (N, J, 3), in each of the axes, (A, N, 3J), float64, and what turns vectors into them."""
        points: list[Tensor] = []
        turns: list[PoseTransform | None] = []
        for axes in self.axes:
            if axes == "palm":
                assert self._palm is not None
                transform = self._palm.transform(poses)
                points.append(transform.normalize(poses))
                turns.append(PoseTransform(torch.zeros_like(transform.origin), rotation=transform.rotation))
            else:
                points.append(poses)
                turns.append(None)
        return torch.stack(points).flatten(2).double(), turns  # (A, N, J, 3) -> (A, N, 3J)

    def _kernels(self, points: Tensor, centres: Tensor) -> Tensor:
        """Returns the kernels of points, (A, N, D), and centres, (A, n, D): (A, N, n), float64."""
        squared = points.square().sum(dim=2, keepdim=True) - 2 * points @ centres.mT  # (A, N, n)
        squared = squared + centres.square().sum(dim=2).unsqueeze(1)
        kernels: Tensor = (squared.clamp(min=0) / (-2 * self.skeleton.n_joints * self.bandwidth**2)).exp()
        return kernels
