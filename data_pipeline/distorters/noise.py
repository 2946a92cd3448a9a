"""Distorters that draw every joint's error by itself."""

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
from data_pipeline.layout import samples_first, samples_last
from data_pipeline.pose_dataset import Array
from data_pipeline.skeleton import HANDS17, Skeleton
from data_pipeline.tables import Table, error_stats_file


@dataclass(frozen=True, kw_only=True)
class GaussianDistorter(Distorter):
    """Adds independent normal noise to every coordinate. One of the two attributes is given.

    Attributes:
        std_mm: The standard deviation of all coordinates, mm; the mean is 0.
        stats_name: The name of error statistics, `NAME_error_stats.json`: each joint and axis gets the mean and the
            standard deviation that they tell.
    """

    std_mm: float | None = None
    stats_name: str | None = None

    def __post_init__(self) -> None:
        if (self.std_mm is None) == (self.stats_name is None):
            given = "none of them" if self.std_mm is None else "both"
            raise ValueError(f"give one of std_mm and stats_name, not {given}")
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
    """Moves every joint by a vector whose size is drawn in layers, and puts some on the place of another joint.

    A joint's layer is drawn by its probability. The joint is moved by the layer's radius in a direction that is drawn
    uniformly, and by normal noise. Most errors of a backbone are small and some are large; layers tell how many.

    Then joints are confused: with `confusion_prob` a joint is put, with some noise, where the label of another joint of
    the same kind is, an MCP joint on an MCP joint and so on. Which one it is follows `hands17_confusions.csv`: for a
    joint in each row the probabilities of all joints, chosen by hand so that neighbouring fingers are likelier than
    distant ones. The wrist is never confused. Other skeletons than HANDS17 have no such table.

    Attributes:
        layers: Of each layer the probability, the radius in mm, and the standard deviation of each coordinate in mm.
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

    def check(self, skeleton: Skeleton, tables: Mapping[str, Table], labels: Array) -> None:
        """Refuses to confuse joints of another skeleton than HANDS17."""
        if self.confusion_prob > 0 and skeleton.joint_names != HANDS17.joint_names:
            raise ValueError(
                "which joints are confused is known of the HANDS17 skeleton alone, and the training set has the "
                f"{skeleton.name} skeleton; set confusion_prob to 0"
            )

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the inputs with all joints moved."""
        poses, labels = samples.poses, samples.labels
        n_samples, n_joints, _ = poses.shape
        of_poses: dict[str, Any] = {"generator": generator, "device": poses.device, "dtype": poses.dtype}
        normal = torch.randn((n_joints, 3, n_samples), **of_poses)  # (J, 3, N)
        layer, angle = torch.rand((2, n_joints, n_samples), **of_poses)  # (J, N) each
        if self.confusion_prob > 0:
            thresholds, sources = _confusions(self.confusion_prob, poses.device, poses.dtype)
            rank = _n_reached(layer, thresholds).long()  # (J, N); 0 where the joint is not confused
            # Below the first threshold the number is as uniform as it was, and a joint that is confused needs no layer.
            layer = layer / thresholds[0]  # (J, N)

        # The sum of a vector of length r to anywhere and of normal noise of length n points anywhere. The square of its
        # length is r² + 2·r·n·cos + n², and the cosine of the angle between the two is uniform (Archimedes). Since
        # direction and length of a normal vector are independent, one gives both the sum's direction and n.
        radius, std = self._drawn_layers(layer)  # (J, N) each
        squared = normal.square().sum(dim=1)  # (J, 3, N) -> (J, N)
        noise = squared.sqrt().mul_(std)  # (J, N)
        moved = radius.square().add_(noise.square()).add_(angle.mul_(2).sub_(1).mul_(radius).mul_(noise), alpha=2)
        stretch = moved.clamp_(min=0).div_(squared.clamp_(min=torch.finfo(squared.dtype).tiny)).sqrt_()  # (J, N)
        if self.confusion_prob == 0:
            moves = normal.mul_(stretch.unsqueeze(1))  # (J, 3, N)
            return samples_first(moves.add_(samples_last(poses)))  # (J, 3, N) -> (N, J, 3)

        source = sources.gather(1, rank).unsqueeze(1).expand(-1, 3, -1)  # (J, N) -> (J, 3, N)
        places = torch.cat([samples_last(poses), samples_last(labels)]).gather(0, source)  # (2J, 3, N) -> (J, 3, N)
        stretch.masked_fill_(rank > 0, self.confusion_std_mm)
        return samples_first(places.addcmul_(normal, stretch.unsqueeze(1)))  # (J, 3, N) -> (N, J, 3)

    def _drawn_layers(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Returns radius and standard deviation, mm, of the layers that numbers from 0 to 1 stand for."""
        _, first_radius, first_std = self.layers[0]
        radius, std = torch.full_like(uniform, first_radius), torch.full_like(uniform, first_std)
        ends = accumulate(p for p, _, _ in self.layers)
        for end, (before, after) in zip(ends, pairwise(self.layers), strict=False):
            beyond = _reached(uniform, end)
            radius.add_(beyond, alpha=after[1] - before[1])
            std.add_(beyond, alpha=after[2] - before[2])
        return radius, std


def _reached(numbers: Tensor, threshold: Tensor | float) -> Tensor:
    """Returns 1 for numbers that reach a threshold and 0 for others: of their own kind, twice as fast as a bool."""
    return torch.ge(numbers, threshold, out=torch.empty_like(numbers))


def _n_reached(numbers: Tensor, thresholds: Tensor) -> Tensor:
    """Returns how many of the thresholds, (K, J, 1), numbers (J, N) reach: (J, N)."""
    first, *others = thresholds  # (J, 1) each
    count = _reached(numbers, first)  # (J, N)
    for threshold in others:
        count.add_(_reached(numbers, threshold))
    return count


def _normal(poses: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(poses.shape, generator=generator, device=poses.device, dtype=poses.dtype)  # (N, J, 3)


@lru_cache(maxsize=64)
def _confusions(probability: float, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns what a joint is put on, for numbers from 0 to 1.

    Args:
        probability: That of a confusion.
        device: Where the tensors are to be.
        dtype: The numbers' precision.

    Returns:
        Thresholds, (K, J, 1): so many as a joint's number reaches, that is the rank of what it is put on. And what the
        ranks stand for, (J, K + 1): first the joint itself, by its number j, then the labels of others, by J + j.
    """
    table = _confusion_table()  # (J, J)
    n_joints = len(table)
    np.fill_diagonal(table, 0)  # who is confused with itself is not confused
    n_others = int((table > 0).sum(axis=1).max())  # K
    others = np.argsort(-table, axis=1, kind="stable")[:, :n_others]  # (J, K), the likeliest first
    shares = np.take_along_axis(table, others, axis=1)  # (J, K)
    steps = np.concatenate([1 - probability * shares.sum(axis=1, keepdims=True), probability * shares[:, :-1]], axis=1)
    thresholds = torch.from_numpy(np.cumsum(steps, axis=1).T[..., None].copy())  # (J, K) -> (K, J, 1)
    sources = torch.from_numpy(np.concatenate([np.arange(n_joints)[:, None], n_joints + others], axis=1))  # (J, K + 1)
    return thresholds.to(device, dtype), sources.to(device)


def _confusion_table() -> npt.NDArray[np.float64]:
    """Returns the probability of each joint, for a joint that is confused in each row, (J, J)."""
    with Path(__file__).with_name("hands17_confusions.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["joint"]: row for row in csv.DictReader(file)}
    names = HANDS17.joint_names
    return np.array([[float(rows[name][other]) for other in names] for name in names])
