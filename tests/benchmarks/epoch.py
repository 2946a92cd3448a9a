"""Compares one epoch of the solver with a bare loop over the same data, alternating in one process.

The bare loop is what one would write by hand with torch alone: it gathers and shifts the poses, runs forward pass,
loss, backward pass and a step of plain Adam, and evaluates the mean distance once. The solver does the same, and also
logs all metrics three times. It is built as that of a trial, with the fused optimizer. Targets: 1.15 without dropout
and 0.85 with it; bound of the former: 1.3.
"""

import statistics
import time

import torch
from torch import nn

from cluster.planning import builders
from cluster.planning.config import Hyperparams
from data_pipeline.batch import DeviceDataset
from data_pipeline.distorters import NoDistorter
from data_pipeline.loader import Generators, TrainingLoader
from data_pipeline.normalizers import Shifter
from data_pipeline.skeleton import HANDS17
from posenet import errors
from posenet.evaluator import Evaluator
from posenet.losses import MetricLoss
from posenet.models import CorrectorMLP
from posenet.reproducible import reproducible_process
from posenet.solver import Solver, SolverSettings

N_TRAIN, N_VAL, HIDDEN, ROUNDS = 20_000, 4_000, 256, 15

CASES = ((512, 0.0, 1.15), (512, 0.2, 0.85), (256, 0.2, 0.85))
"""Batch size, dropout, and the target of the ratio."""


def random_set(n: int, seed: int) -> DeviceDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(n, 21, 3, generator=generator) * 50
    return DeviceDataset(labels, {"A": labels + 6 * torch.randn(n, 21, 3, generator=generator)}, HANDS17)


class BareLoop:
    """A training loop written by hand."""

    def __init__(self, train: DeviceDataset, val: DeviceDataset, batch_size: int, dropout: float) -> None:
        self.train, self.val, self.batch_size = train, val, batch_size
        layers = []
        for n_inputs in (63, HIDDEN):
            layers += [nn.Linear(n_inputs, HIDDEN), nn.LeakyReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        self.model = nn.Sequential(*layers, nn.Linear(HIDDEN, 63))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loss = nn.L1Loss()

    def epoch(self) -> float:
        self.model.train()
        for indices in torch.randperm(N_TRAIN).split(self.batch_size):
            poses, labels = self.train.poses["A"][indices], self.train.labels[indices]
            centre = poses.mean(dim=1, keepdim=True)
            self.optimizer.zero_grad()
            self.loss(self.corrected(poses - centre), labels - centre).backward()
            self.optimizer.step()
        self.model.eval()
        with torch.inference_mode():
            centre = self.val.poses["A"].mean(dim=1, keepdim=True)
            corrected = self.corrected(self.val.poses["A"] - centre) + centre
            return (corrected - self.val.labels).norm(dim=2).mean().item()

    def corrected(self, poses: torch.Tensor) -> torch.Tensor:
        return poses + self.model(poses.flatten(1)).view_as(poses)


def solver(train: DeviceDataset, val: DeviceDataset, batch_size: int, dropout: float) -> Solver:
    hyperparams = Hyperparams(
        model=CorrectorMLP,
        model_args={"hidden_dims": [HIDDEN, HIDDEN], "dropout": dropout},
        loss_function=MetricLoss(errors.coordinate_difference, "absolute"),
        optimizer=torch.optim.Adam,
        optimizer_args={"lr": 1e-3},
        scheduler=torch.optim.lr_scheduler.StepLR,
        scheduler_args={"step_size": 1000},
    )
    model = builders.build_model(hyperparams, HANDS17)
    optimizer = builders.build_optimizer(hyperparams, model.parameters())
    generators = Generators(*(torch.Generator().manual_seed(seed) for seed in range(3)))
    return Solver(
        model,
        builders.build_loss(hyperparams),
        optimizer,
        builders.build_scheduler(hyperparams, optimizer),
        TrainingLoader(
            train,
            batch_size=batch_size,
            distorter=NoDistorter(),
            augmenters=[],
            normalizer=Shifter(HANDS17),
            generators=generators,
        ),
        Evaluator(val, normalizer=Shifter(HANDS17), eval_space="original"),
        SolverSettings(num_epochs=10_000, log_frequency=3),
    )


def compare(train: DeviceDataset, val: DeviceDataset, batch_size: int, dropout: float) -> list[tuple[float, float]]:
    """Returns the seconds of each epoch of the solver and of the bare loop."""
    bare, epochs = BareLoop(train, val, batch_size, dropout), solver(train, val, batch_size, dropout).epochs()
    for _ in range(2):
        bare.epoch(), next(epochs)
    return [(seconds(lambda: next(epochs)), seconds(bare.epoch)) for _ in range(ROUNDS)]


def seconds(step: object) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


with reproducible_process(threads=1, deterministic=True, matmul_precision="highest"):
    train, val = random_set(N_TRAIN, 0), random_set(N_VAL, 1)
    for batch_size, dropout, target in CASES:
        pairs = compare(train, val, batch_size, dropout)
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        ours, theirs = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
        print(
            f"batch {batch_size}, dropout {dropout}: solver {ours:.0f} ms, bare loop {theirs:.0f} ms an epoch; ratio "
            f"{statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}); target {target}"
        )
print(f"medians of {ROUNDS} epochs; bound without dropout 1.3")
