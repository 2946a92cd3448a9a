"""Distorters that use recorded errors of a backbone."""

import math
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data_pipeline.batch import rows
from data_pipeline.distorters.distorter import Distorter, TrainingSamples, check_joints
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import Skeleton
from data_pipeline.tables import NeighborTable, Table, errors_file, label_keys, neighbors_file


@dataclass(frozen=True, kw_only=True)
class ErrorBankDistorter(Distorter):
    """Adds to each hand the whole error of a sample drawn from a bank, times a normally distributed strength.

    The errors of a hand's joints are thus correlated, as those of a backbone are.

    Attributes:
        bank_name: The name of the recorded errors, `NAME_errors.pt`.
        strength_mean: The mean of the strength.
        strength_std: The standard deviation of the strength.
    """

    bank_name: str
    strength_mean: float = 1.0
    strength_std: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength_mean):
            raise ValueError(f"strength_mean must be finite, not {self.strength_mean}")
        if not 0 <= self.strength_std < math.inf:
            raise ValueError(f"strength_std must be finite and at least 0, not {self.strength_std}")

    @property
    def makes_input(self) -> bool:
        """Whether the strength is not always 0."""
        return self.strength_mean != 0 or self.strength_std > 0

    @property
    def tables(self) -> tuple[str, ...]:
        """The file of the bank."""
        return (errors_file(self.bank_name),)

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:
        """Refuses errors of another skeleton."""
        for file in self.tables:
            check_joints(file, tables[file], skeleton)

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the inputs plus errors."""
        poses = samples.poses
        (file,) = self.tables
        bank = samples.tables[file]  # (M, J, 3)
        drawn = torch.randint(len(bank), (len(poses),), generator=generator, device=poses.device)  # (N,)
        normal = torch.randn((len(poses), 1, 1), generator=generator, device=poses.device, dtype=poses.dtype)
        strengths = normal.mul_(self.strength_std).add_(self.strength_mean)  # (N, 1, 1)
        return torch.addcmul(poses, rows(bank, drawn).to(poses.dtype), strengths)


@dataclass(frozen=True, kw_only=True)
class _SkewNormalStrength(Distorter, ABC):
    """A distorter that multiplies errors by skew-normal strengths.

    The distribution is `scipy.stats.skewnorm(strength_shape, strength_location, strength_scale)` (Azzalini, "A class of
    distributions which includes the normal ones", Scand. J. Statist. 12, 1985).
    """

    strength_location: float = 1.0
    strength_scale: float = 0.25
    strength_shape: float = 0.0

    def __post_init__(self) -> None:
        for name in ("strength_location", "strength_shape"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, not {getattr(self, name)}")
        if not 0 <= self.strength_scale < math.inf:
            raise ValueError(f"strength_scale must be finite and at least 0, not {self.strength_scale}")

    def _strengths(self, poses: Tensor, generator: torch.Generator) -> Tensor:
        """Draws a number for each of N poses, (N, 1, 1)."""
        normal = torch.randn((2, len(poses), 1, 1), generator=generator, device=poses.device, dtype=poses.dtype)
        # With normal u and v, (shape·|u| + v) / √(1 + shape²) is skew-normal.
        scale = self.strength_scale / math.hypot(1, self.strength_shape)
        leaning = normal[0].abs().mul_(self.strength_shape * scale)  # (N, 1, 1)
        return leaning.add_(normal[1], alpha=scale).add_(self.strength_location)


@dataclass(frozen=True, kw_only=True)
class NeighborErrorBankDistorter(_SkewNormalStrength):
    """Adds to each hand the whole error of one of its most similar samples in a bank, times a skew-normal strength.

    A backbone makes similar errors on similar hands. One of the `max_k` nearest samples is drawn, with weights that
    fall linearly from 100 for the nearest to 10 for the farthest.

    Attributes:
        bank_name: The name of the recorded errors, `NAME_errors.pt`.
        neighbors_name: The name of the neighbours of the training set's samples in that bank, `NAME_neighbors.pt`.
        max_k: The number of neighbours to draw from.
        strength_location: The location of the strength; its mean if the shape is 0.
        strength_scale: The scale of the strength; its standard deviation if the shape is 0.
        strength_shape: The skewness parameter: 0 is normal, above 0 large strengths are likelier than small ones.
    """

    bank_name: str
    neighbors_name: str
    max_k: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.max_k, int) or self.max_k < 1:
            raise ValueError(f"max_k must be an int of at least 1, not {self.max_k}")

    @property
    def makes_input(self) -> bool:
        """Whether the strength is not always 0."""
        return self.strength_location != 0 or self.strength_scale > 0

    @property
    def tables(self) -> tuple[str, ...]:
        """The files of the bank and of the neighbours."""
        return errors_file(self.bank_name), neighbors_file(self.neighbors_name)

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:
        """Refuses errors of another skeleton, and neighbours in another bank or of another training set."""
        bank_file, neighbors_file = self.tables
        bank, neighbors = tables[bank_file], tables[neighbors_file]
        check_joints(bank_file, bank, skeleton)
        assert isinstance(neighbors, NeighborTable)
        if neighbors.n_bank != len(bank.array):
            raise ValueError(
                f"{neighbors_file} was made for a bank of {neighbors.n_bank} samples, but {bank_file} has "
                f"{len(bank.array)}"
            )
        made_for, has = neighbors.bank_keys, bank.label_keys
        if made_for is not None and has is not None and not np.array_equal(made_for, has):
            raise ValueError(f"{neighbors_file} was made for another bank: the labels of {bank_file} differ")
        n_rows, n_neighbors = neighbors.array.shape
        keys = label_keys(labels[:n_rows])
        is_other = keys != neighbors.label_keys[: len(keys)]  # (n,)
        if is_other.any():
            sample = int(np.argmax(is_other))
            raise ValueError(f"{neighbors_file} was made for another training set: sample {sample} has another label")
        if n_rows < len(labels):
            raise ValueError(
                f"{neighbors_file} was made for a smaller training set: it has neighbours for {n_rows} samples, but "
                f"the set has {len(labels)}"
            )
        if n_neighbors < self.max_k:
            raise ValueError(
                f"{neighbors_file} has {n_neighbors} neighbours for each sample, fewer than max_k = {self.max_k}"
            )

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the inputs plus errors."""
        poses = samples.poses
        bank, neighbors = (samples.tables[file] for file in self.tables)  # (M, J, 3), (N of the set, K)
        uniform = torch.rand(len(poses), generator=generator, device=poses.device)  # (N,)
        ranks = torch.bucketize(uniform, _rank_thresholds(self.max_k, poses.device), right=True)  # (N,)
        places = samples.indices * neighbors.shape[1] + ranks  # (N,)
        drawn = neighbors.flatten().index_select(0, places)  # (N,)
        return torch.addcmul(poses, rows(bank, drawn).to(poses.dtype), self._strengths(poses, generator))


@dataclass(frozen=True, kw_only=True)
class InterpolationDistorter(_SkewNormalStrength):
    """Scales the input's own error: label + strength · (input − label), with a skew-normal strength.

    Attributes:
        strength_location: The location of the strength; its mean if the shape is 0.
        strength_scale: The scale of the strength; its standard deviation if the shape is 0.
        strength_shape: The skewness parameter: 0 is normal, above 0 large strengths are likelier than small ones.
    """

    makes_input = False

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the inputs with scaled errors."""
        return samples.labels.lerp(samples.poses, self._strengths(samples.poses, generator))


@lru_cache(maxsize=64)
def _rank_thresholds(max_k: int, device: torch.device) -> Tensor:
    """Returns the probability of a smaller rank, for all ranks except the first, (max_k - 1,)."""
    shares = np.cumsum(np.linspace(100, 10, max_k))
    return torch.from_numpy((shares[:-1] / shares[-1]).astype(np.float32)).to(device)
