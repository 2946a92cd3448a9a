"""Distorters simulate the errors of a backbone: they change the input of a training sample and keep its label."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.distorters.distorter import Distorter, TrainingSamples
from data_pipeline.distorters.noise import GaussianDistorter, LayeredGaussianDistorter
from data_pipeline.distorters.recorded import ErrorBankDistorter, InterpolationDistorter, NeighborErrorBankDistorter

__all__ = [
    "Distorter",
    "ErrorBankDistorter",
    "GaussianDistorter",
    "InterpolationDistorter",
    "LayeredGaussianDistorter",
    "NeighborErrorBankDistorter",
    "NoDistorter",
    "TrainingSamples",
]


# Defined here because identities contain its name, `data_pipeline.distorters.NoDistorter`.
@dataclass(frozen=True, kw_only=True)
class NoDistorter(Distorter):
    """Leaves the input unchanged."""

    makes_input = False

    def __call__(self, samples: TrainingSamples, generator: torch.Generator) -> Tensor:
        """Returns the inputs."""
        return samples.poses
