"""The training that the rivals of PoseTune share: a loop that a careful user writes once and calls from any tool.

It trains what PoseTune trains: a `CorrectorMLP` on poses relative to their centre, with Adam and the mean absolute
difference of coordinates as loss. After each epoch it computes the mean distance on the validation set, and it keeps
the weights of the best epoch.
"""

import argparse
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data_pipeline.skeleton import HANDS17
from posenet.models import CorrectorMLP

LRS = (3e-4, 6e-4, 1e-3, 2e-3)
WEIGHT_DECAYS = (0.0, 1e-6, 1e-5, 1e-4)
HIDDEN_DIMS = (256, 256)
DROPOUT = 0.2

N_CORES = len(os.sched_getaffinity(0))
"""The number of trainings at a time."""


@dataclass(frozen=True)
class Sweep:
    """What a script trains, from its command line: all learning rates, weight decays and seeds.

    Attributes:
        data: The folder with the sets `train` and `val`.
        out: The folder for everything that the script writes.
        n_epochs: Epochs of each training.
        batch_size: Poses in a batch.
        n_seeds: Trainings of each combination.
    """

    data: Path
    out: Path
    n_epochs: int
    batch_size: int
    n_seeds: int

    @classmethod
    def from_command_line(cls) -> "Sweep":
        """Reads `arguments`; the options of a script are left to it."""
        parser = argparse.ArgumentParser()
        for name, kind in (("data", Path), ("out", Path), ("n_epochs", int), ("batch_size", int), ("n_seeds", int)):
            parser.add_argument(name, type=kind)
        return cls(**vars(parser.parse_known_args()[0]))

    def arguments(self) -> list[str]:
        """Returns the command line of this sweep."""
        return [str(value) for value in vars(self).values()]

    def settings(self) -> list[dict[str, Any]]:
        """Returns the arguments `lr`, `weight_decay` and `seed` of each training."""
        product = itertools.product(LRS, WEIGHT_DECAYS, range(self.n_seeds))
        return [dict(zip(("lr", "weight_decay", "seed"), values, strict=True)) for values in product]


class Epoch(NamedTuple):
    """A training after some epochs.

    Attributes:
        number: The number of epochs done.
        val_mm: The mean distance on the validation set now, mm.
        best_mm: The smallest one so far, mm.
        best_weights: The weights of that epoch.
    """

    number: int
    val_mm: float
    best_mm: float
    best_weights: Mapping[str, Tensor]


def train(data: Path, *, lr: float, weight_decay: float, seed: int, n_epochs: int, batch_size: int) -> Iterator[Epoch]:
    """Trains a corrector on the sets in the folder `data`, and yields after each epoch."""
    torch.set_num_threads(1)  # a process for each core; more threads would only compete
    torch.manual_seed(seed)
    poses, labels = _centred(data, "train")
    val_poses, val_labels = _centred(data, "val")
    model = CorrectorMLP(HANDS17, hidden_dims=HIDDEN_DIMS, dropout=DROPOUT)
    loss = nn.L1Loss()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    best_mm, best_weights = math.inf, {}
    for number in range(1, n_epochs + 1):
        model.train()
        for indices in torch.randperm(len(poses)).split(batch_size):
            optimizer.zero_grad()
            loss(model(poses[indices]), labels[indices]).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            val_mm = (model(val_poses) - val_labels).norm(dim=2).mean().item()
        if val_mm < best_mm:
            best_mm = val_mm
            best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        yield Epoch(number, val_mm, best_mm, best_weights)


def save(folder: Path, settings: Mapping[str, Any], epochs: Sequence[Epoch]) -> None:
    """Writes the result and the best weights of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(epochs[-1].best_weights, folder / "best.pt")
    result = {**settings, "val_mm": [epoch.val_mm for epoch in epochs], "best_mm": epochs[-1].best_mm}
    (folder / "result.json").write_text(json.dumps(result))


def _centred(data: Path, name: str) -> tuple[Tensor, Tensor]:
    """Reads the poses and labels of a set, each (N, J, 3), mm, relative to the centre of the pose."""
    poses, labels = (torch.load(data / f"{name}_{kind}.pt", weights_only=True) for kind in ("poses", "labels"))
    centre = poses.mean(dim=1, keepdim=True)  # (N, J, 3) -> (N, 1, 3)
    return poses - centre, labels - centre
