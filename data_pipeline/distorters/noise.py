"""Distorters that draw the error of each joint independently."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_pipeline.distorters.distorter import Distorter, TrainingSamples, check_joints
from data_pipeline.layout import samples_first, samples_last, squared_lengths
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import HANDS17, Skeleton
from data_pipeline.tables import Table, error_stats_file


@dataclass(frozen=True, kw_only=True)
class GaussianDistorter(Distorter):
    """Adds independent normal noise to every coordinate. Give exactly one of the two attributes.

    Attributes:
        std_mm: The standard deviation of all coordinates, mm; the mean is 0.
        stats_name: The name of error statistics, `NAME_error_stats.json`, with the mean and the standard deviation of
            each joint and axis.
    """

    std_mm: float | None = None
    stats_name: str | None = None

    def __post_init__(self) -> None:
        if (self.std_mm is None) == (self.stats_name is None):
            given = "neither" if self.std_mm is None else "both"
            raise ValueError(f"give exactly one of std_mm and stats_name, not {given}")
        if self.std_mm is not None and not 0 <= self.std_mm < math.inf:
            raise ValueError(f"std_mm must be finite and at least 0, not {self.std_mm}")

    @property
    def makes_input(self) -> bool:
        """Whether there is any noise."""
        return self.std_mm is None or self.std_mm > 0

    @property
    def tables(self) -> tuple[str, ...]:
        """The file of the statistics, if there is one."""
        return () if self.stats_name is None else (error_stats_file(self.stats_name),)

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:
        """Refuses statistics of another skeleton."""
        for file in self.tables:
            check_joints(file, tables[file], skeleton)

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the inputs plus noise."""
        noise = _normal(samples.poses, generator)  # (N, J, 3)
        if self.std_mm is not None:
            return samples.poses.add(noise, alpha=self.std_mm)
        (file,) = self.tables
        mean, std = samples.tables[file].to(noise.dtype)  # (J, 3) each
        return noise.mul_(std).add_(mean).add_(samples.poses)


