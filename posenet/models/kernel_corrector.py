"""Kernel ridge regression of the correction on the pose."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data_pipeline.skeleton import Skeleton
from posenet.models.corrector import ClosedFormCorrector
from posenet.models.layers import check_count, check_positive

_JITTER = 1e-6
"""Added to the kernel of each centre with itself, so that similar centres have a Cholesky factor; it moves a correction
by about 1e-6 / ridge of itself."""


class KernelCorrector(ClosedFormCorrector):
    """A weighted sum of Gaussian kernels around training poses, the centres; the weights are a closed-form solution.

    With the centres c_1 … c_M, the correction of a pose x is f(x) = Σ_m k(x, c_m) a_m, where

        k(x, c) = exp(−d(x, c)² / (2 · bandwidth²)),  d² = mean over the joints of their squared distances,

    and a minimises Σ_i |label_i − x_i − f(x_i)|² + ridge · tr(aᵀ K a), with the kernels K of the centres among
    themselves. The first samples of the first epoch, whose order is random, become the centres. If all samples are
    centres, this is kernel ridge regression, the posterior mean of a Gaussian process (Rasmussen and Williams,
    "Gaussian Processes for Machine Learning", 2006, eq. 2.25). With fewer centres it is the subset of regressors (eq.
    8.14), also known as the Nyström approximation. Far from all centres the correction is zero.

    One epoch fits the model. With distorters or augmenters, further epochs add new variants of the samples: the sum
    over i is the mean over epochs of the sum over an epoch's samples.

    Args:
        skeleton: The skeleton of the poses; any.
        bandwidth: The distance d at which the kernel is exp(−1/2), in the unit of the normalised poses; in mm with a
            normalizer that keeps mm.
        ridge: The variance of the errors that the pose does not explain, relative to that of the corrections that it
            does: larger values shrink the correction.
        n_centres: M. Time and memory of a fit grow with M³ and M²; a checkpoint has 8·M² bytes.
    """

    def __init__(self, skeleton: Skeleton, *, bandwidth: float, ridge: float, n_centres: int = 512) -> None:
        super().__init__(skeleton)
        check_positive("bandwidth", bandwidth)
        check_positive("ridge", ridge)
        check_count("n_centres", n_centres)
        self.bandwidth = bandwidth
        self.ridge = ridge
        self.n_centres = n_centres
        coordinates = 3 * skeleton.n_joints
        # In float64, since similar centres have large weights of opposite signs. Centres without a sample have the
        # weight zero.
        self.register_buffer("centres", torch.zeros(n_centres, coordinates, dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(n_centres, coordinates, dtype=torch.float64))
        self._n_epochs = 0
        self._gram: Tensor | None = None  # Σ kᵀk over the samples of all epochs, (n, n) for n ≤ M centres
        self._moments: Tensor | None = None  # Σ kᵀ(label − pose), (n, 3J)
        self._waiting: list[tuple[Tensor, Tensor]] = []  # batches before there are enough samples to choose centres

    def correction(self, poses: Tensor) -> Tensor:
        """Returns the correction to add to `poses`, (N, J, 3)."""
        correction = self._kernels(poses, self.get_buffer("centres")) @ self.get_buffer("weights")  # (N, M) -> (N, 3J)
        return correction.to(poses.dtype).view_as(poses)  # (N, 3J) -> (N, J, 3)

    def add(self, poses: Tensor, labels: Tensor) -> None:
        """Adds the samples of a batch to the sums; poses and labels are (N, J, 3), in the same space."""
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
        n = len(self._gram)
        centres = self.get_buffer("centres")[:n]
        identity = torch.eye(n, dtype=torch.float64, device=centres.device)
        # With K = LLᵀ and a = L⁻ᵀb the penalty is ridge · |b|², so b is the solution of a well-conditioned system.
        lower = torch.linalg.cholesky(self._kernels(centres, centres) + _JITTER * identity)  # (n, n)

        inverse = torch.linalg.solve_triangular(lower, identity, upper=False)  # (n, n), L⁻¹
        gram = inverse @ self._gram @ inverse.mT / self._n_epochs  # (n, n)
        moments = inverse @ self._moments / self._n_epochs  # (n, 3J)
        factor = torch.linalg.cholesky(gram + self.ridge * identity)  # (n, n)
        self.get_buffer("weights")[:n] = inverse.mT @ torch.cholesky_solve(moments, factor)  # (n, 3J)

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
        poses = torch.cat([poses for poses, _ in self._waiting])[: self.n_centres]  # (n, J, 3)
        centres = self.get_buffer("centres")
        n = len(poses)
        centres[:n] = poses.flatten(1)
        self._gram, self._moments = centres.new_zeros(n, n), centres.new_zeros(n, centres.shape[1])
        for batch in self._waiting:
            self._add(*batch)
        self._waiting.clear()

    def _add(self, poses: Tensor, labels: Tensor) -> None:
        assert self._gram is not None
        assert self._moments is not None
        kernels = self._kernels(poses, self.get_buffer("centres")[: len(self._gram)])  # (N, n)
        self._gram.addmm_(kernels.mT, kernels)
        self._moments.addmm_(kernels.mT, (labels - poses).flatten(1).double())

    def _kernels(self, poses: Tensor, centres: Tensor) -> Tensor:
        """Returns the kernels of poses, (N, J, 3) or (N, 3J), and centres, (n, 3J): (N, n), float64."""
        x = poses.flatten(1).double()  # (N, 3J)
        squared = x.square().sum(dim=1, keepdim=True) - 2 * x @ centres.mT + centres.square().sum(dim=1)  # (N, n)
        kernels: Tensor = (squared.clamp(min=0) / (-2 * self.skeleton.n_joints * self.bandwidth**2)).exp()
        return kernels
