"""The seeds of repetitions: only they distinguish the trainings of one combination.

A repetition's seed depends only on the experiment's seed and the repetition's number. All combinations share it, so
comparisons between them are paired, and neither the order of trials nor a further option changes a number.
"""

from dataclasses import dataclass

import numpy as np
import torch

from data_pipeline.loader import Generators


def repetition_seed(experiment_seed: int, repetition: int) -> int:
    """Returns the seed of a repetition, counted from 0."""
    (state,) = np.random.SeedSequence([experiment_seed, repetition]).generate_state(1, np.uint64)
    return int(state) >> 11  # 53 bits: exact in programs that read numbers as doubles


@dataclass(frozen=True)
class TrialSeeds:
    """The seeds of a trial's independent sources of randomness.

    Attributes:
        initialisation: The model's initial weights.
        training: Draws from torch's global generator during training, such as dropout.
        order: The order of samples and the subset of each batch.
        distorting: The distorter's draws.
        augmenting: The augmenters' draws.
    """

    initialisation: int
    training: int
    order: int
    distorting: int
    augmenting: int

    @classmethod
    def of(cls, seed: int) -> "TrialSeeds":
        """Derives the seeds from a repetition's seed."""
        children = np.random.SeedSequence(seed).spawn(5)
        return cls(*(int(child.generate_state(1, np.uint64)[0]) >> 11 for child in children))

    def generators(self, device: torch.device) -> Generators:
        """Returns a loader's generators, for data on `device`."""
        return Generators(
            order=torch.Generator().manual_seed(self.order),
            distorting=torch.Generator(device).manual_seed(self.distorting),
            augmenting=torch.Generator(device).manual_seed(self.augmenting),
        )