@dataclass(frozen=True, kw_only=True)
class LayeredGaussianDistorter(Distorter):
    """Moves every joint by a vector whose size is drawn in layers, and confuses some joints with others.

    The layer of each joint is drawn with the layers' probabilities. The joint is moved by the layer's radius in a
    uniformly random direction, plus normal noise. Most errors of a backbone are small and some are large; the layers
    define how many.

    Then joints are confused: with probability `confusion_prob` a joint is moved, with some noise, to the label of
    another joint of the same kind, for example an MCP joint to another MCP joint. `hands17_confusions.csv` has a row of
    probabilities for each joint, chosen by hand so that adjacent fingers are likelier than distant ones. The wrist is
    never confused. Skeletons other than HANDS17 have no such table.

    Attributes:
        layers: For each layer its probability, the radius in mm, and the standard deviation of each coordinate in mm.
            The probabilities sum to 1.
        confusion_prob: The probability that a joint is confused.
        confusion_std_mm: The standard deviation of each coordinate of a confused joint, mm.
    """

    layers: Sequence[tuple[float, float, float]]
    confusion_prob: float = 0.0
    confusion_std_mm: float = 5.0

    def __post_init__(self) -> None:
        try:
            layers = tuple((float(p), float(radius), float(std)) for p, radius, std in self.layers)
        except (TypeError, ValueError) as error:
            raise ValueError(f"layers must be triples (probability, radius_mm, std_mm), not {self.layers!r}") from error
        if not all(0 <= number < math.inf for layer in layers for number in layer):
            raise ValueError(f"the numbers of layers must be finite and at least 0, not {self.layers!r}")
        total = sum(p for p, _, _ in layers)
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"the probabilities of layers must sum to 1, not to {total:g}: {self.layers!r}")
        if not 0 <= self.confusion_prob <= 1:
            raise ValueError(f"confusion_prob must be from 0 to 1, not {self.confusion_prob}")
        if not 0 <= self.confusion_std_mm < math.inf:
            raise ValueError(f"confusion_std_mm must be finite and at least 0, not {self.confusion_std_mm}")
        object.__setattr__(self, "layers", layers)

    @property
    def makes_input(self) -> bool:
        """Whether any joint is moved."""
        return self.confusion_prob > 0 or any(p > 0 and radius + std > 0 for p, radius, std in self.layers)

    @property
    def wants_samples_last(self) -> bool:
        """Whether joints are confused; without confusions only the inputs need that layout, not the labels."""
        return self.confusion_prob > 0

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:
        """Refuses to confuse joints of another skeleton than HANDS17."""
        if self.confusion_prob > 0 and skeleton.joint_names != HANDS17.joint_names:
            raise ValueError(
                "only for the HANDS17 skeleton it is known which joints are confused, but the training set has the "
                f"{skeleton.name} skeleton; set confusion_prob to 0"
            )

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the distorted inputs, (N, J, 3)."""
        n_samples, n_joints, _ = samples.poses.shape
        places = samples_last(samples.poses)  # (N, J, 3) -> (J, 3, N)
        drawn: dict[str, Any] = {"generator": generator, "device": places.device, "dtype": places.dtype}
        normal = torch.randn((n_joints, 3, n_samples), **drawn)  # (J, 3, N)
        uniform = torch.rand((n_joints, n_samples), **drawn)  # (J, N)
        if self.confusion_prob == 0:
            moves = normal.mul_(self._displacement_factors(normal, uniform).unsqueeze(1))  # (J, 3, N)
            return samples_first(moves.add_(places))  # (J, 3, N) -> (N, J, 3)

        labels = samples_last(samples.labels)  # (N, J, 3) -> (J, 3, N)
        thresholds, others = _confusions(self.confusion_prob, places.device, places.dtype)  # (K, J, 1), (K, J)
        reached = [_reached(uniform, threshold) for threshold in thresholds]  # K times (J, N)
        # Only one term of the sum is not zero: faster than `where` or `gather`.
        places = places * (1 - reached[0]).unsqueeze(1)  # (J, 3, N)
        for other, here, beyond in zip(others, reached, [*reached[1:], None], strict=True):
            is_here = here if beyond is None else here - beyond  # (J, N)
            places.addcmul_(labels.index_select(0, other), is_here.unsqueeze(1))
        # Below the first threshold the number is still uniform; above it the layer no longer matters.
        first = thresholds[0].clamp(min=torch.finfo(uniform.dtype).tiny)  # (J, 1)
        stretch = self._displacement_factors(normal, uniform.div_(first).clamp_(max=1))  # (J, N)
        stretch.lerp_(torch.full_like(stretch, self.confusion_std_mm), reached[0])
        return samples_first(places.addcmul_(normal, stretch.unsqueeze(1)))  # (J, 3, N) -> (N, J, 3)

    def _displacement_factors(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """Returns the factors, (J, N), that turn standard normal vectors, (J, 3, N), into the displacements of joints.

        The sum of a vector of length r in a uniformly random direction and normal noise s·v has a uniformly random
        direction, like v. With q = r / |v| its length is |v| · √(s² + 2·s·q·cos + q²), where the cosine of the angle
        between the two is uniform (Archimedes). Direction and length of a normal vector are independent, so v times
        this factor has the right distribution.

        One number from 0 to 1 determines layer and cosine: its position within the layer's interval is uniform too.

        Args:
            normal: The vectors v.
            uniform: Numbers from 0 to 1, (J, N).
        """
        layers = [layer for layer in self.layers if layer[0] > 0]
        ends = list(accumulate(p for p, _, _ in layers))
        # For each layer r, s², and slope and intercept of 2·s·cos as a linear function of the numbers.
        lines = [
            (radius, std**2, 4 * std / p, -2 * std * (2 * (end - p) / p + 1))
            for (p, radius, std), end in zip(layers, ends, strict=True)
        ]
        radius, variance, slope, start = (torch.full_like(uniform, value) for value in lines[0])  # (J, N) each
        for end, (before, after) in zip(ends, pairwise(lines), strict=False):
            beyond = _reached(uniform, end)  # (J, N)
            for values, one, other in zip((radius, variance, slope, start), before, after, strict=True):
                values.add_(beyond, alpha=other - one)
        # Vectors shorter than 1e-15 are clamped: they have no direction, and the square of their inverse overflows.
        q = squared_lengths(normal).clamp_(min=1e-30).rsqrt_().mul_(radius)  # (J, N)
        return start.addcmul_(slope, uniform).add_(q).mul_(q).add_(variance).clamp_(min=0).sqrt_()


def _reached(numbers: Tensor, threshold: Tensor | float) -> Tensor:
    """Returns 1 for numbers that reach a threshold, else 0, in their own dtype: twice as fast as bool."""
    return torch.ge(numbers, threshold, out=torch.empty_like(numbers))


def _normal(poses: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(poses.shape, generator=generator, device=poses.device, dtype=poses.dtype)  # (N, J, 3)


@lru_cache(maxsize=64)
def _confusions(probability: float, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns the joints that a joint is confused with, for numbers from 0 to 1.

    Args:
        probability: The probability of a confusion.
        device: The device of the tensors.
        dtype: The dtype of the thresholds.

    Returns:
        Thresholds, (K, J, 1), ascending, and joints, (K, J): a joint moves to the one that belongs to the last
        threshold that its number reaches.
    """
    table = _confusion_table()  # (J, J)
    np.fill_diagonal(table, 0)  # a joint confused with itself is not confused
    n_others = int((table > 0).sum(axis=1).max())  # K
    others = np.argsort(-table, axis=1, kind="stable")[:, :n_others]  # (J, K), the likeliest first
    shares = np.take_along_axis(table, others, axis=1)  # (J, K)
    steps = np.concatenate([1 - probability * shares.sum(axis=1, keepdims=True), probability * shares[:, :-1]], axis=1)
    thresholds = torch.from_numpy(np.cumsum(steps, axis=1).T[..., None].copy())  # (J, K) -> (K, J, 1)
    return thresholds.to(device, dtype), torch.from_numpy(others.T.copy()).to(device)


def _confusion_table() -> npt.NDArray[np.float64]:
    """Returns the probability that the joint of each row is confused with the joint of each column, (J, J)."""
    with Path(__file__).with_name("hands17_confusions.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["joint"]: row for row in csv.DictReader(file)}
    names = HANDS17.joint_names
    return np.array([[float(rows[name][other]) for other in names] for name in names])
